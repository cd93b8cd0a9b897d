"""VBPR (D3): matrix factorisation whose items are an id vector beside a linear map of what they look and sound like.

He, McAuley, "VBPR: visual Bayesian personalized ranking from implicit feedback", AAAI 2016, arXiv:1510.01784.
Item = [id vector, W f + b]; users have a vector of twice the width. Loss = BPR + reg x norm of the batch's vectors.
Several modalities: W f is the sum of one map each over those that the item has, times M / (how many it has), so that
a missing one does not shrink the item. An item nobody has touched gets the mean id vector beside its features.
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
from fusionrec.recommenders.training import Training
from fusionrec.types import Bool, Float32, ItemSet

if TYPE_CHECKING:
    from torch import Tensor, nn


class VBPR(RetrieverSpec):
    """``kind: vbpr``."""

    kind: Literal["vbpr"] = "vbpr"
    space: ClassVar[Mapping[str, tuple[Any, ...]]] = {"reg": (2.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)}
    dim: PositiveInt = Field(64, description="width of the id vector, and of the mapped features")
    reg: float = Field(1e-3, ge=0, description="weight of the norm of the batch's vectors")
    training: Training = BENCHMARK

    def build(self, fusion: FusionSpec | None = None) -> Retriever:
        return VBPRRetriever(self)


class VBPRRetriever(EmbeddedRetriever):
    """Scores new items by their features."""

    cold_item = True

    def _network(self, pairs: sparse.csr_matrix, items: ItemSet, prefer: Prefer) -> nn.Module:
        return network(self.spec, pairs, items)

    def _take(self, network: nn.Module, active: Bool) -> None:
        super()._take(network, active)
        self.item = network.item.detach().cpu().numpy().astype(np.float32)  # the features come with the catalogue
        self.maps = {m: w.detach().cpu().numpy().astype(np.float32) for m, w in network.maps.items()}
        self.offset = network.offset.detach().cpu().numpy().astype(np.float32)

    def _catalogue_vectors(self) -> tuple[Float32, Bool]:
        trained = self.trained(self.touched)
        mean = self.item[self.touched].mean(0, dtype=np.float64).astype(np.float32)
        ids = np.where(trained[:, None], self.item[np.where(trained, self.fit_row, 0)], mean)
        content = np.zeros((len(self.items), len(self.offset)), np.float32)
        count = np.zeros((len(self.items), 1), np.float32)
        for name, (x, present) in features_of(self.items).items():
            if name in self.maps:
                content += x @ self.maps[name]
                count += present[:, None]
        content *= len(self.maps) / np.maximum(count, 1)
        return np.concatenate([ids, content + self.offset], axis=1), trained | (count[:, 0] > 0)

    def arrays(self) -> dict[str, np.ndarray]:
        return super().arrays() | {"offset": self.offset} | {f"map/{m}": w for m, w in self.maps.items()}

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        super()._restore(arrays)
        self.offset = np.asarray(arrays["offset"], np.float32)
        self.maps = {k.removeprefix("map/"): np.asarray(v) for k, v in arrays.items() if k.startswith("map/")}


def network(spec: VBPR, pairs: sparse.csr_matrix, items: ItemSet) -> nn.Module:
    """The network of :class:`VBPR` for the binary (U, I) ``pairs``."""
    import torch
    from torch import nn

    from fusionrec.recommenders.propagation import bpr_loss, norms

    features = features_of(items)
    width = sum(x.shape[1] for x, _ in features.values())
    spread = (2 / (width + spec.dim)) ** 0.5  # Xavier normal of the one wide map that the maps are the columns of

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.user = nn.Parameter(nn.init.xavier_uniform_(torch.empty(pairs.shape[0], 2 * spec.dim)))
            self.item = nn.Parameter(nn.init.xavier_uniform_(torch.empty(pairs.shape[1], spec.dim)))
            self.offset = nn.Parameter(torch.zeros(spec.dim))
            self.maps = nn.ParameterDict(
                {m: spread * torch.randn(x.shape[1], spec.dim) for m, (x, _) in features.items()}
            )
            count = np.stack([p for _, p in features.values()]).sum(0) if features else np.zeros(len(items))
            for name, (x, _) in features.items():
                scaled = x * (len(features) / np.maximum(count, 1))[:, None]
                self.register_buffer(f"x_{name}", torch.from_numpy(scaled.astype(np.float32)), persistent=False)

        def items(self, rows: Tensor) -> Tensor:
            content = self.offset.expand(len(rows), -1)
            for name, weight in self.maps.items():
                content = torch.addmm(content, getattr(self, f"x_{name}").index_select(0, rows), weight)
            return torch.cat([nn.functional.embedding(rows, self.item), content], dim=1)

        def vectors(self) -> tuple[Tensor, Tensor]:
            return self.user, self.items(torch.arange(pairs.shape[1], device=self.user.device))

        def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
            u = nn.functional.embedding(users, self.user)
            i, j = self.items(torch.cat([positives, negatives])).view(2, len(users), -1).unbind(0)
            loss = bpr_loss(u, i, j)
            return loss + spec.reg * norms(u, i, j) if spec.reg else loss

    return Network()
