"""The part of docs/results.md on search: keywords, vectors, clicks and all of them, and across languages."""

from __future__ import annotations

from typing import Any

from page_source import plain, source

from fusionrec.evaluation.comparisons import LEVEL
from fusionrec.evaluation.table import markdown

LANGUAGES = ("recall@10", "recall@10 in its language")


def search(found: dict[str, Any]) -> list[str]:
    """Tables with intervals, what the paired tests say in words, and the speed of a query."""
    learnt = found["learnt"]
    weights = ", ".join(f"{side} {learnt['weights'][side]:g}" for side in ("keyword", "vector", "clicks"))
    text = (
        f"The demo's query log: {learnt['queries']:,} searches before the valid days teach, the {found['later']:,} "
        "later ones are asked, all items ranked. "
        f"Chosen on the last {learnt['held']} of the earlier ones: modalities of the map from queries to clicked items "
        f"({', '.join(learnt['modalities'])}), its rank ({learnt['rank']}), weights of the hybrid ({weights}). "
        "*Clicked item*: the first one of the search, as the query log names it; *all clicks*: every item chosen from "
        "its results. A user's value is the mean over the user's searches.\n"
    )
    out = ["## Search\n", text, markdown(overall(found["systems"])), source(found)]
    out += [f"- {line}" for line in findings(found["tests"])]
    out += ["", ACROSS, markdown(across(found["systems"]))]
    out += ["", SAME, markdown(same(found["same item"]))] if found.get("same item") else []
    columns = ("case", "ours", "unit")
    return out + plain("Speed of a search", found, columns)


ACROSS = (
    "The clicked item's Recall@10 by the language of the query and of the item's description (`zh for an item in en`: "
    "a Chinese query, an item described in English), among all items and among those of the item's language alone. "
    "Most clicks also have a reason that no query tells, so no system can come near 1.\n"
)
SAME = (
    "The same item in the other language: 300 things that the demo's writer describes in English and in Chinese, the "
    "one description asking for the other, by the vectors alone.\n"
)


def same(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """A line a direction, and whether each language was standardised."""
    return [
        {"asked in": r["asked"], "described in": r["items"], "vectors": r["vectors"], "Recall@1": cell(r["recall@1"]),
         "Recall@10": cell(r["recall@10"]), "n": str(r["n"])}
        for r in rows
    ]  # fmt: skip


def cell(values: list[float]) -> str:
    mean, low, high = values
    return f"{mean:.4f} [{low:.4f}, {high:.4f}]"


def overall(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """One line a system over all queries, then by the language asked in."""
    metrics = {"NDCG@10, clicked item": "ndcg@10", "MRR": "mrr", "NDCG@10, all clicks": "ndcg@10, all clicks"}
    return [
        {
            "queries": row["slice"],
            "system": row["system"],
            **{title: cell(row["metrics"][name]) for title, name in metrics.items()},
            "n": f"{row['queries']:,}",
        }
        for row in rows
        if row["slice"] == "all" or row["slice"].startswith("asked in")
    ]


def across(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """One line a pair of languages and a system."""
    return [
        {
            "query and item": row["slice"],
            "system": row["system"],
            **dict(zip(("Recall@10", "in its language"), (cell(row["metrics"][m]) for m in LANGUAGES), strict=True)),
            "n": f"{row['queries']:,}",
        }
        for row in rows
        if " for an item in " in row["slice"]
    ]


def findings(tests: list[dict[str, Any]]) -> list[str]:
    """A sentence for each metric and system over all queries, and for each pair of languages."""
    words = {"ndcg@10": "NDCG@10 of the clicked item", "mrr": "MRR", "ndcg@10, all clicks": "NDCG@10 of all clicks"}
    said = []
    for part in dict.fromkeys(test["slice"] for test in tests):
        for metric, name in words.items():
            if part != "all" and metric != "ndcg@10":
                continue
            mine = [test for test in tests if (test["slice"], test["metric"]) == (part, metric)]
            for system in dict.fromkeys(test["system"] for test in mine):
                verdicts = "; ".join(
                    f"{verdict(test)} {test['against']} ({test['better by']:+.4f}, p {test['p_holm']:.4f})"
                    for test in mine
                    if test["system"] == system
                )
                said.append(f"{'All queries' if part == 'all' else part.capitalize()}, {name}: {system} is {verdicts}.")
    return said


def verdict(test: dict[str, Any]) -> str:
    """``better than``, ``worse than`` or ``tied with`` by the corrected p."""
    if test["p_holm"] >= LEVEL or not test["better by"]:
        return "tied with"
    return "better than" if test["better by"] > 0 else "worse than"
