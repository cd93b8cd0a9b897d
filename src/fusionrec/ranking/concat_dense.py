"""All fields concatenated, one dense layer, dropout, a sigmoid: the plainest network that reads everything (D12, recipe
a). Cost of a row: F D hidden."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from fusionrec.ranking.deep import DeepSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


class ConcatDense(DeepSpec):
    """``kind: concat_dense``."""

    kind: Literal["concat_dense"] = "concat_dense"
    hidden: tuple[PositiveInt, ...] = Field((128,), min_length=1)
    dropout: float = Field(0.2, ge=0, lt=1)

    def interaction(self, wide: int) -> nn.Module:
        from torch import nn

        from fusionrec.ranking.layers import dense

        spec = self

        class Mix(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.deep = dense(wide, spec.hidden, spec.dropout)
                self.width = spec.hidden[-1]

            def forward(self, vectors: Tensor, flat: Tensor) -> Tensor:
                out: Tensor = self.deep(flat)
                return out

        return Mix()
