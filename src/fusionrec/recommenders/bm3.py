"""BM3 (D4): learns from positives alone, by predicting one view of a pair from another.

Zhou et al., "Bootstrap latent representations for multi-modal recommendation", WWW 2023, arXiv:2207.05969.
LightGCN over ids gives users u and, with the id vector added, items i; modality m of an item gives t_m = W_m f_m.
One linear predictor p serves all of them; targets t' are copies through dropout that no gradient enters:
loss = [1 - cos(p(u), i')] + [1 - cos(p(i), u')] + contrast x sum_m ([1 - cos(p(t_m), i')] + [1 - cos(p(t_m), t_m')])
     + reg x norm of u and i.
Modality terms are means over the batch's items that have the modality. Score = p(u) . p(i).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PositiveInt
from scipy import sparse

from fusionrec.fusion.base import FusionSpec
from fusionrec.recommenders.base import Retriever, RetrieverSpec
from fusionrec.recommenders.embedded import BENCHMARK, EmbeddedRetriever, Prefer, features_of
from fusionrec.recommenders.graph import bipartite
from fusionrec.recommenders.training import Training
from fusionrec.types import ItemSet

if TYPE_CHECKING:
    from torch import Tensor, nn


class BM3(RetrieverSpec):
    """``kind: bm3``."""

    kind: Literal["bm3"] = "bm3"
    space: ClassVar[Mapping[str, tuple[Any, ...]]] = {"layers": (1, 2), "dropout": (0.3, 0.5), "reg": (0.1, 0.01)}
    dim: PositiveInt = 64
    layers: PositiveInt = 1
    dropout: float = Field(0.3, ge=0, lt=1, description="of the targets")
    contrast: float = Field(2.0, ge=0, description="weight of the modality terms")
    reg: float = Field(0.1, ge=0, description="weight of the norm of all propagated vectors")
    tune_features: bool = Field(
        True, description="modality vectors are a start that training moves, as in the benchmark"
    )
    training: Training = BENCHMARK

    def build(self, fusion: FusionSpec | None = None) -> Retriever:
        return BM3Retriever(self)


class BM3Retriever(EmbeddedRetriever):
    """Draws no negatives."""

    pairwise = False

    def _network(self, pairs: sparse.csr_matrix, items: ItemSet, prefer: Prefer) -> nn.Module:
        return network(self.spec, pairs, items)


def network(spec: BM3, pairs: sparse.csr_matrix, items: ItemSet) -> nn.Module:
    """The network of :class:`BM3` over the binary (U, I) ``pairs``."""
    from torch import nn

    from fusionrec.recommenders.propagation import Features, Nodes, Product, norms, rows

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.nodes = Nodes(pairs.shape, spec.dim)
            self.graph = Product(bipartite(pairs), symmetric=True)
            self.predictor = nn.Linear(spec.dim, spec.dim)
            nn.init.xavier_normal_(self.predictor.weight)
            self.features = Features(features_of(items), spec.dim, spec.tune_features)
            for linear in self.features.maps.values():
                nn.init.xavier_normal_(linear.weight)

        def online(self) -> tuple[Tensor, Tensor]:
            user, item = self.nodes.split(self.nodes.propagated(self.graph, spec.layers))
            return user, item + self.nodes.item

        def vectors(self) -> tuple[Tensor, Tensor]:
            user, item = self.online()
            return self.predictor(user), self.predictor(item)

        def target(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(x.detach(), spec.dropout, self.training)

        def loss(self, users: Tensor, positives: Tensor) -> Tensor:
            user, item = self.online()
            (u,), (i,) = rows(user, users), rows(item, positives)
            item_target = self.target(i)
            loss = distance(self.predictor(u), item_target).mean() + distance(self.predictor(i), self.target(u)).mean()
            for name in self.features.names:
                mapped, here = self.features.mapped(name, positives)
                online = self.predictor(mapped)
                both = distance(online, item_target) + distance(online, self.target(mapped))
                loss = loss + spec.contrast * (both * here).sum() / here.sum().clamp(min=1)
            return loss + spec.reg * norms(user, item) if spec.reg else loss

    return Network()


def distance(a: Tensor, b: Tensor) -> Tensor:
    """1 - cosine of the rows of (B, D) tensors -> (B,)."""
    import torch

    return 1 - torch.nn.functional.cosine_similarity(a, b, dim=-1)
