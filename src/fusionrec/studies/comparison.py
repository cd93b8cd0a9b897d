"""From the units of a benchmark to its table: means over seeds, intervals over users, who is first and who is tied.

"First" means better than every other model with p < .05; a model that the best one does not beat so is "tied" with it.
Tests compare per-user values averaged over the seeds, by random signs of the users. Which model is best was seen on the
same users, so p values are two-sided and corrected after Holm over all pairs of models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from fusionrec.evaluation import metrics
from fusionrec.evaluation.metrics import Float64
from fusionrec.evaluation.significance import holm, intervals, sign_flips
from fusionrec.studies.protocol import KS, METRICS
from fusionrec.studies.unit import unpacked

TESTED = ("recall@20", "ndcg@20")
LEVEL = 0.05
FLIPS = 20_000  # the smallest p a pair can get, times 105 pairs of 15 models, is below the level


def values(units: Sequence[Mapping[str, Any]], part: str) -> dict[str, Float64]:
    """Metric -> (S, B) per seed and user; NaN for users without a positive in this slice."""
    found = []
    for unit in units:
        hits, n_positives = unpacked(unit["test"][part])
        found.append(metrics.from_hits(hits, n_positives, KS))
    return {f"{name}@{k}": np.stack([v[f"{name}@{k}"] for v in found]) for name in METRICS for k in KS}


def summary(by_metric: Mapping[str, Float64], repeats: int = 2000) -> dict[str, dict[str, Any]]:
    """Metric -> mean over seeds and users, 95 % interval over users, the mean of each seed, number of users.

    None for the mean of no user and the interval of less than two."""
    out = {}
    users = np.stack([x.mean(axis=0) for x in by_metric.values()], 1)
    users = users[~np.isnan(users).any(1)]
    bounds = np.stack(intervals(users, repeats), 1)
    for (name, x), (low, high) in zip(by_metric.items(), bounds.tolist(), strict=True):
        mean, n = metrics.mean(x.mean(axis=0))
        seeds = [round(metrics.mean(row)[0], 6) for row in x]
        told = [None if n == 0 else round(mean, 6), *(None if n < 2 else round(b, 6) for b in (low, high))]
        out[name] = {"mean": told[0], "low": told[1], "high": told[2], "seeds": seeds, "n": n}
    return out


def against_best(users: Mapping[str, Float64], metric: str, repeats: int = 2000) -> dict[str, Any]:
    """``users`` model -> (B,) values. -> the best model, every other against it, and the place of each.

    Place: "first" for a best model that beats all others, else "tied" for it and for those that it does not beat; the
    others have their rank by the mean; a model without another one is "alone".
    """
    order = sorted(users, key=lambda name: (-metrics.mean(users[name])[0], name))
    best, others = order[0], order[1:]
    pairs = list(combinations(order, 2))
    apart = np.stack([users[a] - users[b] for a, b in pairs], 1) if pairs else np.zeros((0, 0))
    apart = apart[~np.isnan(apart).any(1)]
    n, p = len(apart), sign_flips(apart, FLIPS)
    family = holm({f"{at:09d}": float(value) for at, value in enumerate(p)})
    corrected = {name: family[f"{at:09d}"] for at, name in enumerate(others)}  # the first pairs are those of the best
    low, high = intervals(apart[:, : len(others)], repeats)
    tied = [name for name in others if corrected[name] >= LEVEL]
    places = {name: str(rank) for rank, name in enumerate(order, 1)}
    places |= dict.fromkeys([best, *tied], "tied") if tied else {best: "first" if others else "alone"}
    lines = [
        {
            "against": name,
            "difference": round(float(apart[:, at].mean()), 6) if n else 0.0,
            "low": None if n < 2 else round(float(low[at]), 6),
            "high": None if n < 2 else round(float(high[at]), 6),
            "p": round(float(p[at]), 6),
            "p_holm": round(corrected[name], 6),
            "n": n,
        }
        for at, name in enumerate(others)
    ]
    return {"metric": metric, "best": best, "comparisons": lines, "places": places}
