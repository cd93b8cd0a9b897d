"""Typing of single values: times known by hand, ids, numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionrec.data import clean
from fusionrec.errors import DataRejected

KEY = bytes(32)
NOON = datetime(2026, 3, 29, 12, 0, tzinfo=UTC)  # 1774785600


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-29T12:00:00Z", NOON),
        ("2026-03-29 12:00:00", NOON),
        ("2026-03-29T12:00", NOON),
        ("2026-03-29T14:00:00+02:00", NOON),
        ("2026-03-29T06:30:00-0530", NOON),
        ("2026-03-29 12:00:00 UTC", NOON),
        ("1774785600", NOON),
        ("1774785600000", NOON),
        ("1774785600000000", NOON),
        ("1774785600000000000", NOON),
        ("1774785600.5", NOON + timedelta(milliseconds=500)),
        ("2026-03-29T12:00:00.25Z", NOON + timedelta(milliseconds=250)),
        ("2026-03-29", NOON - timedelta(hours=12)),
        ("2026-03-29T12:00:00.123456789Z", NOON + timedelta(microseconds=123456)),
        ("2026", datetime(2026, 1, 1, tzinfo=UTC)),
        ("1998.0", datetime(1998, 1, 1, tzinfo=UTC)),
        ("20260329", NOON - timedelta(hours=12)),
        ("20260230", datetime(1970, 8, 23, 11, 50, 30, tzinfo=UTC)),  # no day: seconds, which the gate calls too early
        ("29/03/2026", None),
        ("2026-02-30", None),
        ("2026-03-29T25:00:00", None),
        ("2026-03-29T12:00:00+99:00", None),
        ("soon", None),
        ("", None),
        ("1e400", None),
        ("99999999999999999999999", None),
    ],
)
def test_times_known_by_hand(text: str, expected: datetime | None) -> None:
    assert clean.moments(pl.Series([text])).to_list() == [expected]


@pytest.mark.parametrize("unit", [1, 1_000, 1_000_000])
@pytest.mark.parametrize("dtype", [pl.Int64, pl.Float64])
def test_epoch_numbers_by_magnitude(unit: int, dtype: pl.DataType) -> None:
    assert clean.moments(pl.Series([1774785600 * unit], dtype=dtype)).to_list() == [NOON]


def test_summer_time_and_typed_columns() -> None:
    berlin = pl.Series([datetime(2026, 3, 29, 14, 0)]).dt.replace_time_zone("Europe/Berlin")  # the day the clock jumps
    assert clean.moments(berlin).to_list() == [NOON]
    assert clean.moments(pl.Series([datetime(2026, 3, 29, 12, 0)])).to_list() == [NOON]
    assert clean.moments(pl.Series([NOON.date()])).to_list() == [NOON - timedelta(hours=12)]


moment = st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1))


@given(st.lists(st.tuples(moment, st.integers(-23 * 60, 23 * 60)), min_size=1, max_size=9))
def test_mixed_zones_agree_with_the_standard_library(pairs: list[tuple[datetime, int]]) -> None:
    zoned = [at.replace(tzinfo=timezone(timedelta(minutes=offset))) for at, offset in pairs]
    found = clean.moments(pl.Series([z.isoformat() for z in zoned])).to_list()
    assert found == [z.astimezone(UTC) for z in zoned]


def _items(**columns: list[object]) -> tuple[pl.DataFrame, pl.DataFrame]:
    return clean.typed(pl.DataFrame(columns), "items", "items.csv", KEY)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ("a\0b", "control_characters"),
        ("tab\tbed", "control_characters"),
        ("", "empty_id"),
        ("   ", "empty_id"),
        (None, "empty_id"),
        ("x" * 513, "long_id"),
        ("é" * 257, "long_id"),
        ("a\ufffdb", "invalid_unicode"),
        ("line\u2028two", "control_characters"),
    ],
)
def test_hostile_ids_are_set_aside_with_a_code(raw: str | None, code: str) -> None:
    good, bad = _items(item_id=["fine", raw])
    assert good["item_id"].to_list() == ["fine"]
    assert bad["code"].to_list() == [code]
    assert all(ch.isprintable() for ch in bad["found"][0] + bad["key"][0])


@pytest.mark.parametrize("good_id", ["שלום", "👩‍👩‍👧", "=cmd()", "<b>", "a b", "x" * 512, "..", "😀"])
def test_unusual_ids_stay(good_id: str) -> None:
    assert _items(item_id=[good_id])[0]["item_id"].to_list() == [good_id]


def test_blank_ids_that_need_not_be_there_are_none() -> None:
    columns = {"user_id": ["u", "u"], "item_id": ["a", "b"], "event": ["click"] * 2, "impression_id": ["", " "]}
    good, bad = clean.typed(pl.DataFrame(columns), "interactions", "log.csv", KEY)
    assert good["impression_id"].to_list() == [None, None] and bad.is_empty()
    asked = pl.DataFrame({"query_id": ["q", "r"], "text": ["mug", "cup"], "user_id": ["", "  "]})
    assert clean.typed(asked, "queries", "queries.csv", KEY)[0]["user_id"].to_list() == [None, None]


def test_ids_are_normalised_numbers_become_text_and_case_counts() -> None:
    assert _items(item_id=["e\u0301", "E\u0301"])[0]["item_id"].to_list() == ["é", "É"]
    assert _items(item_id=[1, 20])[0]["item_id"].to_list() == ["1", "20"]
    assert _items(item_id=[1.0, 20.0])[0]["item_id"].to_list() == ["1", "20"]
    with pytest.raises(DataRejected, match="'item_id' holds Float64"):
        _items(item_id=[1.5, 2.0])


def test_numbers_booleans_tags_and_languages() -> None:
    good, bad = _items(
        item_id=["a", "b", "c", "d"],
        price=["1.5", " 2 ", "", "inf"],
        in_stock=["yes", "FALSE", "0", None],
        tags=["x|y", " z ", "|", None],
        language=["English", "zh-CN", "Klingon", None],
    )
    assert bad.select("key", "code", "found").rows() == [("d", "not_a_number", "inf")]
    assert good.select("price", "in_stock", "tags", "language").rows() == [
        (1.5, True, ["x", "y"], "en"),
        (2.0, False, ["z"], "zh-CN"),
        (None, False, None, "Klingon"),
    ]


def test_nan_from_pandas_is_a_missing_number() -> None:
    good, bad = _items(item_id=["a", "b"], price=[float("nan"), 2.0])
    assert good["price"].to_list() == [None, 2.0]
    assert bad.height == 0


def test_a_bad_user_id_is_never_repeated() -> None:
    frame = pl.DataFrame({"user_id": ["secret\0name", "u"], "item_id": ["i", "i"], "event": ["click", "click"]})
    _, bad = clean.typed(frame, "interactions", "interactions.csv", KEY)
    assert bad["found"].to_list() == ["11 characters"]
    assert "secret" not in str(bad.rows())


@given(st.lists(st.text(max_size=30), min_size=1, max_size=8))
def test_any_text_is_either_kept_as_it_is_or_accounted_for(texts: list[str]) -> None:
    texts = [t.encode("utf-8", "replace").decode() for t in texts]
    good, bad = _items(item_id=[f"i{n}" for n in range(len(texts))], title=texts)
    assert bad.height == 0
    assert good["title"].to_list() == [t or None for t in texts]
