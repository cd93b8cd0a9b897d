"""Attention weights from the similarity between an item's own modality vectors (C4).

Each present modality is mapped to one space; the query is the mean of the present vectors, the weights are
softmax(q . k_m / sqrt(D)) over the present modalities (scaled dot-product attention, arXiv:1706.03762).
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
        import torch
        from torch import nn

        names = sorted(dims)
        width = max(dims.values()) if dim is None else dim

        class AttentionFusion(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.dim = width
                self.project = nn.ModuleList([nn.Linear(dims[m], width) for m in names])
                for p in self.project:
                    nn.init.orthogonal_(p.weight)  # distances survive until learning changes them
                self.query, self.key = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)

            def forward(self, x: dict[str, Tensor], mask: Tensor) -> Tensor:
                v_BMD = (
                    torch.stack(
                        [
                            p(torch.where(mask[:, [c]], x[m], torch.zeros_like(x[m])))
                            for c, (m, p) in enumerate(zip(names, self.project, strict=True))
                        ],
                        dim=1,
                    )
                    * mask[..., None]
                )
                count = mask.sum(1, keepdim=True).clamp(min=1)
                q_BD = self.query(v_BMD.sum(1) / count)
                logits_BM = (self.key(v_BMD) * q_BD[:, None]).sum(-1) / width**0.5
                weight_BM = torch.softmax(logits_BM.masked_fill(~mask, -1e9), dim=1) * mask
                return (weight_BM[..., None] * v_BMD).sum(1) * len(names) ** 0.5

        return AttentionFusion()
