"""A low-pass filter on the item graph, content included, in closed form (part of the house model, D11).

With X the (U, I) matrix, n its row sums and p its column sums, P = diag(n)^-a X diag(p)^-b. The item graph is
M = P'P + s c sum_m F_m F_m', where F_m (I, D_m) holds modality m along its directions of taste (zero rows where absent)
and s is the mean of P'P's diagonal, so that c is the weight of content against all interactions. With V, w its leading
eigenvectors and eigenvalues, score = (x diag(p)^-b V) w^q (diag(p)^e V)': items that are one or more steps apart in the
graph count as near, q says how fast that fades, e how much popularity counts. Both factors are low rank, so a catalogue
of millions is served by inner products. An item without interactions gets its eigenvector from its content alone
(Nyström: v = c s f F'V / w), also when it joined after training.

Graph signal processing for recommendation: Shen et al., "How powerful is graph convolution for recommendation?",
CIKM 2021, arXiv:2108.07567; content in the same operator is ours. Rank, q, e, b and c: small grids, by validation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveInt
from scipy import sparse

from fusionrec.fusion.base import FusionSpec
from fusionrec.fusion.space import FeatureSpace
from fusionrec.recommenders.base import Retriever, RetrieverSpec, Watch
from fusionrec.recommenders.dense import dot_products
from fusionrec.recommenders.validation import validation_by_group
from fusionrec.types import Float32, Interactions, ItemSet, Requests

ROUNDS = 6  # of subspace iteration; more do not change a ranking
SPARE = 16  # vectors beyond the rank, so that the last wanted ones converge too


class Spectral(RetrieverSpec):
    """``kind: spectral``. Tuples are grids: the value with the best validation metric is kept."""

    kind: Literal["spectral"] = "spectral"
    rank: tuple[PositiveInt, ...] = Field((64, 128, 256), min_length=1)
    fade: tuple[NonNegativeFloat, ...] = Field((0.5, 1.0), min_length=1, description="q, power of the eigenvalues")
    user_power: float = Field(0.5, ge=0, le=1, description="a: how much less a choice of a busy user says")
    item_power: tuple[NonNegativeFloat, ...] = Field((0.3, 0.5), min_length=1, description="b: the same of a busy item")
    popularity: tuple[NonNegativeFloat, ...] = Field(
        (0.0, 1.0), min_length=1, description="e as a share of b: 0 favours rare items, 1 known ones"
    )
    content: tuple[NonNegativeFloat, ...] = Field(
        (0.0, 0.1, 0.3), min_length=1, description="c, weight of content against interactions"
    )
    width: PositiveInt = Field(128, description="whitened components kept of each modality")
    tastes: PositiveInt = Field(64, description="directions of taste kept of each modality, at most")
    metric: Literal["ndcg@20", "recall@20"] = Field("ndcg@20", description="what the grids are judged by")
    space: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "user_power": (0.3, 0.5, 0.7),
        "item_power": ((0.3,), (0.4,), (0.5,), (0.3, 0.5)),
        "content": ((0.0,), (0.1,), (0.3,), (0.0, 0.1, 0.3)),
    }

    def build(self, fusion: FusionSpec | None = None) -> Retriever:
        return SpectralRetriever(self)


class SpectralRetriever(Retriever):
    """Serves new users by their history and, where the content weight is positive, new items by their content."""

    retrieval = "mips"
    folds_in = True
    cold_item = True

    def __init__(self, spec: Spectral) -> None:
        self.spec = spec

    def _fit(self, train: Interactions, valid: Interactions, items: ItemSet, seed: int, watch: Watch) -> None:
        x = train.matrix()
        count = np.asarray(x.sum(0)).ravel()
        self.seen = count > 0
        self.features = FeatureSpace(self.spec.width).fit(items, self.seen).focus(items, train, self.spec.tastes, seed)
        vectors = {
            m: v * self.seen[:, None] for m, v in self.features.unit(items).items()
        }  # a new item changes nothing
        contents = self.spec.content if vectors else (0.0,)
        rank = min(max(self.spec.rank), x.shape[1] - 1, x.shape[0])
        rank = max(rank, 1)
        best = -np.inf
        step = 0
        for power, content in product(self.spec.item_power, contents):
            graph = _Graph(x, self.spec.user_power, power, vectors, content)
            value, basis = graph.leading(rank, seed)
            for kept, fade, share in self._choices(rank):
                self._take(graph, value[:kept], basis[:, :kept], fade, share * power)
                quality = validation_by_group(self, train, valid, self.spec.metric)
                watch(step, {"item_power": power, "content": content, "rank": kept, "fade": fade, "popularity": share,
                             f"valid_{self.spec.metric}": quality})  # fmt: skip
                step += 1
                if quality > best:
                    best, learnt = quality, self.arrays()
        self._restore(learnt)

    def _choices(self, rank: int) -> Iterator[tuple[int, float, float]]:
        ranks = sorted({min(r, rank) for r in self.spec.rank})
        yield from product(ranks, self.spec.fade, self.spec.popularity)

    def _take(self, graph: _Graph, value: np.ndarray, basis: Float32, fade: float, popularity: float) -> None:
        root = (value ** (fade / 2)).astype(np.float32)
        self.past = graph.shrink[:, None] * basis * root
        self.item = graph.count[:, None] ** np.float32(popularity) * basis * root
        inverse = np.divide(1, value, out=np.zeros_like(value), where=value > 1e-6 * value[0]).astype(np.float32)
        self.lift = {m: graph.weight * (f.T @ basis) * inverse * root for m, f in graph.vectors.items()}
        self._attached()

    def _attached(self) -> None:
        rows = np.where(self.known, self.fit_row, 0)
        old = self.trained(self.seen)
        item, past = (np.where(old[:, None], a[rows], np.float32(0)) for a in (self.item, self.past))
        self.scored = old.copy()
        if not old.all() and self.lift:
            new = np.flatnonzero(~old)
            lifted = np.zeros((len(new), self.item.shape[1]), np.float32)
            for name, vectors in self.features.unit(self.items).items():
                if name in self.lift:
                    lifted += vectors[new] @ self.lift[name]
            item[new] = past[new] = lifted
            self.scored[new] = np.abs(lifted).sum(1) > 0
        self.item_vectors, self.past_vectors = item, past

    def vectors_item(self) -> Float32:
        bias = np.where(self.scored, np.float32(0), np.float32(-np.inf))
        return np.concatenate([self.item_vectors, bias[:, None]], axis=1)

    def vectors_user(self, requests: Requests) -> Float32:
        user = np.asarray(requests.history @ self.past_vectors, np.float32)
        return np.concatenate([user, np.ones((len(user), 1), np.float32)], axis=1)

    def _score(self, requests: Requests) -> Float32:
        scores = dot_products(requests.history @ self.past_vectors, self.item_vectors)
        scores[:, ~self.scored] = -np.inf
        return scores

    def arrays(self) -> dict[str, np.ndarray]:
        lift = {f"lift.{m}": v for m, v in self.lift.items()}
        return {"past": self.past, "item": self.item, "seen": self.seen} | lift | self.features.arrays()

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.past, self.item = (np.asarray(arrays[k], np.float32) for k in ("past", "item"))
        self.seen = np.asarray(arrays["seen"], bool)
        self.lift = {k.removeprefix("lift."): np.asarray(v) for k, v in arrays.items() if k.startswith("lift.")}
        self.features = FeatureSpace.restore(arrays)


class _Graph:
    """The operator M, never built as I x I."""

    def __init__(
        self, x: sparse.csr_matrix, a: float, b: float, vectors: Mapping[str, Float32], content: float
    ) -> None:
        busy = np.maximum(np.asarray(x.sum(1)).ravel(), 1).astype(np.float32)
        self.count = np.maximum(np.asarray(x.sum(0)).ravel(), 1).astype(np.float32)
        self.shrink = self.count ** np.float32(-b)
        self.p = (sparse.diags(busy ** np.float32(-a)) @ x @ sparse.diags(self.shrink)).tocsr().astype(np.float32)
        self.back = self.p.T.tocsr()
        touched = max(int((np.diff(self.back.indptr) > 0).sum()), 1)
        self.weight = np.float32(content * self.p.power(2).sum() / touched)
        self.vectors = dict(vectors) if content else {}

    def __matmul__(self, q: Float32) -> Float32:
        out = np.asarray(self.back @ (self.p @ q))
        for f in self.vectors.values():
            out += self.weight * (f @ (f.T @ q))
        return out

    def leading(self, rank: int, seed: int) -> tuple[np.ndarray, Float32]:
        """The ``rank`` largest eigenvalues (descending, not negative) and their vectors (I, rank): Halko, Martinsson
        and Tropp, "Finding structure with randomness", SIAM Review 2011, arXiv:0909.4061."""
        n = self.p.shape[1]
        width = min(rank + SPARE, n)
        q = np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)
        for _ in range(ROUNDS):
            q, _ = np.linalg.qr(self @ q)
        value, turn = np.linalg.eigh(q.T @ (self @ q))
        order = np.argsort(-value)[:rank]
        basis = q @ turn[:, order]
        sign = np.sign(basis[np.abs(basis).argmax(0), np.arange(len(order))])  # a function of the data alone
        return np.maximum(value[order], 0), (basis * np.where(sign == 0, 1, sign)).astype(np.float32)
