"""Weighted sum (C2): each modality is mapped to one space and summed with fixed or learnt weights.

With ``weights`` the sum is additive, e.g. ``text + 0.5 image`` (weights are used as given); without, the
weights are learnt as a softmax over the modalities that are present.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fusionrec.fusion.base import FusionSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


class Weighted(FusionSpec):
    """``kind: weighted``."""

    kind: Literal["weighted"] = "weighted"
    weights: dict[str, float] | None = Field(None, description="fixed weight of each modality; null: learnt")

    def build(self, dims: Mapping[str, int], dim: int | None) -> nn.Module:
        import torch
        from torch import nn

        names = sorted(dims)
        fixed = self.weights
        if fixed is not None:  # the modality-alone variants of a model use a part of the names
            fixed = {m: fixed.get(m, 0.0) for m in names}
        width = max(dims.values()) if dim is None else dim

        class WeightedFusion(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.dim = width
                self.project = nn.ModuleList([nn.Linear(dims[m], width) for m in names])
                for p in self.project:
                    nn.init.orthogonal_(p.weight)  # distances survive until learning changes them
                if fixed is None:
                    self.logits = nn.Parameter(torch.zeros(len(names)))
                else:
                    self.register_buffer("given", torch.tensor([fixed[m] for m in names]))

            def forward(self, x: dict[str, Tensor], mask: Tensor) -> Tensor:
                if fixed is None:
                    weight = torch.softmax(self.logits.masked_fill(~mask, -1e9), dim=1) * len(names) ** 0.5
                else:
                    weight = self.given.expand(mask.shape)
                weight = weight * mask
                parts = [
                    weight[:, [c]] * self.project[c](torch.where(mask[:, [c]], x[m], torch.zeros_like(x[m])))
                    for c, m in enumerate(names)
                ]
                return torch.stack(parts).sum(0)

        return WeightedFusion()
