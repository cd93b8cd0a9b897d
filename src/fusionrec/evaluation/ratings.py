"""Rating prediction: RMSE, MSE and MAE, over pairs and per user, and the floor that a model must beat. Pure numpy.

Over pairs every rating counts the same (the published convention), so users with many ratings dominate; per user each
user counts the same, which is what intervals and paired tests resample. Predictions are clipped to the range of
ratings seen in training (a prediction outside it cannot be right); ``bounds=None`` leaves them as they are.

The floor is mu + b_user + b_item by damped least squares, fitted on training ratings only: most of what looks like good
rating prediction is these two biases (Koren, "Collaborative filtering with temporal dynamics", KDD 2009, section 2.1).
Legend: N rated pairs, B requests, K candidates a request, U users, I items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fusionrec.evaluation import metrics, significance
from fusionrec.evaluation.metrics import Float64
from fusionrec.types import Bool, Float32, Int64, Requests

NAMES = ("rmse", "mse", "mae")
"""The errors, lower is better."""

TASK = "rating"
"""The name of the task of a ranker that predicts ratings."""


class Predicts(Protocol):
    """What is evaluated: a Ranker (ranking/base.py), or anything that predicts ratings of candidates."""

    def predict(self, requests: Requests, candidates: Int64) -> Mapping[str, Float32]:
        """``candidates`` (B, K) item rows, -1 for none -> task -> (B, K) float32."""


@dataclass(frozen=True)
class Rated:
    """Ratings to be predicted: ``items`` (B, K) int64 item rows, -1 for none; ``truth`` (B, K), NaN for none."""

    items: Int64
    truth: Float64

    def __post_init__(self) -> None:
        if self.items.shape != self.truth.shape:
            raise ValueError(f"{self.items.shape} items have {self.truth.shape} ratings, expected the same shape")
        if not np.array_equal(self.items >= 0, np.isfinite(self.truth)):
            raise ValueError("every item needs a rating that is a number, and every rating an item")

    @property
    def given(self) -> Bool:
        return self.items >= 0


def rated(user: Int64, item: Int64, value: Float64, n_users: int) -> Rated:
    """Pairs (N,) -> one row a user (row numbers of the requests), in the order of the pairs, padded with -1 and NaN."""
    if not len(user) == len(item) == len(value):
        raise ValueError(f"lengths differ: user {len(user)}, item {len(item)}, value {len(value)}")
    order = np.argsort(user, kind="stable")
    count = np.bincount(user, minlength=n_users)
    place = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
    items = np.full((n_users, int(count.max(initial=0))), -1, np.int64)
    truth = np.full(items.shape, np.nan)
    items[user[order], place], truth[user[order], place] = item[order], value[order]
    return Rated(items, truth)


@dataclass(frozen=True)
class RatingResult:
    """``pairs``: error over all pairs, and ``n`` of them; ``users``: error -> (B,) float64, NaN without a rating."""

    model: str
    pairs: Mapping[str, float]
    users: Mapping[str, Float64]

    def mean(self, error: str) -> tuple[float, int]:
        """(mean over users, their number); (0.0, 0) where there is none."""
        return metrics.mean(self.users[error])


def evaluate(
    model: Predicts, requests: Requests, wanted: Rated, bounds: tuple[float, float] | None, *, name: str = "model"
) -> RatingResult:
    """Predict every rating of ``wanted`` and measure the errors.

    ``bounds``: least and greatest training rating, to which predictions are clipped, or None. Raises ValueError where
    the model has no task "rating", answers with another shape, or predicts NaN or an infinity.
    """
    answer = model.predict(requests, wanted.items)
    if TASK not in answer:
        raise ValueError(f"{name} predicts {', '.join(sorted(answer)) or 'nothing'}, expected the task {TASK!r}")
    predicted = np.asarray(answer[TASK], np.float64)
    if predicted.shape != wanted.items.shape:
        raise ValueError(f"{name} predicted {predicted.shape} ratings, expected {wanted.items.shape}")
    if not np.isfinite(predicted[wanted.given]).all():
        raise ValueError(f"{name} predicted a rating that is not a number")
    if bounds is not None:
        predicted = np.clip(predicted, *bounds)
    return RatingResult(name, *errors(np.where(wanted.given, predicted - wanted.truth, 0.0), wanted.given))


def errors(off: Float64, given: Bool) -> tuple[dict[str, float], dict[str, Float64]]:
    """(B, K) predicted minus true where ``given`` -> the errors over pairs (with ``n``) and per user."""
    n = int(given.sum())
    squares, sizes = np.where(given, off**2, 0.0), np.where(given, np.abs(off), 0.0)
    mse, mae = squares.sum() / max(n, 1), sizes.sum() / max(n, 1)
    count = given.sum(axis=1)
    rows = np.where(count > 0, count, np.nan)
    user_mse = squares.sum(axis=1) / rows
    pairs = {"rmse": float(np.sqrt(mse)), "mse": float(mse), "mae": float(mae), "n": n}
    return pairs, {"rmse": np.sqrt(user_mse), "mse": user_mse, "mae": sizes.sum(axis=1) / rows}


@dataclass(frozen=True)
class Biases:
    """The floor: ``mean``, ``user`` (U,), ``item`` (I,); ``bounds`` the least and the greatest training rating."""

    mean: float
    user: Float64
    item: Float64
    bounds: tuple[float, float]

    @classmethod
    def fit(
        cls, user: Int64, item: Int64, value: Float64, n_users: int, n_items: int,
        damping: float = 10.0, sweeps: int = 20,
    ) -> Biases:  # fmt: skip
        """Minimise the squared error plus ``damping`` times the squared biases, by alternating exact steps.

        The mean is that of the ratings. Who or what has no training rating keeps the bias 0. Raises ValueError
        without a rating, and for ratings that are not finite.
        """
        if len(value) == 0:
            raise ValueError("nothing to train on: no ratings")
        if not np.isfinite(value).all():
            raise ValueError(f"{int((~np.isfinite(value)).sum())} of {len(value)} ratings are not finite")
        mean = float(np.mean(value))
        b_user, b_item = np.zeros(n_users), np.zeros(n_items)
        n_user, n_item = (np.bincount(x, minlength=n) + damping for x, n in ((user, n_users), (item, n_items)))
        n_user, n_item = np.maximum(n_user, 1e-12), np.maximum(n_item, 1e-12)  # without damping: 0 ratings
        for _ in range(sweeps):
            b_item = np.bincount(item, value - mean - b_user[user], n_items) / n_item
            b_user = np.bincount(user, value - mean - b_item[item], n_users) / n_user
        return cls(mean, b_user, b_item, (float(np.min(value)), float(np.max(value))))

    def predict(self, requests: Requests, candidates: Int64) -> dict[str, Float32]:
        """As a ranker: (B, K) item rows -> {"rating": (B, K)}; a user that training did not know has the bias 0."""
        user = np.where(requests.user >= 0, self.user[np.maximum(requests.user, 0)], 0.0)
        item = np.where(candidates >= 0, self.item[np.maximum(candidates, 0)], 0.0)
        return {TASK: (self.mean + user[:, None] + item).astype(np.float32)}


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
