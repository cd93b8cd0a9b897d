"""What the page says of rankers: tables of chances and of values, and who is better than whom (ranking.json in)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusionrec.evaluation import words

CHANCES = {"auc": "AUC", "gauc": "AUC within a user", "logloss": "log loss", "ece": "calibration error"}
VALUES = {"mse": "MSE", "rmse": "RMSE", "mae": "MAE"}
LESS = ("logloss", "ece", "mse", "rmse", "mae")
"""Of these less is better."""
WORDS = {"gauc": "AUC within a user", "logloss": "log loss", "mse": "squared error"}
TASKS = {
    "click": "clicked",
    "cart": "put into the cart",
    "conversion": "bought",
    "ad_click": "clicked as an ad",
    "like": "liked",
    "rating": "rated",
}
"""Every task that a ranker may be told to learn, in the order of tables."""


def tables(ranking: Mapping[str, Any]) -> list[dict[str, Any]]:
    """``{"heads", "rows": [{"task", "label", "main", "n", "cells": [{"value": [mean, low, high], "best"}]}]}``: one
    for chances and one for values, where there are rows; ``task`` on a task's first row alone."""
    out = []
    for heads in (CHANCES, VALUES):
        rows = [row for row in ranking.get("rows", ()) if any(name in row["metrics"] for name in heads)]
        if rows:
            out.append({"heads": list(heads.values()), "rows": _rows(rows, list(heads), ranking)})
    return out


def _rows(rows: Sequence[Mapping[str, Any]], names: list[str], ranking: Mapping[str, Any]) -> list[dict[str, Any]]:
    labels, out, before = ranking["labels"], [], None
    for row in rows:
        mates = [other for other in rows if other["task"] == row["task"]]
        cells = [{"value": row["metrics"][name], "best": _is_best(row, mates, name)} for name in names]
        task = TASKS[row["task"]] if row["task"] != before else ""
        main = row["ranker"] == ranking["chosen"]
        out.append({"task": task, "label": labels[row["ranker"]], "main": main, "n": row["n"], "cells": cells})
        before = row["task"]
    return out


def _is_best(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    values = [other["metrics"][name][0] for other in rows if other["metrics"][name][0] is not None]
    if len(values) < 2 or row["metrics"][name][0] is None:
        return False
    return bool(row["metrics"][name][0] == (min(values) if name in LESS else max(values)))


def lines(ranking: Mapping[str, Any]) -> list[str]:
    """One sentence a task on the chosen ranker: its leading figures with their intervals."""
    out = []
    for row in (row for row in ranking.get("rows", ()) if row["ranker"] == ranking["chosen"]):
        names = [name for name in ("auc", "ece", "rmse") if name in row["metrics"]]
        figures = ", ".join(f"{({**CHANCES, **VALUES})[name]} {cell(row['metrics'][name])}" for name in names)
        out.append(f"{TASKS[row['task']]} ({ranking['labels'][row['ranker']]}): {figures}")
    return out


def cell(value: Sequence[float | None]) -> str:
    """``0.704 [0.690, 0.717]``; a dash where nothing is known."""
    mean, low, high = value
    if mean is None:
        return words.NONE
    return f"{mean:.3f}" if low is None else f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def verdicts(ranking: Mapping[str, Any]) -> list[str]:
    """One sentence a task and finding: in what the chosen ranker is better or worse than whom at the 5 % level, and
    with whom it is tied."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for test in ranking.get("tests", ()):
        groups.setdefault((test["task"], test["against"]), []).append(test)
    told: dict[tuple[str, str], list[str]] = {}
    for (task, against), tests in groups.items():
        told.setdefault((task, _finding(tests)), []).append(ranking["labels"][against])
    return [f"{TASKS[task].capitalize()}: {said} {', '.join(others)}." for (task, said), others in told.items()]


def _finding(tests: Sequence[Mapping[str, Any]]) -> str:
    sure = [test for test in tests if test["p_holm"] < 0.05 and test["better by"]]
    parts = [
        f"{word} in {' and '.join(WORDS[test['metric']] for test in some)}"
        for word, some in (
            ("better", [test for test in sure if test["better by"] > 0]),
            ("worse", [test for test in sure if test["better by"] < 0]),
        )
        if some
    ]
    return " and ".join(parts) + " than" if parts else "tied with"
