"""DeepFM (D7): every pair of fields by its inner product, and a deep network over all of them.

Guo et al., "DeepFM: a factorization-machine based neural network for CTR prediction", IJCAI 2017, arXiv:1703.04247. The
second order enters as its D sums over pairs (He and Chua, "Neural factorization machines", SIGIR 2017), of which FM's
single number is the plain sum; the first order is linear in the fields' vectors. Cost of a row: F D and the deep part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from fusionrec.ranking.deep import DeepSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


class DeepFM(DeepSpec):
    """``kind: deepfm``."""

    kind: Literal["deepfm"] = "deepfm"
    hidden: tuple[PositiveInt, ...] = Field((128, 64), min_length=1)
    dropout: float = Field(0.1, ge=0, lt=1)

    def interaction(self, wide: int) -> nn.Module:
        import torch
        from torch import nn

        from fusionrec.ranking.layers import dense

        spec = self

        class Mix(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.deep = dense(wide, spec.hidden, spec.dropout)
                self.first = nn.Linear(wide, 1)
                self.width = spec.hidden[-1] + spec.dim + 1

            def forward(self, vectors: Tensor, flat: Tensor) -> Tensor:
                pairs = (vectors.sum(1) ** 2 - (vectors**2).sum(1)) / 2
                return torch.cat([self.deep(flat), pairs, self.first(flat)], dim=1)

        return Mix()
