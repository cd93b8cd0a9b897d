"""Pseudonyms are keyed, stable across unicode forms, and their key is private."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionrec.errors import ConfigError
from fusionrec.paths import Paths
from fusionrec.privacy import pseudonyms

KEY = bytes(range(32))


def test_known_answer() -> None:
    expected = hmac.new(KEY, "zoë".encode(), hashlib.sha256).hexdigest()[:32]
    assert pseudonyms.pseudonym("zoe\u0308", KEY) == expected  # decomposed and composed are one user
    assert pseudonyms.pseudonym("Zoë", KEY) != expected


@given(st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=9))
def test_series_equals_one_by_one(raw: list[str | None]) -> None:
    found = pseudonyms.pseudonymise(pl.Series("user_id", raw, dtype=pl.String), KEY)
    assert found.name == "user_id"
    assert found.to_list() == [None if r is None else pseudonyms.pseudonym(r, KEY) for r in raw]


def test_another_key_gives_other_pseudonyms() -> None:
    assert pseudonyms.pseudonym("u1", KEY) != pseudonyms.pseudonym("u1", bytes(32))


def test_key_is_private_random_and_kept(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path / "home")
    before = os.umask(0)  # the widest umask there is must not matter
    try:
        first = pseudonyms.key(paths)
    finally:
        os.umask(before)
    file = paths.keys / "pseudonym.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(paths.keys.stat().st_mode) == 0o700
    assert len(first) == 32
    assert pseudonyms.key(paths) == first
    assert [p.name for p in paths.keys.iterdir()] == ["pseudonym.key"]
    assert pseudonyms.key(Paths(tmp_path, tmp_path / "other")) != first


def test_damaged_key_is_refused(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path / "home")
    paths.keys.mkdir(parents=True)
    (paths.keys / "pseudonym.key").write_bytes(b"short")
    with pytest.raises(ConfigError, match="5 bytes, expected 32"):
        pseudonyms.key(paths)
