"""Concatenation (C1): the blocks side by side, then a linear map if an output width is asked for.

With an output width, an absent modality is replaced by a vector learnt for its absence (it starts at zero); with the
natural width, the sum of the D_m, its block is zero and the others are scaled by sqrt(M / present), so that the norm
does not fall with absence. Cost per item: sum(D_m) D multiplications, none with the natural width.
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

        from fusionrec.fusion.tokens import blocks, root_of_present

        names, natural = sorted(dims), sum(dims.values())

        class ConcatFusion(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.dim = natural if dim is None else dim
                self.project = None if dim is None else nn.Linear(natural, dim)
                if self.project is not None:
                    nn.init.orthogonal_(self.project.weight)  # distances survive until learning changes them
                    # Added after the map: an item that lacks a modality teaches its absence, not its map.
                    self.absent = nn.Parameter(torch.zeros(len(names), self.dim))

            def forward(self, x: dict[str, Tensor], mask: Tensor) -> Tensor:
                joined = torch.cat(blocks(x, mask, dims), dim=1)
                if self.project is None:
                    return joined * (len(names) ** 0.5 / root_of_present(mask))
                return self.project(joined) + (~mask).to(self.absent.dtype) @ self.absent

        return ConcatFusion()
