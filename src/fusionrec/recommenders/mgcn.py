"""MGCN (D4): the id vector, gated by what each modality says, smoothed over that modality's item graph.

Yu et al., "Multi-view graph convolutional network for multimedia recommendation", ACM MM 2023, arXiv:2308.03588.
Per modality m: items e_m = S_m (x * sigmoid(G_m W_m f_m)), S_m the cosine-weighted kNN graph; users e_m = R e_m(items)
with the normalised R. content = LightGCN over ids. A small attention shared by the modalities gives the common part
c = sum_m softmax_m(q . tanh(Q e_m)) e_m; what is specific, e_m - c, passes the gate sigmoid(P_m content);
side = mean(specific parts, common part); final = content + side.
Loss = BPR + reg x half the squares of the batch's final vectors / B + contrast x [InfoNCE(side, content) of the
batch's items + the same of its users] at temperature .2.

Any number of modalities: the attention and the mean run over those that the item has, or that any item of the user
has; a node without any has side 0 and is left out of InfoNCE. All this is row by row, so it is computed for the
distinct nodes of a batch only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from scipy import sparse

from fusionrec.fusion.base import FusionSpec
from fusionrec.recommenders.base import Retriever, RetrieverSpec
from fusionrec.recommenders.embedded import BENCHMARK, EmbeddedRetriever, Prefer, features_of
from fusionrec.recommenders.graph import bipartite, neighbours
from fusionrec.recommenders.training import Training
from fusionrec.types import ItemSet

if TYPE_CHECKING:
    from torch import Tensor, nn


class MGCN(RetrieverSpec):
    """``kind: mgcn``."""

    kind: Literal["mgcn"] = "mgcn"
    space: ClassVar[Mapping[str, tuple[Any, ...]]] = {"contrast": (0.001, 0.01, 0.1)}
    dim: PositiveInt = 64
    layers: PositiveInt = Field(2, description="of the user-item graph")
    item_layers: PositiveInt = Field(1, description="passes over the item graphs")
    neighbours: PositiveInt = Field(10, description="edges of an item and modality, that to itself included")
    reg: float = Field(1e-4, ge=0, description="weight of the squares of the batch's final vectors")
    contrast: float = Field(0.01, ge=0, description="weight of InfoNCE between side and content")
    temperature: PositiveFloat = 0.2
    contrast_rows: PositiveInt | None = Field(
        None, description="users and items of a batch, each, that InfoNCE looks at, drawn anew; null: all of them"
    )
    tune_features: bool = Field(
        True, description="modality vectors are a start that training moves, as in the benchmark"
    )
    training: Training = BENCHMARK.model_copy(update={"decay": 0.96 ** (1 / 50)})

    def build(self, fusion: FusionSpec | None = None) -> Retriever:
        return MGCNRetriever(self)


class MGCNRetriever(EmbeddedRetriever):
    """Scores users and items of the training graph."""

    def _network(self, pairs: sparse.csr_matrix, items: ItemSet, prefer: Prefer) -> nn.Module:
        return network(self.spec, pairs, items)


def network(spec: MGCN, pairs: sparse.csr_matrix, items: ItemSet) -> nn.Module:
    """The network of :class:`MGCN` over the binary (U, I) ``pairs``."""
    import numpy as np
    import torch
    from torch import nn

    from fusionrec.recommenders.propagation import Features, Nodes, Product, bpr_loss, info_nce, squares

    given = features_of(items)
    n_users, dim = pairs.shape[0], spec.dim

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            whole = bipartite(pairs)
            self.nodes = Nodes(pairs.shape, dim)
            self.graph = Product(whole, symmetric=True)
            self.gather = Product(whole[:n_users, n_users:].tocsr())
            self.features = Features(given, dim, spec.tune_features)
            similar = {m: Product(neighbours(*given[m], spec.neighbours, weighted=True)) for m in given}
            self.similar = nn.ModuleDict(similar)
            self.gate, self.prefer = (nn.ModuleDict({m: nn.Linear(dim, dim) for m in given}) for _ in range(2))
            self.query = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1, bias=False))
            held = [np.concatenate([pairs @ here.astype(np.float32) > 0, here]) for _, here in given.values()]
            self.register_buffer("mask", torch.from_numpy(np.stack(held, 1)) if held else None, persistent=False)

        def views(self) -> list[tuple[Tensor, Tensor]]:
            """For each modality, users (U, D) and items (I, D)."""
            views = []
            for name in given:
                mapped = self.features.maps[name](self.features.raw(name))
                item = self.nodes.item * torch.sigmoid(self.gate[name](mapped))
                for _ in range(spec.item_layers):
                    item = self.similar[name](item)
                views.append((self.gather(item), item))
            return views

        def content(self) -> Tensor:
            """(U + I, D)"""
            return self.nodes.propagated(self.graph, spec.layers)

        def side(self, content: Tensor, e_NMD: Tensor, mask: Tensor) -> Tensor:
            """(N, D) from content (N, D), the modality vectors and the mask (N, M) of those that count."""
            here = mask[..., None].to(content.dtype)
            score = self.query(e_NMD).masked_fill(~mask[..., None], -1e9)
            common = (torch.softmax(score, 1) * e_NMD * here).sum(1)
            gate = torch.stack([torch.sigmoid(self.prefer[m](content)) for m in given], 1)
            specific = ((e_NMD - common[:, None]) * gate * here).sum(1)
            return (specific + common) / (here.sum(1) + 1)

        def vectors(self) -> tuple[Tensor, Tensor]:
            content = self.content()
            if given:
                e_NMD = torch.stack([torch.cat(view) for view in self.views()], 1)
                content = content + self.side(content, e_NMD, self.mask)
            return self.nodes.split(content)

        def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
            user, at_user, n_user = torch.unique(users, return_inverse=True, return_counts=True)
            item, at_item = torch.unique(torch.cat([positives, negatives]), return_inverse=True)
            at_i, at_j = at_item.split(len(positives))
            chosen = torch.cat([user, item + n_users])
            content = self.nodes.propagated_rows(self.graph, spec.layers, chosen)[0][0]
            views = self.views()
            final = content
            if given:
                picked = [torch.cat([u.index_select(0, user), i.index_select(0, item)]) for u, i in views]
                mask = self.mask.index_select(0, chosen)
                side = self.side(content, torch.stack(picked, 1), mask)
                final = content + side
            u, i, j = (final.index_select(0, at) for at in (at_user, at_i + len(user), at_j + len(user)))
            loss = bpr_loss(u, i, j) + spec.reg * squares(u, i, j)
            if not given or not spec.contrast:
                return loss
            n_item = torch.bincount(at_i, minlength=len(item))
            count = torch.cat([n_user, n_item]).to(content.dtype) * mask.any(1)
            of_user, of_item = torch.arange(len(user)), len(user) + torch.nonzero(n_item).ravel()
            for at in (of_user.to(users.device), of_item):
                if spec.contrast_rows is not None and len(at) > spec.contrast_rows:
                    at = at[torch.randperm(len(at), device=at.device)[: spec.contrast_rows]]
                a, b, weight = (x.index_select(0, at) for x in (side, content, count))
                loss = loss + spec.contrast * info_nce(a, b, weight, spec.temperature)
            return loss

    return Network()
