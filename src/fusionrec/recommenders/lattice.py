"""LATTICE (D4): an item graph that is learnt together with the recommender.

Zhang et al., "Mining latent structures for multimedia recommendation", ACM MM 2021, arXiv:2104.09036.
Per modality the kNN graph of the raw features, S_m, and of the mapped ones W_m f_m, K_m (edges weigh the cosine).
S = kept x sum_m a_m S_m + (1 - kept) x normalised(sum_m a_m K_m), a = softmax of one weight a modality (over those that
the item has). Item = LightGCN item + S x / |S x|. Loss = BPR + reg x half the squares of the batch's vectors / B.
As in the paper K is found anew once an epoch; gradients reach W and a through the epoch's first batch, and the graph
then stands. Here it is never dense: neighbours are found in blocks of rows, and only their cosines are kept; finding
them still takes items^2 x (dim + log) steps an epoch, hence ``max_items``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt
from scipy import sparse

from fusionrec.fusion.base import FusionSpec
from fusionrec.recommenders.base import Retriever, RetrieverSpec
from fusionrec.recommenders.embedded import BENCHMARK, EmbeddedRetriever, Prefer, features_of
from fusionrec.recommenders.graph import bipartite, nearest, neighbours
from fusionrec.recommenders.training import Training
from fusionrec.types import ItemSet

if TYPE_CHECKING:
    from torch import Tensor, nn


class LATTICE(RetrieverSpec):
    """``kind: lattice``."""

    kind: Literal["lattice"] = "lattice"
    space: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "reg": (0.0, 1e-5, 1e-4, 1e-3),
        "training.lr": (1e-4, 5e-4, 1e-3, 5e-3),
    }
    dim: PositiveInt = 64
    layers: PositiveInt = Field(2, description="of the user-item graph")
    item_layers: PositiveInt = Field(1, description="passes over the item graph")
    neighbours: PositiveInt = Field(10, description="edges of an item and modality, that to itself included")
    kept: float = Field(0.9, ge=0, le=1, description="share of the raw features' graph; the rest is learnt")
    reg: float = Field(1e-4, ge=0, description="weight of the squares of the batch's final vectors")
    tune_features: bool = Field(
        True, description="modality vectors are a start that training moves, as in the benchmark"
    )
    training: Training = BENCHMARK.model_copy(update={"decay": 0.96 ** (1 / 50)})

    def build(self, fusion: FusionSpec | None = None) -> Retriever:
        return LATTICERetriever(self)


class LATTICERetriever(EmbeddedRetriever):
    """For small catalogues: every epoch compares all items with each other."""

    max_items = 50_000

    def _network(self, pairs: sparse.csr_matrix, items: ItemSet, prefer: Prefer) -> nn.Module:
        return network(self.spec, pairs, items)


def network(spec: LATTICE, pairs: sparse.csr_matrix, items: ItemSet) -> nn.Module:
    """The network of :class:`LATTICE` over the binary (U, I) ``pairs``."""
    import torch
    from torch import nn

    from fusionrec.recommenders.propagation import Features, Nodes, Product, bpr_loss, rows, squares

    given = features_of(items)
    n_items = pairs.shape[1]

    def _moved(module: Any, _: Any) -> None:
        module.moved = True  # the best epoch's weights have other neighbours than the last one's

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.nodes = Nodes(pairs.shape, spec.dim)
            self.graph = Product(bipartite(pairs), symmetric=True)
            self.features = Features(given, spec.dim, spec.tune_features)
            self.raw = nn.ModuleDict({m: Product(neighbours(*given[m], spec.neighbours, weighted=True)) for m in given})
            self.weight = nn.Parameter(torch.full((len(given),), 1 / max(len(given), 1)))
            held = torch.from_numpy(np.stack([here for _, here in given.values()], 1)) if given else None
            self.register_buffer("mask", held, persistent=False)
            self.near: dict[str, Tensor] = {}  # modality -> (P, K) neighbours of the P items that have it
            self.fixed: nn.Module | None = None  # the whole item graph, between two epochs' first batches
            self.moved = True  # whether the weights have changed since ``near`` was found
            self.register_load_state_dict_post_hook(_moved)

        def start_epoch(self, rng: np.random.Generator) -> None:
            self.fixed = None

        def mapped(self, name: str) -> Tensor:
            """Unit vectors (P, D) of the items that have the modality."""
            here = torch.nonzero(self.features.here(name)).ravel()
            return nn.functional.normalize(self.features.mapped(name, here)[0], dim=1)

        def find(self) -> None:
            """Look for the neighbours, unless nothing has changed."""
            if self.moved:
                with torch.no_grad():
                    found = {m: nearest(self.mapped(m).cpu().numpy(), spec.neighbours)[0] for m in given}
                self.near = {m: torch.from_numpy(at).to(self.weight.device) for m, at in found.items()}
                self.moved = False

        def shares(self) -> Tensor:
            """a (I, M): zero for an item without any modality."""
            score = self.weight.expand(n_items, -1).masked_fill(~self.mask, -1e9)
            return torch.softmax(score, 1) * self.mask

        def learnt(self) -> tuple[Tensor, Tensor, Tensor]:
            """Edges of normalised(sum_m a_m K_m): sources, targets (E,) and weights (E,), differentiable."""
            shares, parts = self.shares(), []
            for column, name in enumerate(given):
                unit, near = self.mapped(name), self.near[name]
                here = torch.nonzero(self.features.here(name)).ravel()
                others = unit.index_select(0, near.ravel()).view(
                    *near.shape, -1
                )  # its gradient is summed in a fixed order
                cosine = (unit[:, None] * others).sum(-1).clamp(min=0)
                source = here[:, None].expand_as(near)
                parts.append(
                    (
                        source.ravel(),
                        here[near].ravel(),
                        (cosine * shares[:, column].index_select(0, here)[:, None]).ravel(),
                    )
                )
            source, target, weight = (torch.cat(part) for part in zip(*parts, strict=True))
            degree = torch.zeros(n_items, device=weight.device).index_add(0, source, weight)
            scale = torch.where(degree > 0, degree.clamp(min=1e-12).rsqrt(), torch.zeros_like(degree))
            return source, target, weight * scale.index_select(0, source) * scale.index_select(0, target)

        def alike(self) -> Tensor:
            """S x (I, D); with gradients to the graph where it is being learnt, else through the fixed one."""
            h = self.nodes.item
            if self.fixed is not None:
                for _ in range(spec.item_layers):
                    h = self.fixed(h)
                return h
            self.find()
            shares, (source, target, weight) = self.shares(), self.learnt()
            for _ in range(spec.item_layers):
                raw = sum(shares[:, [c]] * self.raw[m](h) for c, m in enumerate(given))
                new = torch.zeros_like(h).index_add(0, source, weight[:, None] * h.index_select(0, target))
                h = spec.kept * raw + (1 - spec.kept) * new
            return h

        def fix(self) -> None:
            """Make one matrix of the graph as it is."""
            with torch.no_grad():
                shares = self.shares().cpu().numpy()
                source, target, weight = (part.cpu().numpy() for part in self.learnt())
            whole = (1 - spec.kept) * sparse.csr_matrix((weight, (source, target)), shape=(n_items, n_items))
            for column, name in enumerate(given):
                part = self.raw[name]
                arrays = (part.weight.cpu().numpy(), part.column.cpu().numpy(), part.start.cpu().numpy())
                graph = sparse.csr_matrix(arrays, shape=(n_items, n_items))
                whole = whole + spec.kept * sparse.diags(shares[:, column]) @ graph
            self.fixed = Product(whole.tocsr()).to(self.weight.device)

        def items(self, item: Tensor) -> Tensor:
            return item + nn.functional.normalize(self.alike(), dim=1) if given else item

        def vectors(self) -> tuple[Tensor, Tensor]:
            self.fixed = None  # the weights have moved since the epoch began
            user, item = self.nodes.split(self.nodes.propagated(self.graph, spec.layers))
            return user, self.items(item)

        def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
            first = bool(given) and self.fixed is None
            at = (users, positives + self.nodes.n_users, negatives + self.nodes.n_users)
            u, i, j = self.nodes.propagated_rows(self.graph, spec.layers, *at)[0].unbind()
            if given:
                h_i, h_j = rows(self.alike(), positives, negatives)
                i, j = (x + nn.functional.normalize(h, dim=1) for x, h in ((i, h_i), (j, h_j)))
            if first:
                self.fix()
            self.moved = True
            return bpr_loss(u, i, j) + spec.reg * squares(u, i, j)

    return Network()
