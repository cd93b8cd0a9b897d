"""The most popular items of the training window (D1): the floor that every model must pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from scipy import sparse

from fusionrec.fusion.base import FusionSpec
from fusionrec.recommenders.base import Retriever, RetrieverSpec, Watch
from fusionrec.types import Float32, Interactions, ItemSet, Requests


class Popularity(RetrieverSpec):
    """``kind: popularity``."""

    kind: Literal["popularity"] = "popularity"

    def build(self, fusion: FusionSpec | None = None) -> Retriever:
        return PopularityRetriever()


class PopularityRetriever(Retriever):
    """Score of an item = number of distinct training users who touched it."""

    retrieval = "mips"
    cold_user = True

    def _fit(self, train: Interactions, valid: Interactions, items: ItemSet, seed: int, watch: Watch) -> None:
        self.count = np.asarray(train.matrix().sum(0), np.float32).ravel()

    def _score(self, requests: Requests) -> Float32:
        seen = np.where(self.count > 0, self.count, -np.inf).astype(np.float32)  # never touched: nothing is known
        return self.scores_at_fit(np.broadcast_to(seen, (len(requests), len(seen))))

    def vectors_item(self) -> Float32:
        return self._score(Requests(np.zeros(1, np.int64), sparse.csr_matrix((1, len(self.items)))))[0][:, None]

    def vectors_user(self, requests: Requests) -> Float32:
        return np.ones((len(requests), 1), np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"count": self.count}

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.count = np.asarray(arrays["count"], np.float32)
