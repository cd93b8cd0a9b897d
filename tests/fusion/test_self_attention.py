"""Worked by hand: queries, keys, values are the tokens; X_b = 0, so that X_b.X_j = 0 and only X_a is heard."""

from __future__ import annotations

import pytest

from fusionrec.fusion.self_attention import SelfAttention
from tests.fusion.hand import LN3, build, close, fuse

DIMS = {"a": 1, "b": 2, "c": 3}
ONE = [[1.0, 0.0], [0.0, 1.0]]
P = LN3**0.5  # P P = ln 3
Q = 1.9459101490553132**0.5  # Q Q = ln 7


def test_tokens_hear_each_other_by_similarity() -> None:
    s = (2**0.5 * LN3) ** 0.5  # X_a = (s, 0): X_a.X_a / sqrt(2) = ln 3
    maps = {"tokens__project__0__weight": [[s], [0.0]], "query__weight": ONE, "key__weight": ONE}
    module = build(SelfAttention(), DIMS, 2, value__weight=[[1.0, 0.0], [2.0, 0.0]], **maps)
    x = {"a": [1.0], "b": [4.0, 5.0], "c": [7.0, 8.0, 9.0]}
    # V X_a = (s, 2 s). X_a hears itself with 3/4, X_b hears X_a with 1/2; the sum over sqrt(2).
    close(fuse(module, "ab", **x), 1.25 * s / 2**0.5, 1.25 * 2 * s / 2**0.5)
    close(fuse(module, "a", **x), s, 2 * s)
    # with X_c = 0: 3/5 and twice 1/3
    close(fuse(module, "abc", **x), (0.6 + 2 / 3) * s / 3**0.5, (0.6 + 2 / 3) * 2 * s / 3**0.5)


def test_heads_listen_each_on_its_own() -> None:
    maps = {"query__weight": ONE, "key__weight": ONE, "value__weight": ONE}
    module = build(SelfAttention(heads=2), DIMS, 2, tokens__project__0__weight=[[P], [Q]], **maps)
    # head 1: ln 3 against 0, head 2: ln 7 against 0
    found = fuse(module, "ac", a=[1.0], b=[4.0, 5.0], c=[7.0, 8.0, 9.0])
    close(found, (3 / 4 + 1 / 2) * P / 2**0.5, (7 / 8 + 1 / 2) * Q / 2**0.5)


def test_a_width_that_heads_do_not_divide() -> None:
    with pytest.raises(ValueError, match="a width of 3 cannot be cut into 2 heads"):
        SelfAttention(heads=2).build(DIMS, 3)
    assert SelfAttention(heads=2).build({"a": 5, "b": 2}, None).dim == 6  # the natural width is rounded up
