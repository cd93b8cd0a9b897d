"""The content of tests.json: the main model against every other one, and everyone against chance on cold items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fusionrec.evaluation import metrics, significance
from fusionrec.evaluation.metrics import Float64
from fusionrec.evaluation.protocol import Result
from fusionrec.evaluation.table import MAIN, columns_for, number, order


def against_others(
    results: Mapping[str, Result], labels: Mapping[str, str], metric: str, repeats: int, seed: int
) -> list[dict[str, Any]]:
    """One-sided paired tests "the main model is better" on all users, p adjusted by Holm over the models."""
    main = results[MAIN].values["all"][metric]
    tests = {
        name: significance.paired(main, results[name].values["all"][metric], repeats, seed)
        for name in order(results)
        if name != MAIN
    }
    adjusted = significance.holm({name: test.p for name, test in tests.items()})
    return [
        {
            "against": name,
            "label": labels[name],
            "metric": metric,
            "slice": "all",
            **rounded(asdict(test)),
            "p_holm": number(adjusted[name]),
        }
        for name, test in tests.items()
    ]


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
