"""Worked by hand: a = (3) is mapped to (6, 4), b = (4, 5) stays as it is."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from fusionrec.fusion.weighted import Weighted
from tests.fusion.hand import LN3, build, close, fuse

DIMS = {"a": 1, "b": 2}
MAPS = {
    "tokens__project__0__weight": [[2.0], [1.0]],
    "tokens__project__0__bias": [0.0, 1.0],
    "tokens__project__1__weight": [[1.0, 0.0], [0.0, 1.0]],
}
X = {"a": [3.0], "b": [4.0, 5.0]}


def test_the_average_is_a_softmax_among_what_is_present() -> None:
    module = build(Weighted(), DIMS, 2, logits=[0.0, LN3], **MAPS)
    # 1/4 (6, 4) + 3/4 (4, 5), times sqrt(2 present)
    close(fuse(module, "ab", **X), 4.5 * 2**0.5, 4.75 * 2**0.5)
    close(fuse(module, "a", **X), 6, 4)
    close(fuse(module, "b", **X), 4, 5)
    close(fuse(module, "", **X), 0, 0)


def test_the_additive_form_takes_coefficients_as_given_or_learns_them_from_one() -> None:
    spec = Weighted(weights={"a": 2.0, "b": None})
    start = dict(spec.build(DIMS, 2).named_parameters())
    assert {n: (p.detach().item(), p.requires_grad) for n, p in start.items() if n.startswith("coefficient")} == {
        "coefficient.0": (2.0, False),
        "coefficient.1": (1.0, True),
    }
    module = build(spec, DIMS, 2, coefficient__0=[2.0], coefficient__1=[0.5], **MAPS)
    close(fuse(module, "ab", **X), 2 * 6 + 0.5 * 4, 2 * 4 + 0.5 * 5)
    close(fuse(module, "b", **X), 0.5 * 4, 0.5 * 5)


def test_only_null_coefficients_learn() -> None:
    torch.manual_seed(0)
    module = Weighted(weights={"a": 2.0, "b": None}).build(DIMS, 2)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.1, weight_decay=1e-2)
    module({n: torch.tensor([v]) for n, v in X.items()}, torch.tensor([[True, True]])).square().sum().backward()
    optimiser.step()
    assert module.coefficient[0].item() == 2.0
    assert module.coefficient[1].item() != 1.0


def test_coefficients_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no coefficient for \['b'\], found \['a', 'bb'\]"):
        Weighted(weights={"a": 2.0, "bb": 1.0}).build(DIMS, 2)
    Weighted(weights={"a": 2.0, "b": 1.0, "c": 3.0}).build(DIMS, 2)  # a variant of a model that knows no c
    with pytest.raises(ValidationError, match="finite"):
        Weighted(weights={"a": float("nan")})
