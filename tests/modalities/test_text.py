"""Text: what is joined, what is hashed, which language."""

from __future__ import annotations

import hashlib
import unicodedata
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fusionrec.encoders.efficientnet_lite0 import EfficientNetLite0
from fusionrec.errors import ConfigError
from fusionrec.modalities.base import clean
from fusionrec.modalities.text import Text, script, subtag

ITEMS = pl.DataFrame(
    {
        "item_id": ["a", "b", "c", "d", "e"],
        "title": ["  Oak\tlamp ", None, "花瓶", " \u200b ", "Lampe"],
        "description": ["Warm\n\nlight", "这是一只 IKEA 杯子", None, "", "für den Tisch"],
        "tags": [["red", None, "big"], None, [], ["x"], ["y"]],
        "language": [None, None, "zh-Hans-CN", "en", "DE"],
    }
)


def test_fields_are_cleaned_joined_and_hashed_exactly():
    modality = Text().build()
    rows = modality.rows(ITEMS, Path())
    assert modality.load(0) == "Oak lamp\nWarm light"
    assert rows.present.tolist() == [True, True, True, False, True]
    assert rows.content[0] == hashlib.sha256(b"Oak lamp\nWarm light").hexdigest() and rows.content[3] == ""


def test_the_column_decides_the_language_and_the_script_where_it_is_empty():
    rows = Text().build().rows(ITEMS, Path())
    names = [rows.group_names[g] for g in rows.group]
    assert rows.group_names == ("de", "en", "zh")
    assert [n for n, p in zip(names, rows.present) if p] == ["en", "zh", "zh", "de"]
    without = Text(language=None).build().rows(ITEMS, Path())
    assert [without.group_names[g] for g in without.group[[0, 1, 2, 4]]] == ["en", "zh", "zh", "en"]


def test_lists_and_other_columns_can_be_fields():
    modality = Text(fields=("title", "tags")).build()
    rows = modality.rows(ITEMS, Path())
    assert modality.load(0) == "Oak lamp\nred, big" and rows.present.tolist() == [True, False, True, True, True]


def test_a_misspelt_field_is_named_and_a_default_field_may_lack():
    with pytest.raises(ConfigError, match="no column 'titel'; did you mean 'title'"):
        Text(fields=("titel", "description")).build().rows(ITEMS, Path())
    assert Text().build().rows(ITEMS.drop("description"), Path()).present.tolist() == [True, False, True, False, True]
    with pytest.raises(ConfigError, match="no column 'title'"):
        Text().build().rows(ITEMS.select("item_id", "tags"), Path())


def test_an_encoder_of_pictures_is_refused():
    with pytest.raises(ValidationError, match="reads image, expected one that reads text"):
        Text(encoder=EfficientNetLite0())


def test_a_long_text_is_cut_and_both_forms_of_an_accent_are_one_text():
    long = pl.DataFrame({"item_id": ["a", "b"], "title": ["é" * 50, unicodedata.normalize("NFD", "é" * 50)]})
    rows = (modality := Text(max_chars=7).build()).rows(long, Path())
    assert modality.load(0) == "é" * 7 and rows.content[0] == rows.content[1]


@pytest.mark.parametrize(
    "text, name",
    [("a vase", "en"), ("花瓶", "zh"), ("ガラスの瓶", "zh"), ("Apple 手机壳", "zh"), ("Ваза", "other"), ("1", "other")],
)
def test_script(text, name):
    assert script(text) == name


@pytest.mark.parametrize("tag, name", [("zh-CN", "zh"), ("EN_us", "en"), (None, ""), (" ", ""), ("fr", "fr")])
def test_subtag(tag, name):
    assert subtag(tag) == name


@given(st.text())
def test_cleaning_is_idempotent_and_leaves_no_control_characters(text):
    once = clean(text)
    assert clean(once) == once
    assert not any(unicodedata.category(c) == "Cc" for c in once) and once == once.strip()
