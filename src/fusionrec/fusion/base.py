"""The fusion contract: several modality vectors of an item, some absent, become one vector.

``fuse(x, mask)``: ``x`` modality -> (B, D_m) float32 tensors, ``mask`` (B, M) bool in the sorted order of
the modality names; the result is (B, D). An absent modality is masked, never a silent zero: its values must
not influence the result. An item without any modality gives a finite vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fusionrec.types import Spec

if TYPE_CHECKING:
    from torch import nn


class FusionSpec(Spec):
    """Base of the fusion sections of params.yaml.

    Importing a fusion file must not import torch (the command line starts faster without it), so ``build``
    defines its network inside.
    """

    kind: Any

    def build(self, dims: Mapping[str, int], dim: int | None) -> nn.Module:
        """The module: ``dims`` modality -> D_m; ``dim`` the output width D, or None for the natural width.

        ``module(x, mask)`` as the module docstring says; ``module.dim`` is D.
        """
        raise NotImplementedError
