"""The unit that is evaluated, bundled and served: retrieve, then optionally rank, then optionally re-rank.

The candidates that retrieval finds are ordered by trust x z(retrieval's score) + (1 - trust) x z(log of the ranker's
probability), z standardised over a request's candidates: the ranker knows what was shown and what came of it, the
retriever what everybody chose, shown or not, and neither knows the other's part. The ranker's task and ``trust`` are
chosen on validation (:mod:`fusionrec.recommenders.trust`), so that a ranker that adds nothing changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusionrec.ranking.base import Ranker
from fusionrec.ranking.rerankers.base import Reranker
from fusionrec.recommenders.base import Retriever
from fusionrec.recommenders.blend import standardise
from fusionrec.types import Bool, Float32, Int64, ItemSet, Requests

LEAST = 1e-9
"""A probability below is read as this."""


@dataclass
class Recommender:
    """``depth`` candidates are retrieved for a ranker to choose from; ``task`` is the ranker's output to sort by;
    ``trust`` in [0, 1] is the weight of retrieval's own order."""

    retriever: Retriever
    ranker: Ranker | None = None
    reranker: Reranker | None = None
    depth: int = 200
    task: str | None = None
    trust: float = 0.0

    def attach(self, items: ItemSet) -> None:
        """Bind the catalogue, see :meth:`Retriever.attach`."""
        self.retriever.attach(items)
        if self.ranker is not None:
            self.ranker.attach(items)
        if self.reranker is not None:
            self.reranker.attach(items)

    def recommend(
        self, requests: Requests, k: int, candidates: Bool | None = None, block: int | None = None
    ) -> tuple[Int64, Float32]:
        """As :meth:`Retriever.recommend`: items (B, K) int64 and scores (B, K) float32, -1 and -inf for none.

        The scores are the re-ranker's where there is one, else the ranker's where ``trust`` is 0, else the weighted
        sum."""
        if self.reranker is None:
            return self._ordered(requests, k, candidates, block)
        depth = self.reranker.depth
        items, scores = self._ordered(requests, max(k, depth), candidates, block)
        best = self.reranker.rerank(items[:, :depth], scores[:, :depth], min(k, depth))
        return followed(*best, items[:, depth:k], scores[:, depth:k])

    def _ordered(self, requests: Requests, k: int, candidates: Bool | None, block: int | None) -> tuple[Int64, Float32]:
        """The best k before the list is looked at as a whole: those of the first ``depth`` candidates, then the others
        as retrieval has them, so that a list begins as every longer one does."""
        if self.ranker is None:
            return self.retriever.recommend(requests, k, candidates, block)
        return self.ordered(*self.judged(requests, k, candidates, block), k)

    def judged(
        self, requests: Requests, k: int, candidates: Bool | None = None, block: int | None = None
    ) -> tuple[Int64, Float32, Float32]:
        """At least ``k`` and at least ``depth`` candidates of retrieval (B, W) and its scores, and what the ranker says
        of the first ``depth`` of them (B, depth), -inf for none."""
        ranker = self._ranker()
        items, near = self.retriever.recommend(requests, max(k, self.depth), candidates, block)
        asked = items[:, : self.depth]
        wish = ranker.predict(requests, asked)[self.task or ranker.tasks[0]]
        return items, near, np.where(asked >= 0, wish, -np.inf).astype(np.float32)

    def ordered(self, items: Int64, near: Float32, wish: Float32, k: int) -> tuple[Int64, Float32]:
        """The best k of what :meth:`judged` found."""
        depth = wish.shape[1]
        scores = self.mixed(near[:, :depth], wish)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]  # of equals, as retrieval had them
        best = np.take_along_axis(items, order, 1), np.take_along_axis(scores, order, 1)
        return followed(*best, items[:, depth:k], near[:, depth:k])

    def mixed(self, near: Float32, wish: Float32) -> Float32:
        """(B, W) what candidates are sorted by; -inf where there is none."""
        ranker, here = self._ranker(), np.isfinite(wish)
        if not self.trust:
            return wish
        if (self.task or ranker.tasks[0]) not in ranker.values:
            wish = np.where(here, np.log(np.maximum(wish, LEAST)), -np.inf).astype(np.float32)
        total = self.trust * standardise(near) + (1 - self.trust) * standardise(wish) if self.trust < 1 else near
        return np.where(here, total, -np.inf).astype(np.float32)

    def _ranker(self) -> Ranker:
        if self.ranker is None:
            raise ValueError("this recommender has no ranker: its candidates have one order, retrieval's")
        return self.ranker


def followed(items: Int64, scores: Float32, more: Int64, near: Float32) -> tuple[Int64, Float32]:
    """Lists (B, K) with ``more`` (B, L) behind them, whose scores ``near`` fall: moved to below the list's lowest."""
    if more.shape[1] == 0:
        return items, scores
    lowest = np.where(np.isfinite(scores), scores, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    lowest[~np.isfinite(lowest)] = 0
    there = more >= 0
    step = np.where(there, near, 0) - np.where(there[:, :1], near[:, :1], 0)
    moved = np.where(there, lowest + np.minimum(step, 0), -np.inf).astype(np.float32)
    return np.concatenate([items, more], axis=1), np.concatenate([scores, moved], axis=1)
