"""The part of docs/results.md on encoders that are learnt here, beside the frozen ones of the same modality."""

from __future__ import annotations

from typing import Any

from page_source import source

from fusionrec.evaluation.comparisons import LEVEL
from fusionrec.evaluation.table import markdown

NAMES = {"all ndcg@20": "NDCG@20", "cold_only recall@10": "Recall@10 of new items among themselves"}


def encoders(found: dict[str, Any]) -> list[str]:
    """A line an encoder, and in words who beats the frozen default."""
    rows = []
    for row in found["rows"]:
        test = {key: f"{m:.3f} [{low:.3f}, {high:.3f}]" for key, (m, low, high) in row["test"].items()}
        rows.append({
            "modality": row["modality"], "encoder": row["encoder"], "width": str(row["dim"]),
            "seeds": str(row["seeds"]),
            "valid NDCG@20": f"{row['valid_ndcg@20']:.3f}", "test NDCG@20": test["all ndcg@20"],
            "warm": test["warm ndcg@20"], "cold": test["cold ndcg@20"],
            "cold-only Recall@10": test["cold_only recall@10"],
            "epochs": "–" if row["epochs"] is None else f"{row['epochs']:.0f}",
            "CPU s": "–" if row["cpu_seconds"] is None else f"{row['cpu_seconds']:.0f}",
        })  # fmt: skip
    text = (
        "One modality of the demo at a time, the same two towers over its vectors (20 epochs at most). "
        "Means over seeds, of the encoder and of the towers; settings were fixed before test was read, "
        "except `full`'s: its learning rate was lowered after a first run, by validation. "
        "*CPU s*: learning alone, without encoding.\n"
    )
    return ["## Encoders learnt here\n", text, markdown(rows), *(f"- {line}" for line in against(found["tests"])), "",
            source(found)]  # fmt: skip


def against(tests: list[dict[str, Any]]) -> list[str]:
    """One line a modality: by metric, what is better, worse and tied against the frozen default, after Holm."""
    said: dict[str, dict[str, dict[str, list[str]]]] = {}
    for test in tests:
        by_metric = said.setdefault(test["modality"], {}).setdefault(NAMES[test["metric"]], {})
        told = f"{test['encoder']} ({test['difference']:+.4f})"
        by_metric.setdefault(verdict(test), []).append(told)
    return [
        f"{modality.capitalize()}, against the frozen default: "
        + "; ".join(
            f"in {metric} " + ", ".join(f"{how}: {' | '.join(who)}" for how, who in sorted(verdicts.items()))
            for metric, verdicts in by_metric.items()
        )
        + "."
        for modality, by_metric in said.items()
    ]


def verdict(test: dict[str, Any]) -> str:
    """``better``, ``worse`` or ``tied`` by the corrected p."""
    if test["p_holm"] >= LEVEL:
        return "tied"
    return "better" if test["difference"] > 0 else "worse"
