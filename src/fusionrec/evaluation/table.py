"""The result table: long rows for files, and one row a model for people (terminal, Markdown, report)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fusionrec.evaluation.protocol import Result
from fusionrec.evaluation.significance import intervals

MAIN = "model"
"""The key of the main model in every file of data/evaluation/."""

TWO_STAGE = "two-stage"
"""The main model with the chosen ranker behind it, where validation trusts the ranker at all."""

RERANKED = "re-ranked"
"""What is served where a re-ranker looks at the list at last."""
ITSELF = frozenset({TWO_STAGE, RERANKED})
"""Not other models: the main one, and what looks at its candidates."""


def label(model: str, kind: str = "", modalities: Sequence[str] = ()) -> str:
    """What people read for a model's key; ``kind`` and ``modalities`` are the main model's (of two stages, and of what
    is re-ranked, ``kind`` is what comes after it)."""
    if model == MAIN:
        if len(modalities) > 1:
            return f"fused ({kind}: {' + '.join(modalities)})" if kind else "fused"
        return f"{kind} ({modalities[0]})" if modalities else kind or MAIN
    if model in (TWO_STAGE, RERANKED):
        return f"fused, then {kind}" if kind else model.replace("two-stage", "two stages")
    known = {"oracle": "oracle (ceiling)", "popularity": "popularity (floor)", "ease": "EASE", "random": "random"}
    return known.get(model) or (f"{model[5:]} alone" if model.startswith("only-") else model.replace("_", " "))


def order(models: Iterable[str]) -> list[str]:
    """Oracle, random, popularity, EASE, other baselines by name, each modality alone, two stages, the main model."""
    first = {"oracle": 0, "random": 1, "popularity": 2, "ease": 3, RERANKED: 7, TWO_STAGE: 8, MAIN: 9}
    return sorted(models, key=lambda m: (first.get(m, 5 if m.startswith("only-") else 4), m))


def long_rows(results: Sequence[Result], labels: Mapping[str, str], repeats: int, seed: int) -> list[dict[str, Any]]:
    """One row for each model, slice and metric: mean, its 95 % interval over users, and n users.

    Mean and bounds are None where n is 0, the bounds also where n is 1. All models of a slice share the users
    and therefore the resamples.
    """
    rows = []
    for part in results[0].values if results else ():
        names = list(results[0].values[part])
        keep = ~np.isnan(results[0].values[part][names[0]])
        columns = np.stack([r.values[part][m][keep] for r in results for m in names], axis=1)
        low, high = intervals(columns, repeats, seed)
        middle = columns.mean(axis=0) if keep.any() else np.full(columns.shape[1], np.nan)
        at = 0
        for result in results:
            for metric in names:
                rows.append(row(result.model, labels, part, metric, middle[at], low[at], high[at], int(keep.sum())))
                at += 1
    return rows


def row(
    model: str, labels: Mapping[str, str], part: str, metric: str, mean: float, low: float, high: float, n: int
) -> dict[str, Any]:
    """One row of table.json; NaN becomes None."""
    return {
        "model": model,
        "label": labels.get(model, model),
        "slice": part,
        "metric": metric,
        "n": n,
        "mean": number(mean),
        "low": number(low),
        "high": number(high),
    }


def number(value: float, digits: int = 6) -> float | None:
    """Rounded, so that the last bits of a sum never change a file; None for NaN and infinities."""
    return round(float(value), digits) + 0.0 if math.isfinite(value) else None


def columns_for(table: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """(heading, slice, metric) of the people's table: K=20 (else the largest), cold-only at 10 (else the smallest)."""
    ks = sorted({int(r["metric"].rpartition("@")[2]) for r in table})
    if not ks:
        return []
    k, c = (20 if 20 in ks else ks[-1]), (10 if 10 in ks else ks[0])
    wide = [
        (f"{prefix}{name}@{k}", part, f"{metric}@{k}")
        for prefix, part in (("", "all"), ("warm ", "warm"), ("cold ", "cold"))
        for name, metric in (("Recall", "recall"), ("NDCG", "ndcg"))
    ]
    return [*wide, (f"cold-only Recall@{c}", "cold_only", f"recall@{c}")]


def rows_for_people(table: Sequence[Mapping[str, Any]], tests: Mapping[str, Any] | None = None) -> list[dict[str, str]]:
    """table.json -> one dict a model: ``{"model": label, "Recall@20": "0.123 [0.110, 0.137]", ...}``.

    ``tests``: tests.json; adds a last column that says who is first, tied or beaten on the main metric.
    """
    at = {(r["model"], r["slice"], r["metric"]): r for r in table}
    labels = {r["model"]: r["label"] for r in table}
    found = verdicts(tests or {})
    return [
        {
            "model": labels[m],
            **{head: cell(at.get((m, part, metric))) for head, part, metric in columns_for(table)},
            **({"tested": found.get(m, "–")} if found else {}),
        }
        for m in order(labels)
    ]


def verdicts(tests: Mapping[str, Any]) -> dict[str, str]:
    """tests.json -> model -> ``first``, ``tied`` or ``behind`` for the main one; ``beaten``, ``tied`` or ``ahead`` for
    the others; {} where nothing was compared."""
    if not tests.get("standing"):
        return {}
    words = {"better": "beaten", "tied": "tied", "worse": "ahead"}
    others = {test["against"]: words[test["verdict"]] for test in tests["comparisons"]}
    return {MAIN: tests["standing"].split(" ")[0], **others}


def cell(found: Mapping[str, Any] | None) -> str:
    """``0.123 [0.110, 0.137]``; the mean alone without an interval; "–" without a value."""
    if found is None or found["mean"] is None:
        return "–"
    if found["low"] is None:
        return f"{found['mean']:.3f}"
    return f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def _numeric(cell: str) -> bool:
    """A number, an interval, a share, or nothing."""
    text = str(cell).strip("*≥≤~ ")
    return text in ("", "–") or text.lstrip("+-−.")[:1].isdigit()


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows with equal keys -> a Markdown table, numbers to the right; bars and line ends in cells are escaped."""
    if not rows:
        return ""

    def line(cells: Iterable[str]) -> str:
        escaped = (" ".join(str(c).replace("\\", "\\\\").replace("|", "\\|").splitlines()) for c in cells)
        return "| " + " | ".join(escaped) + " |"

    head = list(rows[0])
    rule = "|" + "|".join("---:" if all(_numeric(row[h]) for row in rows) else "---" for h in head) + "|"
    return "\n".join([line(head), rule, *(line(r[h] for h in head) for r in rows)]) + "\n"
