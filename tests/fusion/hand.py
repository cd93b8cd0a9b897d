"""Fusions with weights set by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fusionrec.fusion.base import FusionSpec

LN3 = 1.0986122886681098  # softmax of (ln 3, 0) is (3/4, 1/4)


def build(spec: FusionSpec, dims: dict[str, int], dim: int | None, **weights: Any) -> nn.Module:
    """The module with these parameters (``__`` stands for a dot) and with zeros in all others."""
    module = spec.build(dims, dim).eval()
    given = {name.replace("__", "."): value for name, value in weights.items()}
    assert not set(given) - {n for n, _ in module.named_parameters()}, sorted(n for n, _ in module.named_parameters())
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            value = torch.tensor(given.get(name, 0.0))
            assert name not in given or value.shape == parameter.shape, name
            parameter.copy_(value.expand_as(parameter))
    return module


def fuse(module: nn.Module, present: str, **values: list[float]) -> torch.Tensor:
    """The vector of one item; ``present`` holds the letters of the modalities that it has, the others are NaN."""
    x = {n: torch.tensor([v]) if n in present else torch.full((1, len(v)), torch.nan) for n, v in values.items()}
    with torch.no_grad():
        return module(x, torch.tensor([[n in present for n in sorted(values)]]))[0]


def close(found: torch.Tensor, *expected: float) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), rtol=1e-5, atol=1e-6)
