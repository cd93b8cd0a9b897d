"""Self-attention across an item's modality tokens (C5).

Each present modality is a token X_i in one space; token i becomes sum_j softmax_j(X_i . X_j / sqrt(d)) X_j over the
present j, with learnt maps for queries, keys and values and, if asked for, several heads of width d = D / heads
(arXiv:1706.03762). The new tokens are pooled: their sum over the present ones divided by sqrt(present).
Cost per item: (sum(D_m) + 3 M D + 2 M M) D multiplications.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from fusionrec.fusion.base import FusionSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


class SelfAttention(FusionSpec):
    """``kind: self_attention``."""

    kind: Literal["self_attention"] = "self_attention"
    heads: PositiveInt = Field(1, description="attention heads; the output width must be a multiple")

    def build(self, dims: Mapping[str, int], dim: int | None) -> nn.Module:
        """The natural width is the widest modality's, rounded up to a multiple of ``heads``.

        Raises ValueError for an output width that is no multiple of ``heads``.
        """
        from torch import nn

        from fusionrec.fusion.tokens import Tokens, pool, softmax_present

        heads = self.heads
        if dim is not None and dim % heads:
            raise ValueError(f"self_attention: a width of {dim} cannot be cut into {heads} heads; use one that divides")
        width = -(-max(dims.values()) // heads) * heads if dim is None else dim

        class SelfAttentionFusion(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.dim = width
                self.tokens = Tokens(dims, width)
                self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
                for linear in (self.query, self.key, self.value):
                    nn.init.eye_(linear.weight)  # starts as the formula itself: like listens to like, itself most

            def forward(self, x: dict[str, Tensor], mask: Tensor) -> Tensor:
                v_BMD = self.tokens(x, mask)
                query, key, value = (
                    part(v_BMD).unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, heads, M, d)
                    for part in (self.query, self.key, self.value)
                )
                similarity_BHMM = query @ key.transpose(-1, -2) / (width // heads) ** 0.5
                weight_BHMM = softmax_present(similarity_BHMM, mask[:, None, None])
                heard_BMD = (weight_BHMM.to(value.dtype) @ value).transpose(1, 2).flatten(2)
                return pool(heard_BMD, mask)

        return SelfAttentionFusion()
