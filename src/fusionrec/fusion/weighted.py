"""Weighted sum (C2): each modality is mapped to one space and summed with learnt or given weights.

Without ``weights``: an average, its weights a softmax over the present modalities, times sqrt(present) so that the
length of the result does not depend on how many there are. With ``weights``: the additive form
``text + lambda image + mu rating``, each coefficient a number that stays as given or null, which is learnt from 1.
Cost per item: sum(D_m) D multiplications.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field, FiniteFloat

from fusionrec.fusion.base import FusionSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


class Weighted(FusionSpec):
    """``kind: weighted``."""

    kind: Literal["weighted"] = "weighted"
    weights: dict[str, FiniteFloat | None] | None = Field(
        None,
        description="coefficient of every modality in the sum, null: learnt from 1; without it a learnt average",
    )

    def build(self, dims: Mapping[str, int], dim: int | None) -> nn.Module:
        """Raises ValueError for a modality without a coefficient. (One that is not in ``dims`` is no mistake: the
        modality-alone variants of a model use a part of the names.)"""
        import torch
        from torch import nn

        from fusionrec.fusion.tokens import Tokens, root_of_present, softmax_present

        names, given = sorted(dims), self.weights
        forgotten = [] if given is None else [m for m in names if m not in given]
        if forgotten:
            raise ValueError(
                f"weights of the weighted fusion: no coefficient for {forgotten}, found {sorted(given or {})}; "
                "give each modality a number, 0 to leave it out, or null to have it learnt"
            )
        width = max(dims.values()) if dim is None else dim

        class WeightedFusion(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.dim = width
                self.tokens = Tokens(dims, width)
                if given is None:
                    self.logits = nn.Parameter(torch.zeros(len(names)))
                else:
                    start = {m: given[m] for m in names}
                    self.coefficient = nn.ParameterList(
                        nn.Parameter(torch.tensor([1.0 if c is None else c]), requires_grad=c is None)
                        for c in start.values()
                    )

            def weights(self, mask: Tensor) -> Tensor:
                """(B, M), zero where absent."""
                if given is not None:
                    return torch.cat(list(self.coefficient)) * mask
                return softmax_present(self.logits.expand(mask.shape), mask) * root_of_present(mask)

            def forward(self, x: dict[str, Tensor], mask: Tensor) -> Tensor:
                v_BMD = self.tokens(x, mask)
                return (self.weights(mask)[..., None] * v_BMD).sum(1)

        return WeightedFusion()
