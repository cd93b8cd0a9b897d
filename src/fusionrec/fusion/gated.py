"""Mixture of experts (C8): one expert a modality, and a gate that sees all present modalities and weighs the experts.

expert_m = P_m x_m + V_m relu(U_m x_m), gate = softmax(G [x_1; ...; x_M]) over the present modalities (absent blocks are
zero), result = sum_m gate_m expert_m, times sqrt(present) so that its length does not depend on how many there are
(Jacobs et al., "Adaptive mixtures of local experts", 1991, doi:10.1162/neco.1991.3.1.79; for modalities
arXiv:1702.01992). Unlike attention, the gate need not go by similarity: it can learn that a loud picture makes the
sound irrelevant. Cost per item, multiplications: (2 sum(D_m) + M D) D + M sum(D_m).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fusionrec.fusion.base import FusionSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


class Gated(FusionSpec):
    """``kind: gated``."""

    kind: Literal["gated"] = "gated"
    expert: Literal["linear", "mlp"] = Field("mlp", description="mlp: one hidden layer beside the linear map")

    def build(self, dims: Mapping[str, int], dim: int | None) -> nn.Module:
        """The natural width is the widest modality's."""
        import torch
        from torch import nn

        from fusionrec.fusion.tokens import Tokens, blocks, root_of_present, softmax_present

        kind, width = self.expert, max(dims.values()) if dim is None else dim

        class GatedFusion(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.dim = width
                self.experts = Tokens(dims, width, kind)
                self.gate = nn.Linear(sum(dims.values()), len(dims))
                nn.init.zeros_(self.gate.weight)  # starts as the plain average of what is present
                nn.init.zeros_(self.gate.bias)

            def weights(self, x: dict[str, Tensor], mask: Tensor) -> Tensor:
                """The gate, (B, M): each row with anything present sums to 1."""
                return softmax_present(self.gate(torch.cat(blocks(x, mask, dims), dim=1)), mask)

            def forward(self, x: dict[str, Tensor], mask: Tensor) -> Tensor:
                expert_BMD = self.experts(x, mask)
                return (self.weights(x, mask)[..., None] * expert_BMD).sum(1) * root_of_present(mask)

        return GatedFusion()
