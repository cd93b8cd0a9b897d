"""Hashed attributes: signs and bumps by hand, known numbers in order, values nearly at right angles."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fusionrec.encoders.base import Attributes
from fusionrec.encoders.hashed import Hashed, category, number, signs

S, T = 16, 41


def test_a_category_is_the_bits_of_its_hash():
    first = hashlib.blake2b(b"lamp", digest_size=64).digest()[0]
    by_hand = [1.0 if first >> (7 - bit) & 1 else -1.0 for bit in range(8)]
    assert signs("lamp", 8).tolist() == by_hand
    row = category(["lamp"], S)
    assert row[0] == 1 and row[1:9].tolist() == [b / 4 for b in by_hand] and row.shape == (1 + S,)
    assert np.linalg.norm(row[1:]) == pytest.approx(1)
    assert not category([], S).any(), "unknown: zeros, and the first of them says so"


def test_a_list_is_the_sum_of_its_values_at_the_same_length():
    both = category(["a", "b"], S)
    np.testing.assert_allclose(both[1:], (category(["a"], S) + category(["b"], S))[1:] / math.sqrt(2), rtol=1e-6)
    assert both[0] == 1
    many = category([f"tag {n}" for n in range(200)], 512)
    assert 0.7 < np.linalg.norm(many[1:]) < 1.3


def test_different_values_are_nearly_at_right_angles():
    x = np.stack([category([f"brand {n}"], 64)[1:] for n in range(300)])
    cosines = (x @ x.T)[~np.eye(300, dtype=bool)]
    assert abs(cosines.mean()) < 0.01 and cosines.std() == pytest.approx(1 / 8, rel=0.05) and cosines.max() < 0.8


def test_a_number_by_hand():
    row = number(math.e**2 - 1)  # t = 2, the centre of the thirteenth bump: (2 + 4) / .5 = 12
    assert row.shape == (2 + T,)
    np.testing.assert_allclose(row[[0, 1, 14]], [1, 0.25, 1])
    np.testing.assert_allclose(row[[13, 15]], math.exp(-0.5), rtol=1e-6)
    np.testing.assert_allclose(row[[12, 16]], math.exp(-2), rtol=1e-6)
    assert not number(None).any()
    zero, below = number(0.0), number(-(math.e - 1))  # t = 0 and -1: the ninth and the seventh bump
    assert (zero[0], zero[1], zero[2:].argmax()) == (1, 0, 8)
    assert (below[0], below[1], below[2:].argmax()) == (1, -0.125, 6)


def test_equal_ratios_of_large_numbers_are_equally_far_apart():
    def apart(a: float, b: float) -> float:
        return float(np.linalg.norm(number(a) - number(b)))

    assert apart(500, 1000) == pytest.approx(apart(50_000, 100_000), rel=0.02)
    assert apart(10, 11) < apart(10, 13) < apart(10, 20) < apart(10, 40)
    assert np.isfinite(number(1.7e308)).all() and np.isfinite(number(-1.7e308)).all()
    assert not np.array_equal(number(1e12), number(1e15)), "beyond the last bump the line tells them apart"


def test_the_width_follows_from_the_fields_and_is_kept():
    encoder = Hashed(buckets=S).build()
    out = encoder.encode([Attributes((("a",), ()), (3.0,)), Attributes(((), ("b", "c")), (None,))])
    assert out.shape == (2, 2 * (1 + S) + 2 + T) and encoder.dim == out.shape[1]
    assert out[1, 0] == 0 and out[1, 1 + S] == 1 and not out[1, 2 * (1 + S) :].any()
    with pytest.raises(ValueError, match="expected the same fields for every item"):
        encoder.encode([Attributes((("a",),), (3.0,))])


def test_the_number_of_buckets_is_part_of_the_fingerprint_and_bounded():
    assert Hashed(buckets=32).fingerprint() != Hashed().fingerprint()
    for wrong in (7, 513):
        with pytest.raises(ValidationError, match="buckets"):
            Hashed(buckets=wrong)


@given(st.lists(st.text(), max_size=5), st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)))
def test_whatever_stands_there_gives_finite_numbers(values, x):
    row = Hashed(buckets=S).build().encode([Attributes((tuple(values),), (x,))])
    assert row.shape == (1, 1 + S + 2 + T) and np.isfinite(row).all()
    assert row.any() == (bool(values) or x is not None)
