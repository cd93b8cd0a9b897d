"""What fusions share: the blocks of an item without its absent modalities, and tokens: every block in one space.

Fusions import this file inside ``build``, because it imports torch. Legend: B batch, M modalities in the sorted
order of their names, D width of the common space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

Map = Literal["linear", "mlp"]


def blocks(x: Mapping[str, Tensor], mask: Tensor, dims: Mapping[str, int]) -> list[Tensor]:
    """The (B, D_m) blocks in the order of the mask's columns; absent rows are zero before anything is computed.

    ``torch.where`` and not a product: NaN * 0 is NaN, in the result and in the gradient.

    Raises ValueError where modalities, shapes or the type of the mask differ from what the module was built for.
    """
    names = sorted(dims)
    if sorted(x) != names:
        raise ValueError(f"built for the modalities {names}, got {sorted(x)}: pass every one, and mask what is absent")
    if mask.dtype != torch.bool or mask.ndim != 2 or mask.shape[1] != len(names):
        raise ValueError(
            f"the mask is {mask.dtype} {tuple(mask.shape)}, expected bool (batch, {len(names)}): a column for {names}"
        )
    for name in names:
        if x[name].shape != (len(mask), dims[name]):
            raise ValueError(f"{name!r} is {tuple(x[name].shape)}, expected ({len(mask)}, {dims[name]})")
    return [torch.where(mask[:, c, None], x[m], torch.zeros_like(x[m])) for c, m in enumerate(names)]


class Bent(nn.Module):
    """A straight line and a bend: P x + V relu(U x + u) + p, a perceptron with a linear path beside it.

    V starts at zero, so the map starts as the linear one, which keeps distances, and bends as far as it helps.
    """

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.straight = nn.Linear(width_in, width_out)
        self.inner = nn.Linear(width_in, width_out)
        self.outer = nn.Linear(width_out, width_out, bias=False)
        nn.init.orthogonal_(self.straight.weight)
        nn.init.zeros_(self.outer.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.straight(x) + self.outer(torch.relu(self.inner(x)))


class Tokens(nn.Module):
    """Each modality mapped to D numbers: ``(x, mask)`` -> (B, M, D), zero where absent.

    The maps start orthogonal: distances within a modality survive until learning changes them. They are numbered by
    the mask's column, here and wherever a fusion has parameters of one modality (the contract test reads the names).
    """

    def __init__(self, dims: Mapping[str, int], width: int, kind: Map = "linear") -> None:
        super().__init__()
        self.dims, self.width = dict(dims), width
        if kind == "mlp":
            self.project = nn.ModuleList([Bent(dims[m], width) for m in sorted(dims)])
        else:
            self.project = nn.ModuleList([nn.Linear(dims[m], width) for m in sorted(dims)])
            for linear in self.project:
                nn.init.orthogonal_(linear.weight)

    def forward(self, x: Mapping[str, Tensor], mask: Tensor) -> Tensor:
        mapped = [project(block) for project, block in zip(self.project, blocks(x, mask, self.dims), strict=True)]
        v_BMD = torch.stack(mapped, dim=1)
        return v_BMD * mask[..., None]  # finite by now; what is left of an absent modality is its bias


def softmax_present(logits: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis among what is present (``mask`` broadcasts); zeros where nothing is.

    In float32 at least: half precision has no number low enough for "never".
    """
    logits = at_least_float32(logits)
    lowest = torch.finfo(logits.dtype).min
    return torch.softmax(logits.masked_fill(~mask, lowest), dim=-1) * mask


def pool(v_BMD: Tensor, mask: Tensor) -> Tensor:
    """The sum over the present tokens divided by the root of their number, (B, D); zero where none is present.

    For vectors that point in unrelated directions this keeps the length, whether one modality is present or all.
    """
    return (v_BMD * mask[..., None]).sum(1) / root_of_present(mask)


def root_of_present(mask: Tensor) -> Tensor:
    """(B, 1) float32: the square root of the number of present modalities, at least 1."""
    return torch.sqrt(mask.sum(1, keepdim=True).clamp(min=1).to(torch.float32))


def side_by_side(v_BMD: Tensor, mask: Tensor) -> Tensor:
    """(B, M D): tokens joined, zero where absent, times sqrt(M / present): length does not fall with absence."""
    joined = (v_BMD * mask[..., None]).flatten(1)
    return joined * (mask.shape[1] ** 0.5 / root_of_present(mask))


def at_least_float32(value: Tensor) -> Tensor:
    return value.to(torch.promote_types(value.dtype, torch.float32))
