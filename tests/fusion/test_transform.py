"""Worked by hand: a = (3), b = (4, 5)."""

from __future__ import annotations

from fusionrec.fusion.transform import Transform
from tests.fusion.hand import build, close, fuse

DIMS = {"a": 1, "b": 2}
X = {"a": [3.0], "b": [4.0, 5.0]}
LINEAR = {
    "tokens__project__0__weight": [[2.0], [1.0]],
    "tokens__project__0__bias": [0.0, 1.0],
    "tokens__project__1__weight": [[1.0, 0.0], [0.0, 1.0]],
}
# U x + u = (3, -2), relu (3, 0), V relu = (3, 6); P x + p = (6, 4): together (9, 10). b is mapped to itself.
MLP = {
    "tokens__project__0__straight__weight": [[2.0], [1.0]],
    "tokens__project__0__straight__bias": [0.0, 1.0],
    "tokens__project__0__inner__weight": [[1.0], [-1.0]],
    "tokens__project__0__inner__bias": [0.0, 1.0],
    "tokens__project__0__outer__weight": [[1.0, 5.0], [2.0, 7.0]],
    "tokens__project__1__straight__weight": [[1.0, 0.0], [0.0, 1.0]],
}


def test_linear_and_sum() -> None:
    module = build(Transform(map="linear"), DIMS, 2, **LINEAR)
    close(fuse(module, "ab", **X), (6 + 4) / 2**0.5, (4 + 5) / 2**0.5)
    close(fuse(module, "a", **X), 6, 4)


def test_perceptron_and_sum() -> None:
    module = build(Transform(), DIMS, 2, **MLP)
    close(fuse(module, "ab", **X), (9 + 4) / 2**0.5, (10 + 5) / 2**0.5)
    close(fuse(module, "b", **X), 4, 5)
    close(fuse(module, "", **X), 0, 0)


def test_perceptron_and_concat() -> None:
    spec = Transform(combine="concat")
    natural = build(spec, DIMS, None, **MLP)
    close(fuse(natural, "ab", **X), 9, 10, 4, 5)
    close(fuse(natural, "a", **X), 9 * 2**0.5, 10 * 2**0.5, 0, 0)
    mapped = build(
        spec, DIMS, 2, join__weight=[[1.0, 0.0, 0.0, 1.0], [0.0, 2.0, 0.0, 0.0]], join__bias=[0.5, 0.0], **MLP
    )
    close(fuse(mapped, "ab", **X), 9 + 5 + 0.5, 2 * 10)
