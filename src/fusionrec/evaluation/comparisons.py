"""The content of tests.json: the main model against every other one, and everyone against chance on cold items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fusionrec.evaluation import metrics, significance
from fusionrec.evaluation.metrics import Float64
from fusionrec.evaluation.protocol import Result
from fusionrec.evaluation.table import ITSELF, MAIN, columns_for, number, order

LEVEL = 0.05
"""Below this adjusted p a difference is called one."""


def against_others(
    results: Mapping[str, Result], labels: Mapping[str, str], metric: str, repeats: int, seed: int
) -> list[dict[str, Any]]:
    """Paired tests of the main model against every other one on all users.

    ``p``: one-sided, "the main model is better"; ``p_worse``: "the other one is better"; each adjusted by Holm over the
    models. ``verdict``: "better" or "worse" where the adjusted p is below :data:`LEVEL`, else "tied".
    """
    main = results[MAIN].values["all"][metric]
    tests = {
        name: significance.paired(main, results[name].values["all"][metric], repeats, seed)
        for name in order(results)
        if name != MAIN
    }
    worse = {name: significance.paired(results[name].values["all"][metric], main, repeats, seed).p for name in tests}
    adjusted, adjusted_worse = (
        significance.holm({name: test.p for name, test in tests.items()}),
        significance.holm(worse),
    )
    return [
        {
            "against": name,
            "label": labels[name],
            "metric": metric,
            "slice": "all",
            **rounded(asdict(test)),
            "p_holm": number(adjusted[name]),
            "p_worse": number(worse[name]),
            "p_worse_holm": number(adjusted_worse[name]),
            "verdict": verdict(adjusted[name], adjusted_worse[name]),
        }
        for name, test in tests.items()
    ]


def verdict(p_holm: float, p_worse_holm: float) -> str:
    """better, worse or tied, by the two adjusted p."""
    return "better" if p_holm < LEVEL else "worse" if p_worse_holm < LEVEL else "tied"


def standing(tests: Sequence[Mapping[str, Any]]) -> str | None:
    """Where the main model stands: "first" only if it is better than every other; None without another model. What it
    is with a ranker or a re-ranker behind it is no other model."""
    tests = [test for test in tests if test["against"] not in ITSELF]
    if not tests:
        return None
    behind = [test["label"] for test in tests if test["verdict"] == "worse"]
    tied = [test["label"] for test in tests if test["verdict"] == "tied"]
    if behind:
        return f"behind {', '.join(behind)}"
    return f"tied with {', '.join(tied)}" if tied else "first"


def best_single(results: Mapping[str, Result], metric: str) -> str | None:
    """The model of one modality with the best mean on all users, or None where there is none."""
    singles = [name for name in results if name.startswith("only-")]
    return max(singles, key=lambda name: (results[name].mean("all", metric)[0], name), default=None)


def cold_only(
    results: Mapping[str, Result], labels: Mapping[str, str], chance: Float64, k: int, repeats: int, seed: int
) -> dict[str, Any]:
    """Recall@k among cold items against its exact expectation under random ranking, for every model.

    ``chance`` (B,) from :func:`fusionrec.evaluation.slices.random_recall`. ``models``: mean, the ratio to random with
    its interval (users resampled jointly), and the paired p of "better than random"; ``ratio`` is the main model's.
    """
    metric = f"recall@{k}"
    level, n = metrics.mean(chance)
    out: dict[str, Any] = {"metric": metric, "n": n, "random": number(level), "models": [], "ratio": None}
    if n == 0:
        return out
    for name in order(results):
        values = results[name].values["cold_only"][metric]
        ratio = significance.ratio(values, chance, repeats, seed)
        told = None if ratio is None else rounded(asdict(ratio))
        test = significance.paired(values, chance, repeats, seed)
        out["models"].append(
            {
                "model": name,
                "label": labels[name],
                "mean": number(metrics.mean(values)[0]),
                "ratio": told,
                "p": number(test.p),
                "difference": number(test.difference),
            }
        )
        if name == MAIN:
            out["ratio"] = told
    return out


def rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Floats rounded for files, NaN as None."""
    return {key: number(value) if isinstance(value, float) else value for key, value in values.items()}


def nested(table: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """metrics.json: ``{model: {slice: {metric: value}}}`` from table.json; slices without users are left out."""
    out: dict[str, Any] = {}
    for row in table:
        if row["mean"] is not None:
            out.setdefault(row["model"], {}).setdefault(row["slice"], {})[row["metric"]] = row["mean"]
    return out


def headline(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """headline.json, what ``dvc metrics`` shows: the main model's columns of the people's table, by their headings."""
    at = {(r["slice"], r["metric"]): r["mean"] for r in rows if r["model"] == MAIN and r["mean"] is not None}
    return {head: at[part, metric] for head, part, metric in columns_for(rows) if (part, metric) in at}
