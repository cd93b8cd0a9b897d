"""Predicted probabilities of yes/no outcomes against what happened: AUC, GAUC, log loss, calibration, accuracy,
precision, recall (E2). Pure numpy.

- ``auc``: the chance that a yes is placed above a no, ties half (Hanley and McNeil, Radiology 1982), over all pairs;
- ``gauc``: the mean over users of their own AUC, weighted by their number of pairs, users with both outcomes alone
  (Zhu et al., "Optimized cost per click in Taobao display advertising", KDD 2017): what ranking inside a list feels;
- ``logloss``: mean of -log p of what happened; ``entropy`` divides it by that of the base rate (He et al., ADKDD 2014),
  so that 1 is a model that knows the base rate alone;
- ``ece``: expected calibration error, mean of |predicted - happened| over bins of equally many pairs, weighted by their
  size (Naeini et al., AAAI 2015; Nguyen and O'Connor, EMNLP 2015 for the equally filled bins);
- ``accuracy``, ``precision``, ``recall`` at a threshold.

All but ``gauc`` count every pair the same. Intervals resample users, not pairs: the pairs of a user go together.
Legend: N pairs, U users, R resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from fusionrec.evaluation.metrics import Float64
from fusionrec.evaluation.significance import _weights as resampled
from fusionrec.types import Bool, Int64

NAMES = ("auc", "gauc", "logloss", "entropy", "ece", "accuracy", "precision", "recall")
LOWER_IS_BETTER = frozenset({"logloss", "entropy", "ece"})
BINS = 15
CLIP = 1e-7
"""Log loss clips predictions this far from 0 and 1, so that one wrong certainty does not make it infinite."""


@dataclass(frozen=True)
class Judged:
    """``user`` (N,) int64 row numbers from 0; ``label`` (N,) bool: did it happen; ``p`` (N,) float in [0, 1].

    Raises ValueError for other lengths, and for predictions that are no probabilities (NaN included).
    """

    user: Int64
    label: Bool
    p: Float64
    threshold: float = 0.5
    n_users: int = field(init=False)

    def __post_init__(self) -> None:
        if not len(self.user) == len(self.label) == len(self.p):
            raise ValueError(f"lengths differ: user {len(self.user)}, label {len(self.label)}, p {len(self.p)}")
        wrong = ~((self.p >= 0) & (self.p <= 1))
        if wrong.any():
            raise ValueError(
                f"{int(wrong.sum())} of {len(self.p)} predictions are no probabilities (the first is "
                f"{self.p[np.argmax(wrong)]})"
            )
        object.__setattr__(self, "n_users", int(self.user.max(initial=-1)) + 1)


@dataclass(frozen=True)
class Measured:
    """``mean``: metric -> its value over all pairs, NaN where it is undefined (one outcome alone, no pair);
    ``low``, ``high``: its 95 % interval over users; ``users``: ``gauc`` and ``logloss`` -> (U,) of each user for paired
    tests, NaN for users without one; ``n``, ``n_yes``: pairs, and those that happened."""

    mean: Mapping[str, float]
    low: Mapping[str, float]
    high: Mapping[str, float]
    users: Mapping[str, Float64]
    n: int
    n_yes: int


def measure(judged: Judged, repeats: int = 2000, seed: int = 0, level: float = 0.95) -> Measured:
    """All metrics with percentile intervals by user bootstrap. Undefined where nothing is there to be measured."""
    users = per_user(judged)
    there, user = np.unique(judged.user, return_inverse=True)  # who has no pair is not among those that are drawn
    sums = _Sums.of(replace(judged, user=user.astype(np.int64)))
    mean = {name: float(value[0]) for name, value in sums.metrics(np.ones((1, len(there)))).items()}
    low, high = dict.fromkeys(NAMES, float("nan")), dict.fromkeys(NAMES, float("nan"))
    if len(there) > 1:
        blocks = [sums.metrics(weights) for weights in resampled(len(there), repeats, seed)]
        for name in NAMES:
            values = np.concatenate([block[name] for block in blocks])
            values = values[~np.isnan(values)]
            if len(values):
                low[name], high[name] = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Measured(mean, low, high, users, len(judged.p), int(judged.label.sum()))


def per_user(judged: Judged) -> dict[str, Float64]:
    """``gauc``: each user's own AUC, NaN without both outcomes; ``logloss``: each user's mean, NaN without a pair."""
    user, n = judged.user, judged.n_users
    count = np.bincount(user, minlength=n).astype(np.float64)
    loss = np.bincount(user, _loss(judged), n)
    yes = np.bincount(user, judged.label, n)
    order = np.lexsort((judged.p, user))
    rank = _mean_rank(judged.p[order], user[order])
    start = np.concatenate([[0], np.cumsum(count)[:-1]])
    happened = judged.label[order]
    above = np.bincount(user[order][happened], (rank - start[user[order]])[happened], n) - yes * (yes - 1) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        auc = above / (yes * (count - yes))
        return {
            "gauc": np.where((yes > 0) & (yes < count), auc, np.nan),
            "logloss": np.where(count, loss / count, np.nan),
        }


def reliability(judged: Judged, bins: int = BINS) -> list[dict[str, float]]:
    """The bins of ``ece`` for a plot: mean prediction, share that happened, number of pairs."""
    at = _bins(judged.p, bins)
    n = np.bincount(at)
    predicted, happened = np.bincount(at, judged.p), np.bincount(at, judged.label)
    return [
        {"predicted": float(predicted[b] / n[b]), "happened": float(happened[b] / n[b]), "n": int(n[b])}
        for b in np.flatnonzero(n)
    ]


def _loss(judged: Judged) -> Float64:
    p = np.clip(judged.p.astype(np.float64), CLIP, 1 - CLIP)
    return -np.where(judged.label, np.log(p), np.log1p(-p))


def _mean_rank(value: Float64, group: Int64) -> Float64:
    """0-based ranks of values that are sorted within sorted groups; equal ones share their mean rank."""
    if len(value) == 0:
        return np.zeros(0)
    first = np.concatenate([[True], (np.diff(value) != 0) | (np.diff(group) != 0)])
    run = np.cumsum(first) - 1
    starts = np.flatnonzero(first)
    ends = np.append(starts[1:], len(value))
    return ((starts + ends - 1) / 2)[run]


def _bins(p: Float64, bins: int) -> Int64:
    """(N,) the bin of each prediction; equal predictions share one, so bins are equally filled where they can be."""
    edges = np.unique(np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1])) if len(p) else np.zeros(0)
    return np.searchsorted(edges, p, side="right").astype(np.int64)


@dataclass(frozen=True)
class _Sums:
    """What a user contributes to each metric, so that a resample is a product with the users' weights.

    ``count``, ``yes``, ``loss``, ``right``, ``claimed``, ``hit`` (U,); ``gauc`` (U, 2): AUC times pairs, and pairs;
    ``off`` (U, bins): predicted minus happened. The AUC over all pairs is no such sum: ``order`` (N,) sorts them by
    prediction, ``starts`` are the first places of equal predictions.
    """

    judged: Judged
    plain: Float64
    off: Float64
    order: Int64
    starts: Int64

    @classmethod
    def of(cls, judged: Judged) -> _Sums:
        user, n, label = judged.user, judged.n_users, judged.label
        claimed = judged.p >= judged.threshold
        own = per_user(judged)["gauc"]
        count = np.bincount(user, minlength=n).astype(np.float64)
        both = ~np.isnan(own)
        columns = [
            count, np.bincount(user, label, n), np.bincount(user, _loss(judged), n),
            np.bincount(user, claimed == label, n), np.bincount(user, claimed, n),
            np.bincount(user, claimed & label, n), np.where(both, np.nan_to_num(own) * count, 0),
            np.where(both, count, 0),
        ]  # fmt: skip
        at = _bins(judged.p, BINS)
        off: Float64 = np.bincount(user * BINS + at, judged.p - label, n * BINS).reshape(n, BINS).astype(np.float64)
        order = np.argsort(judged.p, kind="stable")
        starts = np.flatnonzero(np.concatenate([[True], np.diff(judged.p[order]) != 0])) if len(order) else order
        return cls(judged, np.stack(columns, axis=1), off, order, starts)

    def metrics(self, weights: Float64) -> dict[str, Float64]:
        """``weights`` (R, U): how often each user is there -> metric -> (R,), NaN where undefined."""
        count, yes, loss, right, claimed, hit, auc, paired = (weights @ self.plain).T
        with np.errstate(invalid="ignore", divide="ignore"):
            logloss, base = loss / count, yes / count
            entropy = -(base * np.log(base) + (1 - base) * np.log1p(-base))
            return {
                "auc": np.array(list(self._auc(weights))),
                "gauc": auc / paired,
                "logloss": logloss,
                "entropy": np.where(entropy > 0, logloss / entropy, np.nan),
                "ece": np.abs(weights @ self.off).sum(axis=1) / count,
                "accuracy": right / count,
                "precision": hit / claimed,
                "recall": hit / yes,
            }

    def _auc(self, weights: Float64) -> Iterator[float]:
        """Of each resample: pairs below, and half of those that are equal, of every yes."""
        user, label = self.judged.user[self.order], self.judged.label[self.order]
        for row in weights:
            w = row[user]
            if len(w) == 0:
                yield float("nan")
                continue
            yes, all_ = np.add.reduceat(w * label, self.starts), np.add.reduceat(w, self.starts)
            no = all_ - yes
            below = np.cumsum(no) - no
            pairs = yes.sum() * no.sum()
            yield float((yes * (below + no / 2)).sum() / pairs) if pairs else float("nan")
