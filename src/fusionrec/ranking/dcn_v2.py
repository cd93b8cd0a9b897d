"""DCN-v2 (D7): cross layers x' = x0 * (W x + b) + x beside a deep network, each layer one degree of interaction more.

Wang et al., "DCN V2: improved deep & cross network", WWW 2021, arXiv:2008.13535 (the parallel structure). Cost of a
row: layers (F D)^2 and the deep part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from fusionrec.ranking.deep import DeepSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


class DCNv2(DeepSpec):
    """``kind: dcn_v2``."""

    kind: Literal["dcn_v2"] = "dcn_v2"
    layers: PositiveInt = 2
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
                self.cross = nn.ModuleList(nn.Linear(wide, wide) for _ in range(spec.layers))
                self.deep = dense(wide, spec.hidden, spec.dropout)
                self.width = wide + spec.hidden[-1]

            def forward(self, vectors: Tensor, flat: Tensor) -> Tensor:
                x = flat
                for layer in self.cross:
                    x = flat * layer(x) + x
                return torch.cat([x, self.deep(flat)], dim=1)

        return Mix()
