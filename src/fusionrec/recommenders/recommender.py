"""The unit that is evaluated, bundled and served: retrieve, then optionally rank, then optionally re-rank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fusionrec.ranking.base import Ranker
from fusionrec.recommenders.base import Retriever
from fusionrec.types import Bool, Float32, Int64, ItemSet, Requests

Reranker = Callable[[Requests, Int64, Float32], tuple[Int64, Float32]]


@dataclass
class Recommender:
    """``depth`` candidates are retrieved for a ranker to choose from; ``task`` is the ranker's output to sort by."""

    retriever: Retriever
    ranker: Ranker | None = None
    reranker: Reranker | None = None
    depth: int = 200
    task: str | None = None

    def attach(self, items: ItemSet) -> None:
        """Bind the catalogue, see :meth:`Retriever.attach`."""
        self.retriever.attach(items)
        if self.ranker is not None:
            self.ranker.attach(items)

    def recommend(
        self, requests: Requests, k: int, candidates: Bool | None = None, block: int | None = None
    ) -> tuple[Int64, Float32]:
        """As :meth:`Retriever.recommend`: items (B, K) int64 and scores (B, K) float32, -1 and -inf for none."""
        if self.ranker is None:
            items, scores = self.retriever.recommend(requests, k, candidates, block)
        else:
            items, _ = self.retriever.recommend(requests, max(k, self.depth), candidates, block)
            by_task = self.ranker.predict(requests, items)
            scores = by_task[self.task or self.ranker.tasks[0]].astype(np.float32)
            scores = np.where(items >= 0, scores, -np.inf)
            order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            items, scores = np.take_along_axis(items, order, 1), np.take_along_axis(scores, order, 1)
        return self.reranker(requests, items, scores) if self.reranker else (items, scores)
