"""Blurring and sharpening on the item graph, in closed form (D1): a linear filter with a low-pass part.

With X the (U, I) matrix, n its row sums and p its column sums, N = diag(n)^-a X diag(p)^-b, scaled to norm 1, and P =
N'N, the graph of items that users have in common. V (I, R): the leading right singular vectors of N. A history x is
blurred over the neighbours and over the whole graph, y = x P + l (x diag(p)^-b V) (diag(p)^b V)', and then sharpened
for a time s, which takes away what the neighbours of an item explain: dy/dt = -y P, of which one Runge-Kutta step of
order 4 is taken, score = y S with S = sum of (-s P)^i / i!, i = 0..4. So all is one item-item matrix, the sum of P S
and of a matrix of rank R; of the first the ``neighbours`` entries of each row with the largest magnitude are kept. l
and s are chosen by validation, with the operators themselves, before anything is cut off.

Shen et al., "How powerful is graph convolution for recommendation?", CIKM 2021, arXiv:2108.07567 (the blurring); Choi
et al., "Blurring-sharpening process models for collaborative filtering", SIGIR 2023, arXiv:2211.09324. What they keep
of the users (N itself) is not part of the fitted model here: it holds items alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from scipy import sparse

from fusionrec.evaluation.metrics import per_user
from fusionrec.fusion.base import FusionSpec
from fusionrec.recommenders.base import Retriever, RetrieverSpec, Watch, top_k
from fusionrec.recommenders.dense import dot_products
from fusionrec.recommenders.graph import BLOCK_CELLS
from fusionrec.recommenders.validation import validation_requests
from fusionrec.types import Float32, Interactions, ItemSet, Requests

ORDER = 4
ROUNDS = 6  # power iterations of the randomised decomposition; more do not change a ranking


class GraphFilter(RetrieverSpec):
    """``kind: graph_filter``. Tuples are grids: the value with the best validation metric is kept."""

    kind: Literal["graph_filter"] = "graph_filter"
    neighbours: PositiveInt = Field(500, description="entries kept of each item's row")
    rank: NonNegativeInt = Field(256, description="R, directions of the low-pass part; 0: none")
    low: tuple[NonNegativeFloat, ...] = Field(
        (0.0, 0.1, 0.2, 0.4), min_length=1, description="l, weight of the low-pass"
    )
    sharpen: tuple[NonNegativeFloat, ...] = Field((0.0, 1.0, 1.75, 2.5), min_length=1, description="s, the time")
    user_power: float = Field(0.5, ge=0, le=1, description="a: how much less a choice of a busy user says")
    item_power: float = Field(0.5, ge=0, le=1, description="b: the same of a busy item")
    metric: Literal["ndcg@20", "recall@20"] = Field("ndcg@20", description="what the grids are judged by")
    space: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "rank": (64, 256, 512),
        "user_power": (0.3, 0.5, 0.7),
        "item_power": (0.3, 0.5, 0.7),
    }

    def build(self, fusion: FusionSpec | None = None) -> Retriever:
        return GraphFilterRetriever(self)


class GraphFilterRetriever(Retriever):
    """Score = sum over the history of the filter's rows."""

    retrieval = "dense"
    folds_in = True

    def __init__(self, spec: GraphFilter) -> None:
        self.spec = spec

    def _fit(self, train: Interactions, valid: Interactions, items: ItemSet, seed: int, watch: Watch) -> None:
        x = train.matrix()
        graph = _Graph(x, self.spec, seed)
        self.seen = graph.count > 0
        low, sharpen = self._chosen(graph, train, valid, watch)
        back = graph.sharpened(graph.far_item.T, sharpen).T
        self.left = graph.far_history if low else graph.far_history[:, :0]
        self.right = np.float32(low) * (back if low else back[:, :0])
        self.near = graph.rows(sharpen, self.spec.neighbours)

    def _chosen(
        self, graph: _Graph, train: Interactions, valid: Interactions, watch: Watch
    ) -> tuple[np.float32, np.float32]:
        """l and s with the best mean of the metric; the first where nothing can be validated on."""
        lows = self.spec.low if graph.far_item.shape[1] else (0.0,)
        choices = [(np.float32(low), np.float32(sharpen)) for low, sharpen in product(lows, self.spec.sharpen)]
        requests, positives = validation_requests(train, valid)
        if len(choices) == 1 or len(requests) == 0:
            return choices[0]
        k = int(self.spec.metric.partition("@")[2])
        sums, block = np.zeros(len(choices)), max(BLOCK_CELLS // train.n_items, 1)
        for start in range(0, len(requests), block):
            history, wanted = requests.history[start : start + block], positives[start : start + block]
            near = graph.terms(graph.step(history.toarray().astype(np.float32)))
            far = graph.terms((history @ graph.far_history) @ graph.far_item.T)
            for at, (low, sharpen) in enumerate(choices):
                score = _sum(near, sharpen) + low * _sum(far, sharpen)
                score[:, graph.count == 0] = -np.inf
                score[np.repeat(np.arange(len(score)), np.diff(history.indptr)), history.indices] = -np.inf
                lists, value = top_k(score, k, empty_ties=False)
                sums[at] += np.nansum(per_user(np.where(np.isneginf(value), -1, lists), wanted, (k,))[self.spec.metric])
        quality = sums / len(requests)
        for at, (low, sharpen) in enumerate(choices):
            told = {"low": float(low), "sharpen": float(sharpen), f"valid_{self.spec.metric}": float(quality[at])}
            watch(at, told)
        return choices[int(np.argmax(quality))]

    def _score(self, requests: Requests) -> Float32:
        history = self.history_at_fit(requests.history)
        scores = np.asarray((history @ self.near).todense(), np.float32)
        if self.left.shape[1]:
            scores += dot_products(history @ self.left, self.right)
        scores[:, ~self.seen] = -np.inf
        return self.scores_at_fit(scores)

    def arrays(self) -> dict[str, np.ndarray]:
        return {
            "data": self.near.data,
            "indices": self.near.indices.astype(np.int32),
            "indptr": self.near.indptr.astype(np.int64),
            "left": self.left,
            "right": self.right,
            "seen": self.seen,
        }

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        n = len(arrays["indptr"]) - 1
        data = np.asarray(arrays["data"], np.float32)
        self.near = sparse.csr_matrix((data, arrays["indices"], arrays["indptr"]), (n, n))
        self.left, self.right = (np.asarray(arrays[k], np.float32) for k in ("left", "right"))
        self.seen = np.asarray(arrays["seen"], bool)


class _Graph:
    """P as an operator, never built as a whole. ``count`` (I,): users of each item; ``far_history``, ``far_item``
    (I, R): the two factors of the low-pass part."""

    def __init__(self, x: sparse.csr_matrix, spec: GraphFilter, seed: int) -> None:
        from sklearn.utils.extmath import randomized_svd

        busy = np.maximum(np.asarray(x.sum(1)).ravel(), 1)
        self.count = np.asarray(x.sum(0)).ravel()
        power = (np.maximum(self.count, 1) ** spec.item_power).astype(np.float32)
        self.n = (sparse.diags(busy**-spec.user_power) @ x @ sparse.diags(1 / power)).tocsr().astype(np.float32)
        self.back = self.n.T.tocsr()
        rank = min(spec.rank, *x.shape) if any(spec.low) else 0
        _, size, basis = randomized_svd(self.n, max(rank, 1), n_iter=ROUNDS, random_state=seed)
        self.n /= size[0]  # P contracts, whatever the powers: s means the same
        self.back /= size[0]
        basis = basis[:rank]
        self.far_history = (basis / power).T.astype(np.float32)
        self.far_item = (basis * power).T.astype(np.float32)

    def step(self, rows: Float32) -> Float32:
        """(B, I) rows -> rows P, (B, I)."""
        return np.ascontiguousarray((self.back @ (self.n @ rows.T)).T)

    def terms(self, rows: Float32) -> list[Float32]:
        """(B, I) rows -> rows P^i / i!, i = 0..4, each (B, I)."""
        out = [rows]
        for i in range(1, ORDER + 1):
            out.append(self.step(out[-1]) / np.float32(i))
        return out

    def sharpened(self, rows: Float32, sharpen: np.float32) -> Float32:
        """(B, I) rows -> rows S."""
        return _sum(self.terms(rows), sharpen) if sharpen else rows

    def rows(self, sharpen: np.float32, k: int) -> sparse.csr_matrix:
        """The k entries of each row of P S with the largest magnitude, as (I, I) float32 CSR."""
        n = self.n.shape[1]
        block, parts = max(BLOCK_CELLS // n, 1), []
        for start in range(0, n, block):
            p = np.asarray((self.back[start : start + block] @ self.n).todense(), np.float32)
            row = self.sharpened(p, sharpen)
            at, _ = top_k(np.abs(row), min(k, n), empty_ties=False)
            at.sort(axis=1)
            value = np.take_along_axis(row, at, 1)
            ends = np.arange(len(at) + 1) * at.shape[1]
            part = sparse.csr_matrix((value.ravel(), at.ravel(), ends), shape=(len(at), n))
            part.eliminate_zeros()
            parts.append(part)
        return sparse.vstack(parts, format="csr", dtype=np.float32)


def _sum(terms: list[Float32], sharpen: np.float32) -> Float32:
    """What :meth:`_Graph.terms` gave, weighted for a time: (B, I)."""
    out = terms[0]
    for i, term in enumerate(terms[1:], 1):
        out = out + np.float32((-float(sharpen)) ** i) * term
    return out
