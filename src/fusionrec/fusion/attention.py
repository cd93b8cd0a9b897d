"""Attention weights from the similarity between an item's own modality vectors (C4).

Each present modality is mapped to one space, v_m. The weight of modality m is how similar it is to the item's other
vectors: with s_ij = (Q v_i) . (K v_j) / sqrt(D), alpha_j = softmax_j(mean_i s_ij) over the present modalities, for two
of them the pair alpha, beta. The mean over i is taken on the queries, which is the same and needs no M x M products
(scaled dot-product attention, arXiv:1706.03762). The result is sum_j alpha_j v_j, times sqrt(present) so that its
length does not depend on how many there are. Cost per item: (sum(D_m) + (M + 1) D) D multiplications.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from fusionrec.fusion.base import FusionSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


class Attention(FusionSpec):
    """``kind: attention``."""

    kind: Literal["attention"] = "attention"

    def build(self, dims: Mapping[str, int], dim: int | None) -> nn.Module:
        from torch import nn

        from fusionrec.fusion.tokens import Tokens, root_of_present, softmax_present

        width = max(dims.values()) if dim is None else dim

        class AttentionFusion(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.dim = width
                self.tokens = Tokens(dims, width)
                # torch's default is small: the weights start near equal, and differ where that helps
                self.query, self.key = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)

            def weights(self, v_BMD: Tensor, mask: Tensor) -> Tensor:
                """alpha (B, M), each row with anything present sums to 1."""
                count = mask.sum(1, keepdim=True).clamp(min=1)
                query_BD = self.query(v_BMD.sum(1) / count)
                similarity_BM = (self.key(v_BMD) * query_BD[:, None]).sum(-1) / width**0.5
                return softmax_present(similarity_BM, mask)

            def forward(self, x: dict[str, Tensor], mask: Tensor) -> Tensor:
                v_BMD = self.tokens(x, mask)
                return (self.weights(v_BMD, mask)[..., None] * v_BMD).sum(1) * root_of_present(mask)

        return AttentionFusion()
