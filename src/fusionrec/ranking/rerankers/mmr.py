"""Maximal marginal relevance (D10): each place takes the item that is wanted and unlike those above it.

Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing summaries",
SIGIR 1998. Wanted: the score, brought to [0, 1] over the request's candidates. Unlike: 1 minus the largest cosine to an
item above, vectors centred on the catalogue as for the diversity that evaluation tells (E3), the mean over the
modalities that both items have; what shares none with an item is unlike it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from fusionrec.evaluation.beyond import centred
from fusionrec.ranking.rerankers.base import Reranker, RerankerSpec
from fusionrec.types import Float32, Int64, ItemSet

CELLS = 8_000_000  # numbers of vectors gathered at once


class MMR(RerankerSpec):
    """``kind: mmr``."""

    kind: Literal["mmr"] = "mmr"
    diversity: float = Field(0.3, ge=0, lt=1, description="weight of being unlike; 0 keeps the order")

    def build(self) -> Reranker:
        return MMRReranker(self)


class MMRReranker(Reranker):
    """Greedy: K times over W candidates."""

    def __init__(self, spec: MMR) -> None:
        self.spec, self.depth = spec, spec.depth

    def attach(self, items: ItemSet) -> None:
        items.check_finite()
        self.spaces = [centred(items, name) for name in items.modalities]
        self.present = [items.present[name] for name in items.modalities]

    def rerank(self, items: Int64, scores: Float32, k: int) -> tuple[Int64, Float32]:
        rows, width = items.shape
        k = min(k, width)
        out = np.full((rows, k), -1, np.int64)
        value = np.full((rows, k), -np.inf, np.float32)
        widest = max((space.shape[1] for space in self.spaces), default=1)
        block = max(CELLS // max(width * max(widest, width), 1), 1)
        for start in range(0, rows, block):
            at = slice(start, start + block)
            place, worth = self._chosen(_unit(scores[at]), self._alike(items[at]), k)
            found = np.isfinite(worth)
            out[at] = np.where(found, np.take_along_axis(items[at], place, 1), -1)
            value[at] = worth
        return out, value

    def _alike(self, items: Int64) -> Float32:
        """(B, W, W) cosines; what -1 stands for is like nothing."""
        rows, width = items.shape
        total, shared = np.zeros((2, rows, width, width), np.float32)
        row = np.maximum(items, 0)
        for space, present in zip(self.spaces, self.present, strict=True):
            vectors = space[row]
            here = (present[row] & (items >= 0)).astype(np.float32)
            total += (vectors @ vectors.transpose(0, 2, 1)) * here[:, :, None] * here[:, None, :]
            shared += here[:, :, None] * here[:, None, :]
        return np.asarray(total / np.maximum(shared, 1), np.float32)

    def _chosen(self, wanted: Float32, alike: Float32, k: int) -> tuple[Int64, Float32]:
        """(B, K) places among the candidates and what each was worth when it was taken, which never rises."""
        weight, rows = np.float32(self.spec.diversity), np.arange(len(wanted))
        open_ = (1 - weight) * wanted
        nearest = np.zeros_like(wanted)  # to nothing above: unlike enough
        place, worth = np.empty((len(wanted), k), np.int64), np.empty((len(wanted), k), np.float32)
        for step in range(k):
            now = open_ - weight * nearest
            place[:, step] = best = now.argmax(1)
            worth[:, step] = now[rows, best]
            open_[rows, best] = -np.inf
            nearest = np.maximum(nearest, alike[rows, best])
        return place, worth


def _unit(scores: Float32) -> Float32:
    """Each row's finite scores to [0, 1], its only or equal ones to 1; -inf stays."""
    finite = np.isfinite(scores)
    low = np.where(finite, scores, np.inf).min(1, keepdims=True, initial=np.inf)
    high = np.where(finite, scores, -np.inf).max(1, keepdims=True, initial=-np.inf)
    spread = np.where(high > low, high - low, 1)
    with np.errstate(invalid="ignore"):
        scaled = np.where(high > low, (scores - low) / spread, 1)
    return np.where(finite, scaled, -np.inf).astype(np.float32)
