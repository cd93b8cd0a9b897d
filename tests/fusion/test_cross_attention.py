"""Worked by hand: f_a = (1, 0), f_b = (0, ln 3); W_ab = 1, W_ba swaps the two numbers.

b aligned to a: W f_a = (1, 0), the rows of W f_a f_b^T are (0, ln 3) and (0, 0), their softmax (1/4, 3/4) and
(1/2, 1/2), times f_b: (3/4 ln 3, 1/2 ln 3). a aligned to b: W f_b = (ln 3, 0), rows (ln 3, 0) and (0, 0), times f_a:
(3/4, 1/2).
"""

from __future__ import annotations

import torch

from fusionrec.fusion.cross_attention import CrossAttention
from tests.fusion.hand import LN3, build, close, fuse

DIMS = {"a": 1, "b": 2, "c": 3}
X = {"a": [1.0], "b": [0.0, LN3], "c": [7.0, 8.0, 9.0]}
MAPS = {
    "tokens__project__0__weight": [[1.0], [0.0]],
    "tokens__project__1__weight": [[1.0, 0.0], [0.0, 1.0]],
    "align__0__1__weight": [[1.0, 0.0], [0.0, 1.0]],
    "align__1__0__weight": [[0.0, 1.0], [1.0, 0.0]],
}


def test_two_modalities_to_the_letter() -> None:
    del_c = {"a": 1, "b": 2}
    connect = [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]  # the first number of a's block, the second of b's
    module = build(CrossAttention(pieces=None), del_c, 2, connect__weight=connect, connect__bias=[0.0, 100.0], **MAPS)
    close(fuse(module, "ab", a=X["a"], b=X["b"]), 1 + 0.75 * LN3, LN3 + 0.5 + 100)
    close(fuse(module, "a", a=X["a"], b=X["b"]), 2**0.5, 100)  # nobody to gather from; sqrt(M / present)
    close(fuse(module, "", a=X["a"], b=X["b"]), 0, 100)


def test_what_is_gathered_is_the_mean_over_the_others() -> None:
    connect = [[1.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]]
    module = build(CrossAttention(pieces=None), DIMS, 2, connect__weight=connect, **MAPS)
    # f_c = 0 gives nothing, and halves the mean
    close(fuse(module, "abc", **X), 1 + 0.75 * LN3 / 2, LN3 + 0.5 / 2)
    # c absent: as before, times sqrt(3 / 2)
    close(fuse(module, "ab", **X), (1 + 0.75 * LN3) * 1.5**0.5, (LN3 + 0.5) * 1.5**0.5)


def test_pieces_are_compared_whole() -> None:
    """Two pieces of two numbers: f_a = (1, 0 | 0, 0), f_b = (sqrt(2) ln 3, 0 | 0, 5), W = 1, similarities over sqrt(2).

    The first piece of f_a: (ln 3, 0) -> 3/4 and 1/4; the second: (0, 0) -> 1/2 and 1/2.
    """
    eye = torch.eye(4).tolist()
    module = build(CrossAttention(pieces=2), {"a": 1, "b": 2}, 4, align__0__1__weight=eye)
    f = torch.tensor([[[1.0, 0.0, 0.0, 0.0], [2**0.5 * LN3, 0.0, 0.0, 5.0]]])
    with torch.no_grad():
        close(module.aligned(0, 1, f)[0], 0.75 * 2**0.5 * LN3, 1.25, 0.5 * 2**0.5 * LN3, 2.5)


def test_inside_widths_are_rounded_up_to_whole_pieces() -> None:
    module = CrossAttention(pieces=4).build(DIMS, 5)
    assert (module.tokens.width, module.dim) == (8, 5)
