"""Rating prediction: RMSE, MSE and MAE, over pairs and per user (E2). Pure numpy.

Over pairs every rating counts the same (the published convention), so users with many ratings dominate; per user each
user counts the same, which is what paired tests compare. The floor that a model must beat is
:mod:`fusionrec.ranking.biases`. Legend: N rated pairs, U users.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fusionrec.evaluation import significance
from fusionrec.evaluation.metrics import Float64
from fusionrec.types import Int64

NAMES = ("rmse", "mse", "mae")
"""The errors, lower is better."""


@dataclass(frozen=True)
class Measured:
    """``mean``: error over all pairs; ``low``, ``high``: 95 % interval over users; ``users``: error -> (U,), NaN for
    users without a rating."""

    mean: Mapping[str, float]
    low: Mapping[str, float]
    high: Mapping[str, float]
    users: Mapping[str, Float64]


def measure(
    user: Int64, truth: Float64, predicted: Float64, repeats: int = 2000, seed: int = 0, level: float = 0.95
) -> Measured:
    """The errors of pairs (N,) with ``user`` (N,) row numbers, users resampled together with all their pairs.

    Raises ValueError for other lengths and for predictions that are not finite.
    """
    if not len(user) == len(truth) == len(predicted):
        raise ValueError(f"lengths differ: user {len(user)}, truth {len(truth)}, predicted {len(predicted)}")
    if not np.isfinite(predicted).all():
        raise ValueError(f"{int((~np.isfinite(predicted)).sum())} of {len(predicted)} predictions are not finite")
    off = predicted.astype(np.float64) - truth
    n = int(user.max(initial=-1)) + 1
    count = np.bincount(user, minlength=n).astype(np.float64)
    sums = np.stack([count, np.bincount(user, off**2, n), np.bincount(user, np.abs(off), n)], axis=1)
    with np.errstate(invalid="ignore"):
        mse, mae = (np.where(count > 0, sums[:, at] / count, np.nan) for at in (1, 2))
    users = {"rmse": np.sqrt(mse), "mse": mse, "mae": mae}
    mean = {name: float(value) for name, value in _pooled(sums.sum(axis=0)).items()}
    low, high = dict.fromkeys(NAMES, float("nan")), dict.fromkeys(NAMES, float("nan"))
    if (count > 0).sum() > 1:
        drawn = _pooled(significance.bootstrap_means(sums[count > 0], repeats, seed).T)
        for name, values in drawn.items():
            low[name], high[name] = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Measured(mean, low, high, users)


def _pooled(sums: Float64) -> dict[str, Float64]:
    """(count, squares, sizes) -> the errors over pairs."""
    count, squares, sizes = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        mse, mae = np.divide(squares, count), np.divide(sizes, count)
    return {"rmse": np.sqrt(mse), "mse": mse, "mae": mae}
