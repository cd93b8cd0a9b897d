"""How sure we are: user bootstrap, paired tests, Holm's correction. The unit of resampling is the user.

Everything is seeded by its arguments alone, so the same values give the same interval on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusionrec.evaluation.metrics import Float64

_CELLS = 4_000_000  # resampled weights held at once
_EXACT = 12  # up to this many differing pairs, all sign patterns are enumerated


def bootstrap_means(values: Float64, repeats: int = 2000, seed: int = 0) -> Float64:
    """Means of resampled users: (U,) or (U, Q) without NaN -> (repeats,) or (repeats, Q).

    Resampling U users with replacement is weighting them by multinomial counts, so each block of resamples is one
    matrix product for all Q columns. Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 6.
    """
    if len(values) == 0 or repeats < 1:
        raise ValueError(f"nothing to resample: {len(values)} users, {repeats} repeats")
    columns = values.reshape(len(values), -1)
    out = np.empty((repeats, columns.shape[1]))
    at = 0
    for weights in _weights(len(values), repeats, seed):
        out[at : at + len(weights)] = weights @ columns / len(values)
        at += len(weights)
    return out.reshape((repeats, *values.shape[1:]))


def _weights(n: int, repeats: int, seed: int) -> Iterator[Float64]:
    """Blocks of (r, n) multinomial counts, each row summing to n."""
    rng = np.random.default_rng([seed, n])
    block = max(1, _CELLS // n)
    for start in range(0, repeats, block):
        rows = min(block, repeats - start)
        drawn = rng.integers(0, n, (rows, n)) + np.arange(rows)[:, None] * n
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def intervals(values: Float64, repeats: int = 2000, seed: int = 0, level: float = 0.95) -> tuple[Float64, Float64]:
    """Percentile interval of the mean of each column: (U, Q) without NaN -> (Q,), (Q,).

    NaN bounds where U < 2: one user says nothing about the spread.
    """
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan), np.full(values.shape[1:], np.nan)
    low, high = np.quantile(bootstrap_means(values, repeats, seed), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def interval(values: Float64, repeats: int = 2000, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """:func:`intervals` of one metric (U,), NaN users left out."""
    low, high = intervals(values[~np.isnan(values)][:, None], repeats, seed, level)
    return float(low[0]), float(high[0])


@dataclass(frozen=True)
class Paired:
    """A against B over the same ``n`` users: mean of a - b, its interval, and the one-sided p of "a is better"."""

    n: int
    difference: float
    low: float
    high: float
    p: float


def paired(a: Float64, b: Float64, repeats: int = 2000, seed: int = 0, level: float = 0.95) -> Paired:
    """Sign-flip permutation test of mean(a - b) > 0, with a bootstrap interval of the difference.

    ``a``, ``b`` (U,) of the same users in the same order; users where either is NaN are left out. Under the
    hypothesis that the models are exchangeable each user's difference is as likely to have the other sign.
    Enumerated where at most 12 users differ, else sampled with (1 + count) / (1 + repeats), which keeps the level.
    Without a user: difference 0, p 1. Good, Permutation, Parametric and Bootstrap Tests, 2005, ch. 3.
    """
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"a paired test compares the same users: found {a.shape} and {b.shape} values")
    d = (a - b)[~np.isnan(a - b)]
    if len(d) == 0:
        return Paired(0, 0.0, float("nan"), float("nan"), 1.0)
    low, high = interval(d, repeats, seed, level)
    return Paired(len(d), float(d.mean()), low, high, sign_flip(d, repeats, seed))


def sign_flip(d: Float64, repeats: int = 2000, seed: int = 0) -> float:
    """One-sided p value of mean(d) > 0 under random signs; see :func:`paired`."""
    d = d[d != 0]  # a zero is the same with either sign
    n = len(d)
    if n == 0:
        return 1.0
    limit = d.sum() - 1e-12 * np.abs(d).sum()  # sums equal up to rounding count as equal
    if n <= _EXACT:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((signs @ d >= limit).mean())
    rng = np.random.default_rng([seed, n, 1])
    count, block, done = 0, max(1, _CELLS // n), 0
    while done < repeats:
        rows = min(block, repeats - done)
        bits = np.unpackbits(rng.integers(0, 256, (rows, (n + 7) // 8), dtype=np.uint8), axis=1)[:, :n]
        # sum of s*d with s = 1 - 2*bit
        count += int((d.sum() - 2.0 * (bits.astype(np.float64) @ d) >= limit).sum())
        done += rows
    return (1 + count) / (1 + repeats)


def sign_flips(d: Float64, repeats: int = 10_000, seed: int = 0) -> Float64:
    """Two-sided p values of mean(d) != 0 under random signs of the users, column by column: (U, Q) without NaN -> (Q,).

    The same signs for all columns. Sampled with (1 + count) / (1 + repeats); see :func:`paired`.
    """
    n, columns = d.shape
    rng, done, count = np.random.default_rng([seed, n, 2]), 0, np.zeros(columns)
    total = np.abs(d.sum(0))
    limit = total - 1e-12 * np.abs(d).sum(0)  # sums equal up to rounding count as equal
    while done < repeats:
        rows = min(max(1, _CELLS // max(n, 1)), repeats - done)
        bits = np.unpackbits(rng.integers(0, 256, (rows, (n + 7) // 8), dtype=np.uint8), axis=1)[:, :n]
        count += (np.abs(d.sum(0) - 2.0 * (bits.astype(np.float64) @ d)) >= limit).sum(0)
        done += rows
    return (1 + count) / (1 + repeats)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjusted p values, by name: control of the family-wise error without independence.

    Holm, Scand. J. Statistics 6, 1979.
    """
    adjusted, floor = {}, 0.0
    for step, name in enumerate(sorted(p, key=lambda key: (p[key], key))):
        floor = max(floor, min(1.0, (len(p) - step) * p[name]))
        adjusted[name] = floor
    return {name: adjusted[name] for name in p}


@dataclass(frozen=True)
class Ratio:
    """A ratio of two means over the same ``n`` users, with its interval; ``p_unit``: share of resamples at most 1."""

    n: int
    value: float
    low: float
    high: float
    p_unit: float


def ratio(
    numerator: Float64, denominator: Float64, repeats: int = 2000, seed: int = 0, level: float = 0.95
) -> Ratio | None:
    """mean(numerator) / mean(denominator), users resampled jointly; ``low`` is the two-sided lower bound (2.5 %).

    None where there are fewer than two users or the denominator's mean is not positive.
    """
    keep = ~(np.isnan(numerator) | np.isnan(denominator))
    both = np.stack([numerator[keep], denominator[keep]], axis=1)
    if len(both) < 2 or both[:, 1].mean() <= 0:
        return None
    means: NDArray[np.float64] = bootstrap_means(both, repeats, seed)
    ratios = np.divide(means[:, 0], means[:, 1], out=np.full(repeats, np.inf), where=means[:, 1] > 0)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2], method="nearest")
    top, bottom = both.mean(axis=0)
    return Ratio(
        len(both), float(top / bottom), float(low), float(high), float((1 + (ratios <= 1).sum()) / (1 + repeats))
    )
