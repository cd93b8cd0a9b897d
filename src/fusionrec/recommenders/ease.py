"""EASE: the closed-form item-item model (D1).

Steck, "Embarrassingly shallow autoencoders for sparse data", WWW 2019, arXiv:1905.03375.
P = (X'X + l2 I)^-1, B = -P / diag(P) with a zero diagonal, scores = X B.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from fusionrec.fusion.base import FusionSpec
from fusionrec.recommenders import ridge
from fusionrec.recommenders.base import Retriever, RetrieverSpec, Watch
from fusionrec.recommenders.validation import validation_metric
from fusionrec.types import Float32, Interactions, ItemSet, Requests


class EASE(RetrieverSpec):
    """``kind: ease``."""

    kind: Literal["ease"] = "ease"
    l2: tuple[float, ...] = Field(
        (20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0),
        min_length=1,
        description="ridge; of several values the one with the best validation NDCG@20 is kept",
    )

    metric: Literal["ndcg@20", "recall@20"] = Field("ndcg@20", description="what the grid is judged by")
    space: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "l2": ((10.0,), (20.0,), (50.0,), (100.0,), (200.0,), (350.0,), (500.0,), (1000.0,), (2000.0,))
    }

    def build(self, fusion: FusionSpec | None = None) -> Retriever:
        return EASERetriever(self)


class EASERetriever(Retriever):
    """The dense weight matrix needs items^2 x 4 bytes twice while it is fitted, three times for a grid."""

    retrieval = "dense"
    folds_in = True
    max_items = 50_000

    def __init__(self, spec: EASE) -> None:
        self.spec = spec

    def _fit(self, train: Interactions, valid: Interactions, items: ItemSet, seed: int, watch: Watch) -> None:
        x = train.matrix()
        rows = np.flatnonzero(
            np.asarray(x.sum(0)).ravel() > 0
        )  # items nobody touched have no weights: leave them out of the inverse
        gram = np.asarray((x[:, rows].T @ x[:, rows]).todense(), ridge.gram_dtype(len(rows)))
        self.rows = rows.astype(np.int64)
        kept: tuple[Float32, float] | None = None
        best = -np.inf
        for step, l2 in enumerate(self.spec.l2):
            last = step == len(self.spec.l2) - 1
            self.weight, self.l2 = ridge.weights(ridge.inverse(gram if last else gram.copy(), l2)), l2
            if len(self.spec.l2) == 1:
                return
            value = validation_metric(self, train, valid, self.spec.metric)
            watch(step, {"l2": l2, f"valid_{self.spec.metric}": value})
            if value > best:
                best, kept = value, (self.weight, l2)
        if kept is not None:
            self.weight, self.l2 = kept

    def _score(self, requests: Requests) -> Float32:
        history = self.history_at_fit(requests.history)
        scores = np.full(history.shape, -np.inf, np.float32)
        scores[:, self.rows] = history[:, self.rows] @ self.weight
        return self.scores_at_fit(scores)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"weight": self.weight, "rows": self.rows, "l2": np.array([self.l2], np.float64)}

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.weight, self.rows = np.asarray(arrays["weight"]), np.asarray(arrays["rows"])
        self.l2 = float(arrays["l2"][0])
