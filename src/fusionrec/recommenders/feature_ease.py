"""EASE with side information: content enters as further rows of the regression (part of the house model, D11).

Jeunen, Van Balen, Goethals, "Closed-form models for collaborative filtering with side-information", RecSys 2020
(CEASE). With X the (U, I) matrix (rows divided by their length to the power a), F_m (I, D_m) the vectors of modality m
along directions of taste (zero rows where absent) and g the mean of the diagonal of X'X:
P = (X'X + c g sum_m F_m F_m' + l2 I)^-1, B = -P / diag(P) with a zero diagonal, scores = x B.
An item that nobody touched takes no part in the regression; like one that joins after training it gets its answer in
closed form from the content it is attached with, b = P c g F f, of which only P F (I, D_m) has to be kept. c and l2: by
validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from scipy import sparse

from fusionrec.fusion.base import FusionSpec
from fusionrec.fusion.space import FeatureSpace
from fusionrec.recommenders import ridge
from fusionrec.recommenders.base import Retriever, RetrieverSpec, Watch
from fusionrec.recommenders.dense import dot_products
from fusionrec.recommenders.validation import validation_by_group
from fusionrec.types import Float32, Interactions, ItemSet, Requests

BLOCK = 1024  # rows of the content product that exist at once


class FeatureEASE(RetrieverSpec):
    """``kind: feature_ease``. Tuples are grids: the value with the best validation metric is kept."""

    kind: Literal["feature_ease"] = "feature_ease"
    l2: tuple[PositiveFloat, ...] = Field((50.0, 200.0, 500.0, 1000.0), min_length=1)
    content: tuple[NonNegativeFloat, ...] = Field(
        (0.3, 1.0, 3.0, 10.0), min_length=1, description="c, weight of content against interactions; 0: plain EASE"
    )
    user_power: float = Field(0.3, ge=0, le=1, description="a: how much less a choice of a busy user says")
    width: PositiveInt = Field(128, description="whitened components kept of each modality")
    tastes: PositiveInt = Field(64, description="directions of taste kept of each modality, at most")
    metric: Literal["ndcg@20", "recall@20"] = Field("ndcg@20", description="what the grids are judged by")
    space: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "l2": ((20.0,), (50.0,), (100.0,), (200.0,), (500.0,), (1000.0,)),
        "content": ((0.1,), (0.3,), (1.0,), (3.0,), (10.0,)),
        "user_power": (0.0, 0.3, 0.5),
    }

    def build(self, fusion: FusionSpec | None = None) -> Retriever:
        return FeatureEASERetriever(self)


class FeatureEASERetriever(Retriever):
    """Needs three (I, I) matrices while it is fitted (four for a grid), one in single precision afterwards."""

    retrieval = "dense"
    folds_in = True
    cold_item = True
    max_items = 50_000

    def __init__(self, spec: FeatureEASE) -> None:
        self.spec = spec

    def _fit(self, train: Interactions, valid: Interactions, items: ItemSet, seed: int, watch: Watch) -> None:
        x = train.matrix()
        self.seen = np.asarray(x.sum(0)).ravel() > 0
        self.features = FeatureSpace(self.spec.width).fit(items, self.seen).focus(items, train, self.spec.tastes, seed)
        vectors = {m: v * self.seen[:, None] for m, v in self.features.unit(items).items()}
        gram = _gram(x, self.spec.user_power)
        level = float(np.diag(gram)[self.seen].mean())
        best, step, learnt = -np.inf, 0, None
        grid = list(product(self.spec.content if vectors else (0.0,), self.spec.l2))
        for content, l2 in grid:
            matrix = gram.copy()
            for f in vectors.values():
                for start in range(0, len(f), BLOCK):
                    matrix[start : start + BLOCK] += (content * level * f[start : start + BLOCK]) @ f.T
            p = ridge.inverse(matrix, l2)
            self.lift = {m: (content * level * (p @ f)).astype(np.float32) for m, f in vectors.items() if content}
            self.weight = ridge.weights(p)
            self._attached()
            quality = validation_by_group(self, train, valid, self.spec.metric)
            watch(step, {"content": content, "l2": l2, f"valid_{self.spec.metric}": quality})
            step += 1
            if quality > best:
                best, learnt = quality, (self.weight, self.lift)
        if learnt is not None:
            self.weight, self.lift = learnt

    def _attached(self) -> None:
        self.new = np.flatnonzero(~self.trained(self.seen))
        vectors = self.features.unit(self.items) if len(self.new) and self.lift else {}
        self.new_vectors = {m: vectors[m][self.new] for m in self.lift if m in vectors}
        self.new_scored = np.zeros(len(self.new), bool)
        for f in self.new_vectors.values():
            self.new_scored |= np.abs(f).sum(1) > 0

    def _score(self, requests: Requests) -> Float32:
        history = self.history_at_fit(requests.history)
        out = self.scores_at_fit(np.asarray(history @ self.weight, np.float32))
        if len(self.new):
            fresh = np.zeros((len(requests), len(self.new)), np.float32)
            for name, f in self.new_vectors.items():
                fresh += dot_products(history @ self.lift[name], f)
            fresh[:, ~self.new_scored] = -np.inf
            out[:, self.new] = fresh
        return out

    def arrays(self) -> dict[str, np.ndarray]:
        lift = {f"lift.{m}": v for m, v in self.lift.items()}
        return {"weight": self.weight, "seen": self.seen} | lift | self.features.arrays()

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.weight, self.seen = np.asarray(arrays["weight"], np.float32), np.asarray(arrays["seen"], bool)
        self.lift = {k.removeprefix("lift."): np.asarray(v) for k, v in arrays.items() if k.startswith("lift.")}
        self.features = FeatureSpace.restore(arrays)


def _gram(x: sparse.csr_matrix, power: float) -> np.ndarray:
    """X'X of the rows scaled by length^-power, scaled back to the sum that power 0 has."""
    length = np.maximum(np.asarray(x.sum(1)).ravel(), 1).astype(np.float32)
    scaled = (sparse.diags(length ** np.float32(-power)) @ x).tocsr()
    together = np.asarray((scaled.T @ scaled).todense(), ridge.gram_dtype(x.shape[1]))
    return together * (x.nnz / scaled.power(2).sum())
