"""Item-based nearest neighbours (D1): cosine of co-occurrence with shrinkage, the k best neighbours kept.

Sarwar et al., "Item-based collaborative filtering recommendation algorithms", WWW 2001.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt
from scipy import sparse

from fusionrec.fusion.base import FusionSpec
from fusionrec.recommenders.base import Retriever, RetrieverSpec, Watch, top_k
from fusionrec.recommenders.graph import BLOCK_CELLS
from fusionrec.types import Float32, Interactions, ItemSet, Requests


class ItemKNN(RetrieverSpec):
    """``kind: item_knn``."""

    kind: Literal["item_knn"] = "item_knn"
    space: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "neighbours": (20, 50, 100, 200, 500),
        "shrinkage": (0.0, 5.0, 10.0, 20.0, 50.0, 100.0),
        "user_power": (0.0, 0.3, 0.5),
    }
    neighbours: PositiveInt = 100
    shrinkage: float = Field(10.0, ge=0, description="added to the denominator of the cosine")
    user_power: float = Field(0.0, ge=0, le=1, description="how much less a choice of a busy user says")

    def build(self, fusion: FusionSpec | None = None) -> Retriever:
        return ItemKNNRetriever(self)


class ItemKNNRetriever(Retriever):
    """Score = sum over the history of the similarity to the item."""

    retrieval = "sparse-item"
    folds_in = True

    def __init__(self, spec: ItemKNN) -> None:
        self.spec = spec

    def _fit(self, train: Interactions, valid: Interactions, items: ItemSet, seed: int, watch: Watch) -> None:
        x = train.matrix()
        length = np.maximum(np.asarray(x.sum(1)).ravel(), 1)
        x = (sparse.diags(length**-self.spec.user_power) @ x).tocsc()
        norm = np.sqrt(np.asarray(x.power(2).sum(0)).ravel())
        self.seen = norm > 0
        k = min(self.spec.neighbours, x.shape[1])
        rows, columns, values = [], [], []
        block = max(BLOCK_CELLS // x.shape[1], 1)
        for start in range(0, x.shape[1], block):
            stop = min(start + block, x.shape[1])
            together = (x[:, start:stop].T @ x).tocsr().astype(np.float64)
            row = np.repeat(np.arange(start, stop), np.diff(together.indptr))
            together.data /= norm[row] * norm[together.indices] + self.spec.shrinkage + 1e-12
            together.data[row == together.indices] = 0
            near, value = top_k(np.asarray(together.todense(), np.float32), k)
            keep = value > 0
            rows.append((np.arange(start, stop)[:, None] * np.ones_like(near))[keep])
            columns.append(near[keep])
            values.append(value[keep])
        shape = (x.shape[1], x.shape[1])
        self.weight = sparse.csr_matrix(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape
        )
        self.weight.sort_indices()

    def _score(self, requests: Requests) -> Float32:
        scores = np.asarray((self.history_at_fit(requests.history) @ self.weight.T).todense(), np.float32)
        scores[:, ~self.seen] = -np.inf
        return self.scores_at_fit(scores)

    def arrays(self) -> dict[str, np.ndarray]:
        w = self.weight
        return {
            "data": w.data.astype(np.float32),
            "indices": w.indices.astype(np.int32),
            "indptr": w.indptr.astype(np.int64),
            "seen": self.seen,
        }

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        n = len(arrays["indptr"]) - 1
        self.weight = sparse.csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), (n, n))
        self.seen = np.asarray(arrays["seen"], bool)
