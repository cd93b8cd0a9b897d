"""How much each side of a search counts, chosen on the last of the earlier queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from fusionrec.types import Float32

KEYWORD, VECTOR, CLICKS, PICTURE = "keyword", "vector", "clicks", "picture"
PLACES = 10


@dataclass(frozen=True)
class Weights:
    """What the standardised scores of a query's sides are multiplied by."""

    keyword: float = 1.0
    vector: float = 1.0
    clicks: float = 0.0
    picture: float = 1.0

    def mixed(self, other: Weights, share: float) -> Weights:
        """``share`` of these and the rest of ``other``."""
        mine, theirs = asdict(self), asdict(other)
        return Weights(**{name: share * mine[name] + (1 - share) * theirs[name] for name in mine})


UNTOLD = Weights()
"""Where no log says better: words and vectors weigh the same."""
GRID = {KEYWORD: (0.05, 0.15, 0.3, 0.6), VECTOR: (0.1, 0.25, 0.5, 1.0), CLICKS: (0.0, 1.0)}
"""No side is silenced for good: a log of some weeks does not know what will be asked next."""


def standardised(scores: Float32, group: NDArray[np.int16] | None = None) -> Float32:
    """(B, I) scores -> the same, each query with mean 0 and deviation 1 over the items; a constant row becomes 0.

    ``group`` (I,): within each group, so that a side which cannot reach a group (words of another language) neither
    prefers nor punishes it."""
    out = np.zeros(scores.shape, np.float32)
    labels = np.zeros(scores.shape[1], np.int16) if group is None else group
    for label in np.unique(labels):
        here = labels == label
        centred = scores[:, here] - scores[:, here].mean(axis=1, keepdims=True)
        out[:, here] = centred / np.maximum(centred.std(axis=1, keepdims=True), 1e-6)
    return out


def blend(sides: Mapping[str, Float32], weights: Weights) -> Float32:
    """The weighted sum of (B, I) standardised scores."""
    told = asdict(weights)
    return np.asarray(sum(told[name] * scores for name, scores in sides.items()), np.float32)


def places(scores: Float32, wanted: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """For each of B queries the places (from 0) of its wanted items, best first; ties count half of their length
    against them, so that a constant score is no success."""
    out = []
    for row, items in zip(scores, wanted, strict=True):
        mine = row[items][:, None]
        ahead = (row > mine).sum(axis=1) + ((row == mine).sum(axis=1) - 1) // 2
        out.append(np.sort(ahead).astype(np.int64))
    return out


def ndcg(scores: Float32, wanted: Sequence[NDArray[np.int64]], k: int = PLACES) -> NDArray[np.float64]:
    """(B,) NDCG@k with the wanted items as the positives, all items ranked."""
    discount = 1 / np.log2(np.arange(2, k + 2))
    return np.array(
        [discount[at[at < k]].sum() / discount[: min(len(at), k)].sum() for at in places(scores, wanted)], np.float64
    )


def choose(sides: Mapping[str, Float32], wanted: Sequence[NDArray[np.int64]]) -> tuple[Weights, float]:
    """The weights of :data:`GRID` with the best mean NDCG@10 on these queries, and that; of equals the first."""
    names = [name for name in GRID if name in sides]
    best, reached = UNTOLD, -1.0
    for values in product(*(GRID[name] for name in names)):
        weights = Weights(**{**dict.fromkeys(GRID, 0.0), **dict(zip(names, values, strict=True))})
        found = float(ndcg(blend(sides, weights), wanted).mean())
        if found > reached + 1e-9:
            best, reached = weights, found
    return best, reached
