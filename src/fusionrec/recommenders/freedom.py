"""FREEDOM (D4): a frozen item graph beside a user-item graph that loses edges anew in every epoch.

Zhou, Shen, "A tale of two graphs: freezing and denoising graph structures for multimodal recommendation", ACM MM 2023,
arXiv:2211.06924. S = sum_m w_m S_m, each the binary kNN graph of a modality; h = S x over item ids x; item = LightGCN
item + h. An epoch keeps (1 - dropout) of the edges, drawn without replacement with probability proportional to
1 / sqrt(d_u d_i) and normalised again; evaluation uses them all.
Loss = BPR + reg x sum_m BPR(u, W_m f_m).

Any number of modalities: where an item lacks one, it has no edges there, the weights of its others are raised to sum
to 1, and pairs of which an item lacks the modality are left out of that modality's BPR.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt
from scipy import sparse

from fusionrec.fusion.base import FusionSpec
from fusionrec.recommenders.base import Retriever, RetrieverSpec
from fusionrec.recommenders.embedded import BENCHMARK, EmbeddedRetriever, Prefer, features_of
from fusionrec.recommenders.graph import bipartite, neighbours
from fusionrec.recommenders.training import Training
from fusionrec.types import ItemSet

if TYPE_CHECKING:
    from torch import Tensor, nn

PAPER = {"image": 0.1, "text": 0.9}
STEPS = 10  # weights that validation tries are multiples of a tenth ...
CHOICES = 100  # ... or of less where the modalities are so many that this would be more than so many mixtures


class FREEDOM(RetrieverSpec):
    """``kind: freedom``."""

    kind: Literal["freedom"] = "freedom"
    space: ClassVar[Mapping[str, tuple[Any, ...]]] = {"dropout": (0.8, 0.9), "reg": (0.0, 1e-5, 1e-4, 1e-3)}
    dim: PositiveInt = 64
    layers: PositiveInt = Field(2, description="of the user-item graph")
    item_layers: PositiveInt = Field(1, description="passes over the item graph")
    neighbours: PositiveInt = Field(10, description="edges of an item and modality, that to itself included")
    weights: dict[str, float] | Literal["equal", "validation"] | None = Field(
        None,
        description="share of each modality's item graph; equal; the best mixture of these graphs alone on validation; "
        "null: .1 and .9 where the modalities are image and text (the paper's), else equal",
    )
    dropout: float = Field(0.8, ge=0, lt=1, description="share of the user-item edges that an epoch goes without")
    reg: float = Field(1e-3, ge=0, description="weight of the BPR of the mapped modality vectors")
    tune_features: bool = Field(
        True, description="modality vectors are a start that training moves, as in the benchmark"
    )
    training: Training = BENCHMARK

    def build(self, fusion: FusionSpec | None = None) -> Retriever:
        return FREEDOMRetriever(self)


class FREEDOMRetriever(EmbeddedRetriever):
    """``weights``: the shares that were used."""

    def _network(self, pairs: sparse.csr_matrix, items: ItemSet, prefer: Prefer) -> nn.Module:
        graphs = {m: neighbours(x, here, self.spec.neighbours) for m, (x, here) in features_of(items).items()}
        self.weights = shares(self.spec.weights, graphs, prefer)
        return network(self.spec, pairs, items, mixed(graphs, self.weights))


def shares(
    asked: Mapping[str, float] | str | None, graphs: Mapping[str, sparse.csr_matrix], prefer: Prefer
) -> dict[str, float]:
    """Modality -> weight, summing to 1. Raises ValueError where a given table leaves a modality out."""
    names = sorted(graphs)
    if not names:
        return {}
    if isinstance(asked, Mapping):
        missing = [m for m in names if m not in asked]
        total = sum(asked.get(m, 0.0) for m in names)
        if missing or total <= 0 or min(asked.values()) < 0:
            raise ValueError(f"weights {dict(asked)}: expected a number >= 0, some above, for each of {names}")
        return {m: asked[m] / total for m in names}
    if asked is None and set(names) == set(PAPER):
        return dict(PAPER)
    if asked == "validation" and len(names) > 1:
        choices = simplex(len(names))
        values = [prefer(mixed(graphs, dict(zip(names, c, strict=True)))) for c in choices]
        return dict(zip(names, choices[int(np.argmax(values))], strict=True))
    return {m: 1 / len(names) for m in names}


def simplex(n: int) -> list[tuple[float, ...]]:
    """The points of a grid on the simplex of ``n`` weights, the most even one first."""
    for steps in range(STEPS, 0, -1):
        points = [p for p in product(range(steps + 1), repeat=n) if sum(p) == steps] if n <= 6 else []
        if 0 < len(points) <= CHOICES:
            break
    else:
        points, steps = [tuple(int(i == j) for j in range(n)) for i in range(n)], 1
    found = [tuple(part / steps for part in p) for p in sorted(points, key=lambda p: (max(p), p))]
    return [(1 / n,) * n, *found]


def mixed(graphs: Mapping[str, sparse.csr_matrix], weights: Mapping[str, float]) -> sparse.csr_matrix | None:
    """sum_m w_m S_m, each row divided by the weights of the modalities that the item has; None without modalities."""
    if not graphs:
        return None
    held = {m: np.diff(g.indptr) > 0 for m, g in graphs.items()}
    total = sum(weights[m] * here for m, here in held.items())
    scale = np.divide(1.0, total, out=np.zeros(len(total)), where=total > 0)
    found = sum(weights[m] * g for m, g in graphs.items())
    return (sparse.diags(scale) @ found).tocsr().astype(np.float32)


def kept_edges(pairs: sparse.csr_matrix, share: float, rng: np.random.Generator) -> sparse.csr_matrix:
    """``share`` of the edges of the binary (U, I) ``pairs``, without replacement, each draw proportional to
    1 / sqrt(d_u d_i): the smallest of exponential waiting times with these rates."""
    users = np.repeat(np.arange(pairs.shape[0]), np.diff(pairs.indptr))
    degree_user, degree_item = np.diff(pairs.indptr), np.bincount(pairs.indices, minlength=pairs.shape[1])
    wait = rng.standard_exponential(pairs.nnz) * np.sqrt(degree_user[users] * degree_item[pairs.indices])
    keep = max(int(pairs.nnz * share), 1)
    chosen = np.sort(np.argpartition(wait, keep - 1)[:keep])
    values = np.ones(keep, np.float32)
    return sparse.csr_matrix((values, (users[chosen], pairs.indices[chosen])), shape=pairs.shape)


def network(spec: FREEDOM, pairs: sparse.csr_matrix, items: ItemSet, item_graph: sparse.csr_matrix | None) -> nn.Module:
    """The network of :class:`FREEDOM` over the binary (U, I) ``pairs`` and the mixed (I, I) graph."""
    from torch import nn

    from fusionrec.recommenders.propagation import Features, Nodes, Product, bpr_loss, rows

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.nodes = Nodes(pairs.shape, spec.dim)
            self.features = Features(features_of(items), spec.dim, spec.tune_features, unused=not spec.reg)
            self.whole = Product(bipartite(pairs), symmetric=True)
            self.similar = None if item_graph is None else Product(item_graph)
            self.graph = self.whole

        def start_epoch(self, rng: np.random.Generator) -> None:
            if spec.dropout:
                kept = Product(bipartite(kept_edges(pairs, 1 - spec.dropout, rng)), symmetric=True)
                self.graph = kept.to(self.nodes.weight.device)

        def alike(self) -> Tensor | None:
            if self.similar is None:
                return None
            h = self.nodes.item
            for _ in range(spec.item_layers):
                h = self.similar(h)
            return h

        def vectors(self) -> tuple[Tensor, Tensor]:
            user, item = self.nodes.split(self.nodes.propagated(self.whole, spec.layers))
            h = self.alike()
            return user, item if h is None else item + h

        def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
            at = (users, positives + self.nodes.n_users, negatives + self.nodes.n_users)
            u, i, j = self.nodes.propagated_rows(self.graph, spec.layers, *at)[0].unbind()
            h = self.alike()
            if h is not None:
                h_i, h_j = rows(h, positives, negatives)
                i, j = i + h_i, j + h_j
            loss = bpr_loss(u, i, j)
            for name in self.features.names:
                (m_i, here_i), (m_j, here_j) = (self.features.mapped(name, at) for at in (positives, negatives))
                loss = loss + spec.reg * bpr_loss(u, m_i, m_j, here_i * here_j)
            return loss

    return Network()
