"""Rankers side by side on the impressions of the test: one row a task and ranker, and paired tests over users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fusionrec.evaluation.significance import holm, interval, sign_flips
from fusionrec.ranking.judging import Judgement

COMPARED = ("gauc", "logloss", "mse")
"""What paired tests look at: of probabilities the first two, of values the third."""
HIGHER_IS_BETTER = frozenset({"gauc"})

Runs = Mapping[str, Sequence[Mapping[str, Judgement]]]
"""Ranker -> one mapping of task -> judgement a seed."""


def rows(found: Runs, tasks: Sequence[str]) -> list[dict[str, Any]]:
    """``{"task", "ranker", "n", "seeds", "metrics": {metric: [mean, low, high]}}``: means over the seeds of the value
    and of the bounds of its interval; None where it is undefined."""
    out = []
    for task in tasks:
        for name, runs in found.items():
            of = [one[task] for one in runs if task in one]
            if of:
                told = {metric: [_mean(of, part, metric) for part in ("mean", "low", "high")] for metric in of[0].mean}
                out.append({"task": task, "ranker": name, "n": of[0].n, "seeds": len(of), "metrics": told})
    return out


def _mean(runs: Sequence[Judgement], part: str, metric: str) -> float | None:
    value = float(np.mean([getattr(one, part)[metric] for one in runs]))
    return round(value, 6) if np.isfinite(value) else None


def tests(found: Runs, tasks: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Paired tests of the ``pairs`` (this, against): each user's own value, averaged over seeds, by random signs,
    two-sided, Holm over a task's comparisons. ``better by`` is positive where the first is better."""
    out = []
    for task in tasks:
        lines = [
            _test(found, task, metric, a, b)
            for a, b in pairs
            if all(task in found[name][0] for name in (a, b))
            for metric in COMPARED
            if metric in found[a][0][task].users
        ]
        corrected = holm({str(at): line["p"] for at, line in enumerate(lines)})
        out += [{**line, "p_holm": round(corrected[str(at)], 6)} for at, line in enumerate(lines)]
    return out


def _test(found: Runs, task: str, metric: str, a: str, b: str) -> dict[str, Any]:
    x, y = (np.mean([run[task].users[metric] for run in found[name]], axis=0) for name in (a, b))
    d = (x - y) * (1 if metric in HIGHER_IS_BETTER else -1)
    d = d[~np.isnan(d)]
    told: dict[str, float | None] = dict.fromkeys(("better by", "low", "high"))
    p = 1.0
    if len(d):
        low, high = interval(d)
        told = {"better by": float(d.mean()), "low": low, "high": high}
        p = float(sign_flips(d[:, None])[0])
    told = {key: round(value, 6) if value is not None and np.isfinite(value) else None for key, value in told.items()}
    line = {"task": task, "metric": metric, "ranker": a, "against": b, "users": len(d)}
    return line | told | {"p": round(p, 6)}
