"""iALS (D1): weighted matrix factorisation by alternating least squares, fitted by the library implicit.

Hu, Koren, Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008, doi:10.1109/ICDM.2008.22.
Every cell of the matrix counts: a touched one is 1 with confidence ``alpha``, an untouched one 0 with confidence 1.
Each half step solves one D x D system a row, exactly (Cholesky), so the result does not depend on the threads.

A user vector is solved from the history at every request, with the formula of a half step: a fresh history counts at
once and nothing of a user is stored. A user without history gets the mean user vector of the fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt
from scipy import sparse

from fusionrec.fusion.base import FusionSpec
from fusionrec.recommenders.base import Retriever, RetrieverSpec, Watch
from fusionrec.recommenders.dense import dot_products
from fusionrec.recommenders.validation import validation_metric
from fusionrec.types import Float32, Interactions, ItemSet, Requests


class IALS(RetrieverSpec):
    """``kind: ials``."""

    kind: Literal["ials"] = "ials"
    space: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "dim": (64, 128, 256),
        "reg": (1e-2, 1e-1, 1.0, 10.0, 100.0),
        "alpha": (2.0, 5.0, 20.0, 40.0),
    }
    dim: PositiveInt = 64
    reg: PositiveFloat = Field(10.0, description="ridge of every half step")
    alpha: float = Field(5.0, ge=1, description="confidence in a touched cell; an untouched one has 1")
    iterations: PositiveInt = Field(15, description="the one with the best validation value is kept")
    metric: Literal["ndcg@20", "recall@20"] = Field("ndcg@20", description="what that value is")

    def build(self, fusion: FusionSpec | None = None) -> Retriever:
        return IALSRetriever(self)


class IALSRetriever(Retriever):
    """Score = user vector . item vector."""

    retrieval = "mips"
    folds_in = True
    cold_user = True

    def __init__(self, spec: IALS) -> None:
        self.spec = spec

    def _fit(self, train: Interactions, valid: Interactions, items: ItemSet, seed: int, watch: Watch) -> None:
        from threadpoolctl import threadpool_limits

        pairs = train.matrix()
        self.touched = np.asarray(pairs.sum(0)).ravel() > 0
        active = np.flatnonzero(np.diff(pairs.indptr) > 0)
        best, kept = -np.inf, {}
        with threadpool_limits(1, "blas"):  # the library has threads of its own, and says so where BLAS has some too
            from implicit.cpu.als import AlternatingLeastSquares

            library = AlternatingLeastSquares(
                factors=self.spec.dim,
                regularization=self.spec.reg,
                alpha=self.spec.alpha,
                iterations=1,
                use_cg=False,
                random_state=seed,
            )
            for step in range(self.spec.iterations):
                library.fit(pairs, show_progress=False)  # goes on from the factors it has
                mean = library.user_factors[active].mean(0, dtype=np.float64)
                self._restore({"item": library.item_factors.copy(), "mean": mean, "touched": self.touched})
                self._attached()
                value = validation_metric(self, train, valid, self.spec.metric)
                watch(step, {f"valid_{self.spec.metric}": value})
                if value >= best:  # where there is nothing to validate on the last one stands
                    best, kept = value, self.arrays()
        self._restore(kept)

    def _solve(self, history: sparse.csr_matrix) -> Float32:
        """(B, D) user vectors u from (B, I) histories h : (Y'Y + reg + (a - 1) Y_h'Y_h) u = a Y_h'1."""
        out = np.zeros((history.shape[0], self.item.shape[1]), np.float32)
        for row in range(history.shape[0]):
            y = self.item[history.indices[history.indptr[row] : history.indptr[row + 1]]].astype(np.float64)
            if len(y):
                left = self._gram + (self.spec.alpha - 1) * (y.T @ y)
                out[row] = np.linalg.solve(left, self.spec.alpha * y.sum(0))
        return out

    def _score(self, requests: Requests) -> Float32:
        scores = dot_products(self._users(requests), self.item_vectors)
        scores[:, ~self.scored] = -np.inf
        return scores

    def _users(self, requests: Requests) -> Float32:
        history = self.history_at_fit(requests.history)
        empty = np.diff(history.indptr) == 0
        return np.where(empty[:, None], self.mean, self._solve(history)).astype(np.float32)

    def vectors_item(self) -> Float32:
        barred = np.where(self.scored, 0, -np.inf).astype(np.float32)
        return np.concatenate([self.item_vectors, barred[:, None]], axis=1)

    def vectors_user(self, requests: Requests) -> Float32:
        return np.concatenate([self._users(requests), np.ones((len(requests), 1), np.float32)], axis=1)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"item": self.item, "mean": self.mean, "touched": self.touched}

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.item, self.mean = (np.asarray(arrays[k], np.float32) for k in ("item", "mean"))
        self.touched = np.asarray(arrays["touched"], bool)
        y = self.item.astype(np.float64)
        self._gram = y.T @ y + self.spec.reg * np.eye(y.shape[1])

    def _attached(self) -> None:
        self.item_vectors = self.item[np.where(self.known, self.fit_row, 0)]
        self.scored = self.trained(self.touched)
