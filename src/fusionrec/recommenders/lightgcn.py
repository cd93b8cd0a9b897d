"""LightGCN (D4): id vectors smoothed over the user-item graph.

He et al., "LightGCN: simplifying and powering graph convolution network for recommendation", SIGIR 2020,
arXiv:2002.02126. The final vectors are the mean of A^l x over layers l = 0..L; loss = BPR + reg x norm of the batch's
own vectors x (see ``propagation.norms``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PositiveInt
from scipy import sparse

from fusionrec.fusion.base import FusionSpec
from fusionrec.recommenders.base import Retriever, RetrieverSpec
from fusionrec.recommenders.embedded import BENCHMARK, EmbeddedRetriever, Prefer
from fusionrec.recommenders.graph import bipartite
from fusionrec.recommenders.training import Training
from fusionrec.types import ItemSet

if TYPE_CHECKING:
    from torch import Tensor, nn


class LightGCN(RetrieverSpec):
    """``kind: lightgcn``."""

    kind: Literal["lightgcn"] = "lightgcn"
    space: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "layers": (1, 2, 3, 4),
        "reg": (1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
    }
    dim: PositiveInt = 64
    layers: PositiveInt = 2
    reg: float = Field(1e-4, ge=0, description="weight of the norm of the batch's id vectors")
    training: Training = BENCHMARK

    def build(self, fusion: FusionSpec | None = None) -> Retriever:
        return LightGCNRetriever(self)


class LightGCNRetriever(EmbeddedRetriever):
    """Scores users and items of the training graph."""

    def _network(self, pairs: sparse.csr_matrix, items: ItemSet, prefer: Prefer) -> nn.Module:
        return network(self.spec, pairs)


def network(spec: LightGCN, pairs: sparse.csr_matrix) -> nn.Module:
    """The network of :class:`LightGCN` over the binary (U, I) ``pairs``."""
    from torch import nn

    from fusionrec.recommenders.propagation import Nodes, Product, bpr_loss, norms

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.nodes = Nodes(pairs.shape, spec.dim)
            self.graph = Product(bipartite(pairs), symmetric=True)

        def vectors(self) -> tuple[Tensor, Tensor]:
            return self.nodes.split(self.nodes.propagated(self.graph, spec.layers))

        def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
            at = (users, positives + self.nodes.n_users, negatives + self.nodes.n_users)
            found, own = self.nodes.propagated_rows(self.graph, spec.layers, *at)
            loss = bpr_loss(*found.unbind())
            return loss + spec.reg * norms(*own.unbind()) if spec.reg else loss

    return Network()
