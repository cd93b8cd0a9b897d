"""Cross-modal attention alignment (C6): every modality gathers from every other what resembles it.

For each ordered pair of present modalities f_i, f_j in one space: f_j aligned to f_i is softmax(W_ij f_i f_j^T) f_j.
With one vector a modality, the softmax runs over the numbers of f_j, or over ``pieces`` of it: both vectors are cut
into T pieces of c = D / T numbers, and the (T, T) similarities are divided by sqrt(c) (arXiv:1706.03762); T = D is the
formula to the letter. Then additive: f_i plus the mean of what was aligned to it; concat: these side by side, zero
where absent and scaled by sqrt(M / present); fully connected: one linear layer to the output width.
Cost per item: (sum(D_m) + M (M - 1) (D + 2 T) + M D') D multiplications, and M (M - 1) T T numbers of memory while
training: that is why T is small by default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from fusionrec.fusion.base import FusionSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


class CrossAttention(FusionSpec):
    """``kind: cross_attention``."""

    kind: Literal["cross_attention"] = "cross_attention"
    pieces: PositiveInt | None = Field(8, description="pieces a vector is cut into; null: every number is one")

    def build(self, dims: Mapping[str, int], dim: int | None) -> nn.Module:
        """The natural width is the widest modality's; inside, widths are rounded up to a multiple of ``pieces``."""
        import torch
        from torch import nn

        from fusionrec.fusion.tokens import Tokens, at_least_float32, side_by_side

        m_all, out = len(dims), max(dims.values()) if dim is None else dim
        cut = self.pieces or out
        width = -(-out // cut) * cut
        size = width // cut

        class CrossAttentionFusion(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.dim = out
                self.tokens = Tokens(dims, width)
                self.align = nn.ModuleList(  # align.i.j; the diagonal has no parameters
                    nn.ModuleList(
                        nn.Identity() if i == j else nn.Linear(width, width, bias=False) for j in range(m_all)
                    )
                    for i in range(m_all)
                )
                self.connect = nn.Linear(m_all * width, out)
                for linear in (*(p for row in self.align for p in row if isinstance(p, nn.Linear)), self.connect):
                    nn.init.orthogonal_(linear.weight)  # distances survive, and pieces are told apart from the start

            def aligned(self, i: int, j: int, f_BMD: Tensor) -> Tensor:
                """(B, D): what of modality j resembles modality i."""
                query_BTC = self.align[i][j](f_BMD[:, i]).unflatten(-1, (cut, size))
                piece_BTC = f_BMD[:, j].unflatten(-1, (cut, size))
                weight_BTT = torch.softmax(at_least_float32(query_BTC @ piece_BTC.transpose(1, 2) / size**0.5), dim=-1)
                return (weight_BTT.to(piece_BTC.dtype) @ piece_BTC).flatten(1)

            def forward(self, x: dict[str, Tensor], mask: Tensor) -> Tensor:
                f_BMD = self.tokens(x, mask)
                others = (mask.sum(1, keepdim=True) - 1).clamp(min=1)
                rows = []
                for i in range(m_all):
                    gathered = torch.zeros_like(f_BMD[:, i])
                    for j in range(m_all):
                        if i != j:
                            gathered = gathered + self.aligned(i, j, f_BMD)  # of an absent j: zero
                    rows.append(f_BMD[:, i] + gathered / others)
                return self.connect(side_by_side(torch.stack(rows, dim=1), mask))

        return CrossAttentionFusion()
