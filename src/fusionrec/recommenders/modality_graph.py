"""Modality graph (C7 as a recommender): what an item says of itself, fused, enters the user-item graph.

The modality vectors of an item are nodes that pass messages, X_i^(t+1) = ReLU(sum_j alpha_ij X_j^(t)), and are pooled
(``fusion/graph.py``; any other fusion can be injected). Item node = id vector + fused vector, user node = id vector;
LightGCN (arXiv:2002.02126) propagates them over the training pairs, so users take up what their items look and
sound like. Loss = BPR + reg x norm of the batch's own nodes. Features are whitened (``fusion/space.py``).

An item that nobody has touched is a node without edges: mean id vector + fused vector, its layers 1..L empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt
from scipy import sparse

from fusionrec.fusion.base import FusionSpec
from fusionrec.fusion.graph import Graph
from fusionrec.fusion.space import FeatureSpace
from fusionrec.recommenders.base import Retriever, RetrieverSpec
from fusionrec.recommenders.embedded import BENCHMARK, EmbeddedRetriever, Prefer
from fusionrec.recommenders.graph import bipartite
from fusionrec.recommenders.training import Training, load_state, state_arrays
from fusionrec.types import Bool, Float32, ItemSet

if TYPE_CHECKING:
    from torch import Tensor, nn


class ModalityGraph(RetrieverSpec):
    """``kind: modality_graph``."""

    kind: Literal["modality_graph"] = "modality_graph"
    space: ClassVar[Mapping[str, tuple[Any, ...]]] = {"layers": (1, 2, 3), "reg": (1e-2, 1e-3, 1e-4)}
    dim: PositiveInt = 64
    layers: PositiveInt = Field(2, description="of the user-item graph")
    width: PositiveInt = Field(64, description="whitened components kept of each modality")
    reg: float = Field(1e-3, ge=0, description="weight of the norm of the batch's nodes before propagation")
    training: Training = BENCHMARK

    def build(self, fusion: FusionSpec | None = None) -> Retriever:
        return ModalityGraphRetriever(self, fusion or Graph())


class ModalityGraphRetriever(EmbeddedRetriever):
    """Scores new items by their features."""

    cold_item = True

    def __init__(self, spec: ModalityGraph, fusion: FusionSpec) -> None:
        super().__init__(spec)
        self.fusion = fusion

    def _network(self, pairs: sparse.csr_matrix, items: ItemSet, prefer: Prefer) -> nn.Module:
        self.space = FeatureSpace(self.spec.width).fit(items, self.touched)
        self.fuse = self.fusion.build(self.space.dims, self.spec.dim) if self.space.dims else None
        return network(self.spec, pairs, self.fuse, *self.space.apply(items))

    def _take(self, network: nn.Module, active: Bool) -> None:
        super()._take(network, active)
        ids = network.nodes.item.detach().cpu().numpy()[self.touched]
        self.mean = ids.mean(0, dtype=np.float64).astype(np.float32)

    def _catalogue_vectors(self) -> tuple[Float32, Bool]:
        vectors, trained = super()._catalogue_vectors()
        new = np.flatnonzero(~trained)
        if self.fuse is None or len(new) == 0:
            return vectors, trained
        import torch

        features, mask = self.space.apply(self.items)
        device = next(self.fuse.parameters(), torch.zeros(0)).device
        with torch.no_grad():
            self.fuse.eval()
            x = {m: torch.from_numpy(v[new]).to(device) for m, v in features.items()}
            fused = self.fuse(x, torch.from_numpy(mask[new]).to(device)).cpu().numpy()
        vectors[new] = (self.mean + fused) / (self.spec.layers + 1)
        return vectors, trained | mask.any(1)

    def arrays(self) -> dict[str, np.ndarray]:
        fuse = {} if self.fuse is None else state_arrays(self.fuse, "fuse")
        return super().arrays() | self.space.arrays() | fuse | {"mean": self.mean}

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        super()._restore(arrays)
        self.mean = np.asarray(arrays["mean"], np.float32)
        self.space = FeatureSpace.restore(arrays)
        self.fuse = self.fusion.build(self.space.dims, self.spec.dim) if self.space.dims else None
        if self.fuse is not None:
            load_state(self.fuse, dict(arrays), "fuse")


def network(
    spec: ModalityGraph, pairs: sparse.csr_matrix, fuse: nn.Module | None, features: dict[str, Float32], mask: Bool
) -> nn.Module:
    """The network of :class:`ModalityGraph` over the (U, I) ``pairs``; ``features`` and ``mask`` of its items."""
    import torch
    from torch import nn

    from fusionrec.recommenders.propagation import Nodes, Product, bpr_loss, layer_mean, layer_rows, norms

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.nodes = Nodes(pairs.shape, spec.dim)
            self.graph = Product(bipartite(pairs), symmetric=True)
            self.fuse = fuse
            for name, x in features.items():
                self.register_buffer(f"x_{name}", torch.from_numpy(x), persistent=False)
            self.register_buffer("mask", torch.from_numpy(mask), persistent=False)

        def start(self) -> Tensor:
            """(U + I, D): the nodes before propagation."""
            if self.fuse is None:
                return self.nodes.weight
            fused = self.fuse({m: getattr(self, f"x_{m}") for m in features}, self.mask)
            fused = fused * self.mask.any(1, keepdim=True)  # an item without any modality is its id alone
            user, item = self.nodes.split(self.nodes.weight)
            return torch.cat([user, item + fused])

        def vectors(self) -> tuple[Tensor, Tensor]:
            return self.nodes.split(layer_mean(self.start(), self.graph, spec.layers))

        def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
            start = self.start()
            at = (users, positives + self.nodes.n_users, negatives + self.nodes.n_users)
            found, own = layer_rows(start, self.graph, spec.layers, *at)
            loss = bpr_loss(*found.unbind())
            return loss + spec.reg * norms(*own.unbind()) if spec.reg else loss

    return Network()
