"""Tokens and BM25: known answers worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionrec.search.keyword import K1, B, Keywords
from fusionrec.search.words import tokens


@pytest.mark.parametrize(
    "text, expected",
    [
        ("A Vase, hand-made!", ["a", "vase", "hand", "made"]),
        ("马克杯", ["马", "克", "杯", "马克", "克杯"]),
        ("USB灯 2个", ["usb", "灯", "2", "个"]),
        ("ＶＡＳＥ　花", ["vase", "花"]),
        ("naïve café", ["naïve", "café"]),
        ("  ...!? ", []),
        ("", []),
        ("a_b", ["a", "b"]),
        ("दिन दान", ["दिन", "दान"]),
        ("İstanbul ISTANBUL", ["istanbul", "istanbul"]),
        ("كِتَابُ كتاب", ["كتاب", "كتاب"]),
        ("שָׁלוֹם שלום", ["שלום", "שלום"]),
        ("\u0301 x", ["x"]),
    ],
)
def test_words_for_spaced_scripts_characters_and_pairs_for_chinese(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


@given(st.text(max_size=40))
def test_any_text_has_tokens_without_spaces(text: str) -> None:
    assert all(token and not token.isspace() for token in tokens(text))
    assert tokens(text) == tokens(text.replace("\n", " "))


def test_a_vowel_sign_is_part_of_its_word() -> None:
    index = Keywords(["दिन", "दान", "İstanbul posteri", "كِتَابُ الطَّبْخ"])
    assert [int(index.scores(text).argmax()) for text in ("दिन", "दान", "istanbul", "كتاب")] == [0, 1, 2, 3]
    assert (index.scores("दिन") > 0).sum() == 1


def test_bm25_by_hand() -> None:
    """Lucene's BM25: idf = ln(1 + (N - n + .5) / (n + .5)), tf / (tf + k1 (1 - b + b length / mean length))."""
    index = Keywords(["red vase", "red red mug cup", "", "lamp"])
    lengths = np.array([2, 4, 0, 1])
    idf = math.log(1 + (4 - 2 + 0.5) / (2 + 0.5))
    wanted = [
        idf * tf / (tf + K1 * (1 - B + B * n / lengths.mean())) for tf, n in zip((1, 2), lengths[:2], strict=True)
    ]
    found = index.scores("red")
    np.testing.assert_allclose(found[:2], wanted, rtol=1e-5)
    assert found[2] == found[3] == 0
    np.testing.assert_array_equal(index.scores("red red RED"), found)


def test_unknown_words_and_empty_catalogues_score_nothing() -> None:
    assert not Keywords(["red vase", "mug"]).scores("冥想 yoga").any()
    assert not Keywords(["", ""]).scores("red").any()
    assert not Keywords(["red", ""]).scores("").any()
    assert not Keywords(["red", "", "mug"]).scores("\0 !").any()


def test_what_is_shared_is_told_without_its_parts() -> None:
    index = Keywords(["搪瓷马克杯 for camping", "vase"])
    assert index.shared("露营马克杯 camping", 0) == ["马克", "克杯", "camping"]
    assert index.shared("camping", 1) == []
