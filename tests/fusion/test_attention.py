"""Worked by hand: v_a = (2, 0), v_b = (0, 2); K = 1, Q = diag(s, 0) with s = ln 3 / sqrt(2).

s_aa = (Q v_a).(K v_a) / sqrt(2) = 4 s / sqrt(2) = 2 ln 3, s_ba = 0: the mean similarity to v_a is ln 3, to v_b it is 0.
"""

from __future__ import annotations

from fusionrec.fusion.attention import Attention
from tests.fusion.hand import LN3, build, close, fuse

DIMS = {"a": 1, "b": 2, "c": 3}
X = {"a": [1.0], "b": [0.0, 2.0], "c": [7.0, 8.0, 9.0]}


def test_weights_follow_the_similarity_between_modality_vectors() -> None:
    module = build(
        Attention(),
        DIMS,
        2,
        tokens__project__0__weight=[[2.0], [0.0]],
        tokens__project__1__weight=[[1.0, 0.0], [0.0, 1.0]],
        query__weight=[[LN3 / 2**0.5, 0.0], [0.0, 0.0]],
        key__weight=[[1.0, 0.0], [0.0, 1.0]],
    )
    # alpha = 3/4, beta = 1/4; times sqrt(2 present)
    close(fuse(module, "ab", **X), 0.75 * 2 * 2**0.5, 0.25 * 2 * 2**0.5)
    close(fuse(module, "a", **X), 2, 0)
    # v_c = 0: the mean of the three is (2/3, 2/3), the similarities 2/3 ln 3, 0, 0
    alpha = 3 ** (2 / 3)
    close(fuse(module, "abc", **X), *(v * 2 * 3**0.5 / (alpha + 2) for v in (alpha, 1)))
