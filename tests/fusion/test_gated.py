"""Worked by hand: the experts make (6, 4) of a = (3) and (4, 5) of b = (4, 5)."""

from __future__ import annotations

from fusionrec.fusion.gated import Gated
from tests.fusion.hand import LN3, build, close, fuse

DIMS = {"a": 1, "b": 2}
X = {"a": [3.0], "b": [4.0, 5.0]}
EXPERTS = {
    "experts__project__0__weight": [[2.0], [1.0]],
    "experts__project__0__bias": [0.0, 1.0],
    "experts__project__1__weight": [[1.0, 0.0], [0.0, 1.0]],
}


def test_the_gate_sees_the_contents_and_weighs_the_experts() -> None:
    # logits (0, 3 ln 3 / 3): 1/4 and 3/4, times sqrt(2 present)
    gate = {"gate__weight": [[0.0, 0.0, 0.0], [LN3 / 3, 0.0, 0.0]]}
    module = build(Gated(expert="linear"), DIMS, 2, **gate, **EXPERTS)
    close(fuse(module, "ab", **X), 4.5 * 2**0.5, 4.75 * 2**0.5)
    close(fuse(module, "b", **X), 4, 5)
    close(fuse(module, "a", **X), 6, 4)
    close(fuse(module, "", **X), 0, 0)
    # another a, another gate: a = (-3) is mapped to (-6, -2), logits (0, -ln 3): 3/4 and 1/4
    close(fuse(module, "ab", a=[-3.0], b=[4.0, 5.0]), -3.5 * 2**0.5, -0.25 * 2**0.5)


def test_an_expert_may_bend() -> None:
    """relu(U x + u) = relu(3, -2) = (3, 0), V relu = (3, 6), together (9, 10)."""
    module = build(
        Gated(),
        DIMS,
        2,
        experts__project__0__straight__weight=[[2.0], [1.0]],
        experts__project__0__straight__bias=[0.0, 1.0],
        experts__project__0__inner__weight=[[1.0], [-1.0]],
        experts__project__0__inner__bias=[0.0, 1.0],
        experts__project__0__outer__weight=[[1.0, 5.0], [2.0, 7.0]],
    )
    close(fuse(module, "a", **X), 9, 10)
