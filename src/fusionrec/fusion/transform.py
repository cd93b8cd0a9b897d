"""Transform, then combine (C3): each modality goes through its own linear map or perceptron to one space.

``combine: sum`` adds the present ones and divides by sqrt(present); ``combine: concat`` lays them side by side, zero
where absent and scaled by sqrt(M / present), and maps the whole to the output width if one is asked for. The natural
width is the widest modality's D (sum) or M times it (concat). Cost per item, multiplications: linear sum(D_m) D, mlp
(2 sum(D_m) + M D) D; concat with an output width adds M D D.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fusionrec.fusion.base import FusionSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


class Transform(FusionSpec):
    """``kind: transform``."""

    kind: Literal["transform"] = "transform"
    map: Literal["linear", "mlp"] = Field("mlp", description="mlp: one hidden layer beside the linear map")
    combine: Literal["sum", "concat"] = "sum"

    def build(self, dims: Mapping[str, int], dim: int | None) -> nn.Module:
        from torch import nn

        from fusionrec.fusion.tokens import Tokens, pool, side_by_side

        kind, concat = self.map, self.combine == "concat"
        width = max(dims.values()) if dim is None else dim

        class TransformFusion(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.tokens = Tokens(dims, width, kind)
                self.join = nn.Linear(len(dims) * width, dim) if concat and dim is not None else None
                if self.join is not None:
                    nn.init.orthogonal_(self.join.weight)  # distances survive until learning changes them
                self.dim = len(dims) * width if concat and dim is None else width

            def forward(self, x: dict[str, Tensor], mask: Tensor) -> Tensor:
                v_BMD = self.tokens(x, mask)
                if not concat:
                    return pool(v_BMD, mask)
                joined = side_by_side(v_BMD, mask)
                return joined if self.join is None else self.join(joined)

        return TransformFusion()
