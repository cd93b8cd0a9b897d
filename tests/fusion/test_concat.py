"""Worked by hand: a = (3), b = (4, 5)."""

from __future__ import annotations

from fusionrec.fusion.concat import Concat
from tests.fusion.hand import build, close, fuse

DIMS = {"a": 1, "b": 2}


def test_natural_width_is_the_blocks_side_by_side() -> None:
    module = build(Concat(), DIMS, None)
    close(fuse(module, "ab", a=[3.0], b=[4.0, 5.0]), 3, 4, 5)
    close(fuse(module, "b", a=[3.0], b=[4.0, 5.0]), 0, 4 * 2**0.5, 5 * 2**0.5)  # sqrt(M / present) = sqrt(2)
    close(fuse(module, "", a=[3.0], b=[4.0, 5.0]), 0, 0, 0)


def test_a_width_maps_the_blocks_and_adds_what_absence_is_worth() -> None:
    module = build(
        Concat(),
        DIMS,
        2,
        project__weight=[[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]],
        project__bias=[10.0, 20.0],
        absent=[[100.0, 200.0], [300.0, 400.0]],
    )
    close(fuse(module, "ab", a=[3.0], b=[4.0, 5.0]), 3 + 2 * 5 + 10, 4 - 5 + 20)
    close(fuse(module, "a", a=[3.0], b=[4.0, 5.0]), 3 + 10 + 300, 20 + 400)
    close(fuse(module, "", a=[3.0], b=[4.0, 5.0]), 10 + 100 + 300, 20 + 200 + 400)
