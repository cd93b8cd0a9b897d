"""From the units of a benchmark to its table: means over seeds, intervals over users, who is first and who is tied.

"First" means better than every other model with p < .05, paired over users and corrected after Holm; a model that the
best one does not beat so is "tied" with it. Tests compare per-user values averaged over the seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fusionrec.evaluation import metrics
from fusionrec.evaluation.metrics import Float64
from fusionrec.evaluation.significance import holm, interval, paired
from fusionrec.studies.protocol import KS, METRICS
from fusionrec.studies.unit import unpacked

TESTED = ("recall@20", "ndcg@20")
LEVEL = 0.05


def values(units: Sequence[Mapping[str, Any]], part: str) -> dict[str, Float64]:
    """Metric -> (S, B) per seed and user; NaN for users without a positive in this slice."""
    found = []
    for unit in units:
        hits, n_positives = unpacked(unit["test"][part])
        found.append(metrics.from_hits(hits, n_positives, KS))
    return {f"{name}@{k}": np.stack([v[f"{name}@{k}"] for v in found]) for name in METRICS for k in KS}


def summary(by_metric: Mapping[str, Float64], repeats: int = 2000) -> dict[str, dict[str, Any]]:
    """Metric -> mean over seeds and users, 95 % interval over users, the mean of each seed, number of users."""
    out = {}
    for name, x in by_metric.items():
        mean, n = metrics.mean(x.mean(axis=0))
        low, high = interval(x.mean(axis=0), repeats) if n > 1 else (mean, mean)
        seeds = [round(metrics.mean(row)[0], 6) for row in x]
        out[name] = {"mean": round(mean, 6), "low": round(low, 6), "high": round(high, 6), "seeds": seeds, "n": n}
    return out


def against_best(users: Mapping[str, Float64], metric: str, repeats: int = 2000) -> dict[str, Any]:
    """``users`` model -> (B,) values. -> the best model, every other against it, and the place of each.

    Place: "first" for a best model that beats all others, else "tied" for it and for those that it does not beat; the
    others have their rank by the mean; a model without another one is "alone".
    """
    order = sorted(users, key=lambda name: (-metrics.mean(users[name])[0], name))
    best, others = order[0], order[1:]
    found = {name: paired(users[best], users[name], repeats) for name in others}
    corrected = holm({name: test.p for name, test in found.items()})
    tied = [name for name in others if corrected[name] >= LEVEL]
    places = {name: str(rank) for rank, name in enumerate(order, 1)}
    places |= dict.fromkeys([best, *tied], "tied") if tied else {best: "first" if others else "alone"}
    lines = [
        {
            "against": name,
            "difference": round(test.difference, 6),
            "low": None if np.isnan(test.low) else round(test.low, 6),
            "high": None if np.isnan(test.high) else round(test.high, 6),
            "p": round(test.p, 6),
            "p_holm": round(corrected[name], 6),
            "n": test.n,
        }
        for name, test in found.items()
    ]
    return {"metric": metric, "best": best, "comparisons": lines, "places": places}
