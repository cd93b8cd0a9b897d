"""The click side: where in the space of items do the things lie that were clicked after such a query?

Reduced-rank regression of the clicked items' mean vector on the query's vector, both whitened, so the directions are
those in which queries foretell clicks best (Izenman, "Reduced-rank regression for the multivariate linear model",
1975; canonical correlations). Item vectors join all modalities that help: a query in one language then reaches items
described in another, and items whose pictures alone show what is asked for. Legend: Q queries, I items, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusionrec.threads import threads_for
from fusionrec.types import Float32

INPUTS = 64  # leading directions of the queries
RIDGE = 0.3  # added to the variance of each, which is 1: earlier queries are few


@dataclass(frozen=True)
class ClickMap:
    """``mean`` (D,) and ``turn`` (D, R) take a query's vector to R numbers; ``items`` (I, R) is where the items lie."""

    mean: Float32
    turn: Float32
    items: Float32

    def scores(self, queries: Float32) -> Float32:
        """(B, D) -> (B, I)."""
        return np.asarray((queries - self.mean) @ self.turn @ self.items.T, np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"map/mean": self.mean, "map/turn": self.turn, "map/items": self.items}

    @classmethod
    def restore(cls, arrays: Mapping[str, np.ndarray]) -> ClickMap:
        return cls(*(np.asarray(arrays[f"map/{name}"], np.float32) for name in ("mean", "turn", "items")))


class Regression:
    """All ranks at once: fitted on queries (Q, D) and their clicked items in ``space`` (I, E), cut to a rank later."""

    def __init__(self, queries: Float32, clicked: Sequence[NDArray[np.int64]], space: Float32) -> None:
        x = queries.astype(np.float64)
        self.space = space
        self.mean = x.mean(0)
        target = np.stack([space[rows].mean(0, dtype=np.float64) for rows in clicked])
        with threads_for(x.size * x.shape[1]):
            centred = x - self.mean
            variance, directions = np.linalg.eigh(centred.T @ centred / len(x))
            keep = max(int(min(INPUTS, (variance > 1e-10 * max(variance[-1], 1e-12)).sum())), 1)
            whiten = directions[:, -keep:] / np.sqrt(np.maximum(variance[-keep:], 1e-12))
            inputs = centred @ whiten
            weights = inputs.T @ target / (len(x) * (1 + RIDGE))  # the inputs' covariance is the identity
            left, self.strength, right = np.linalg.svd(weights, full_matrices=False)
        self._turn, self._right = whiten @ (left * self.strength), right

    def cut(self, rank: int) -> ClickMap:
        """The ``rank`` strongest directions."""
        rank = min(rank, len(self.strength))
        items = self.space @ self._right[:rank].T
        return ClickMap(self.mean.astype(np.float32), self._turn[:, :rank].astype(np.float32), items.astype(np.float32))
