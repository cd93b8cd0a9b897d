"""Concatenation (C1): the blocks side by side, then an optional linear map.

With an output width, an absent block is replaced by a vector learnt for its absence; with the natural
width it is zero and the others are scaled by sqrt(M / present), so that the norm does not fall with absence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from fusionrec.fusion.base import FusionSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


class Concat(FusionSpec):
    """``kind: concat``."""

    kind: Literal["concat"] = "concat"

    def build(self, dims: Mapping[str, int], dim: int | None) -> nn.Module:
        import torch
        from torch import nn

        names, natural = sorted(dims), sum(dims.values())

        class ConcatFusion(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.dim = natural if dim is None else dim
                self.project = None if dim is None else nn.Linear(natural, dim)
                if self.project is not None:
                    nn.init.orthogonal_(self.project.weight)  # distances survive until learning changes them
                self.absent = (
                    None if dim is None else nn.ParameterList([nn.Parameter(torch.zeros(dims[m])) for m in names])
                )

            def forward(self, x: dict[str, Tensor], mask: Tensor) -> Tensor:
                blocks = []
                for column, name in enumerate(names):
                    here = mask[:, column, None]
                    blank = torch.zeros_like(x[name]) if self.absent is None else self.absent[column].expand_as(x[name])
                    blocks.append(torch.where(here, x[name], blank))
                joined = torch.cat(blocks, dim=1)
                if self.project is not None:
                    return self.project(joined)
                count = mask.sum(1, keepdim=True).clamp(min=1).to(joined.dtype)
                return joined * torch.sqrt(len(names) / count)

        return ConcatFusion()
