"""BPR-MF (D1): matrix factorisation by pairwise ranking.

Rendle et al., "BPR: Bayesian personalized ranking from implicit feedback", UAI 2009, arXiv:1205.2618.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import PositiveInt
from scipy import sparse

from fusionrec.fusion.base import FusionSpec
from fusionrec.recommenders.base import Retriever, RetrieverSpec
from fusionrec.recommenders.embedded import EmbeddedRetriever, Prefer
from fusionrec.recommenders.training import Training
from fusionrec.types import ItemSet

if TYPE_CHECKING:
    from torch import Tensor, nn


class BPR(RetrieverSpec):
    """``kind: bpr``."""

    kind: Literal["bpr"] = "bpr"
    space: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "dim": (32, 64, 128),
        "training.lr": (1e-3, 3e-3, 1e-2, 3e-2),
        "training.weight_decay": (0.0, 1e-6, 1e-5, 1e-4),
    }
    dim: PositiveInt = 64
    training: Training = Training(epochs=60, batch=2048, lr=1e-2, weight_decay=1e-5)

    def build(self, fusion: FusionSpec | None = None) -> Retriever:
        return BPRRetriever(self)


class BPRRetriever(EmbeddedRetriever):
    """Score = user vector . item vector + item bias. Users it was not trained on get the mean user vector."""

    def _network(self, pairs: sparse.csr_matrix, items: ItemSet, prefer: Prefer) -> nn.Module:
        return network(self.spec, pairs.shape)


def network(spec: BPR, shape: tuple[int, int]) -> nn.Module:
    """The network of :class:`BPR`; the bias is a further number of an item's vector, and 1 of a user's."""
    import torch
    from torch import nn

    from fusionrec.recommenders.propagation import bpr_loss

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.user, self.item = (nn.Parameter(torch.randn(n, spec.dim) * 0.05) for n in shape)
            self.bias = nn.Parameter(torch.zeros(shape[1], 1))

        def vectors(self) -> tuple[Tensor, Tensor]:
            ones = torch.ones(len(self.user), 1, device=self.bias.device)
            return torch.cat([self.user, ones], 1), torch.cat([self.item, self.bias], 1)

        def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
            u = self.user.index_select(0, users)
            u = torch.cat([u, torch.ones_like(u[:, :1])], 1)
            i, j = (
                torch.cat([self.item.index_select(0, at), self.bias.index_select(0, at)], 1)
                for at in (positives, negatives)
            )
            return bpr_loss(u, i, j)

    return Network()
