"""Raw tables -> typed canonical rows, and a quarantine line for every row that cannot be used.

A single bad value costs its row; a column where more than half of the values do not parse is the wrong column, and is
refused at once. Times: ISO 8601 with or without zone (without: UTC), or epoch numbers, whose unit follows from the
magnitude of each value: below 1e11 seconds, 1e14 milliseconds, 1e17 microseconds, else nanoseconds. 2019 is a year and
20190131 a day: as seconds both lie in 1970."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl

from fusionrec.data import languages
from fusionrec.data.schema import REQUIRED, TABLES, TIME, printable
from fusionrec.errors import DataRejected
from fusionrec.privacy.pseudonyms import pseudonymise
from fusionrec.types import Columns as C

MAX_ID_BYTES = 512
WRONG_COLUMN_SHARE = 0.5
EXPECTED = {
    "id": f"1 to {MAX_ID_BYTES} bytes of UTF-8 without control characters",
    "number": "a finite number",
    "integer": "a whole number below 2^31",
    "boolean": "true or false",
    "time": "ISO 8601 (2026-01-31T12:00:00Z) or an epoch number",
    "text": "a text",
    "tags": "a text with tags separated by |",
    "paths": "file paths separated by |",
    "path": "a file path",
}
CODES = {"number": "not_a_number", "integer": "not_an_integer", "boolean": "not_a_boolean", "time": "not_a_timestamp"}
TRUE, FALSE = ["true", "t", "yes", "y", "1", "1.0"], ["false", "f", "no", "n", "0", "0.0"]
YEARS = (1800, 2199)
"""Whole numbers that are years, and with four digits more days."""
ISO = (
    r"^(\d{4}-\d{2}-\d{2})(?:[Tt ](\d{2}:\d{2})(:\d{2})?(?:[.,](\d{1,9}))?)?"  # day, hour and minute, second, fraction
    r"\s*(?:[Zz]|UTC|GMT|([+-])(\d{2}):?(\d{2})?)?$"  # zone
)


def typed(frame: pl.DataFrame, table: str, file: str, key: bytes) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Parse every contract column; -> the usable rows, and the unusable ones as ``key, code, column, found, expected``.

    Raises DataRejected naming file, column, found and expected where a column has the wrong type altogether.
    """
    out: dict[str, pl.Series] = {}
    codes: dict[str, pl.Series] = {}
    problems: list[str] = []
    for name, kind in TABLES[table].items():
        if name not in frame.columns:
            continue
        raw = frame[name]
        try:
            value = _as_type(raw, kind)
        except pl.exceptions.PolarsError:
            problems.append(f"{file}: column {name!r} holds {raw.dtype}, expected {EXPECTED[kind]}")
            continue
        code = _code(raw, value, name, kind, name in REQUIRED[table])
        filled = len(raw) - raw.null_count()
        failed = int((code.is_not_null() & raw.is_not_null()).sum()) if kind in CODES else 0
        if filled and failed > WRONG_COLUMN_SHARE * filled:
            example = printable(raw.filter(code.is_not_null() & raw.is_not_null())[0], 40)
            problems.append(
                f"{file}: column {name!r}: {failed} of {filled} values do not parse; "
                f"found e.g. {example!r}, expected {EXPECTED[kind]}"
            )
        out[name], codes[name] = languages.coded(value) if name == C.LANGUAGE else value, code
    if problems:
        raise DataRejected("\n".join(problems))
    parsed = pl.DataFrame({**out, **_attributes(frame, table)}, height=frame.height)
    found = parsed.with_columns(_found(frame, codes))
    if C.USER in out:
        found = found.with_columns(pseudonymise(out[C.USER], key))
    bad = found.filter(pl.col("__code").is_not_null())
    good = found.filter(pl.col("__code").is_null()).drop("__code", "__column", "__found")
    return good, _lines(bad, table)


def _attributes(frame: pl.DataFrame, table: str) -> dict[str, pl.Series]:
    """Columns the contract does not name: String, Int64, Float64 or Boolean; nested and binary ones are left out."""
    out = {}
    for name in frame.columns:
        series = frame[name]
        if name in TABLES[table] or series.dtype.is_nested() or series.dtype == pl.Binary or name.startswith("__"):
            continue
        if series.dtype.is_integer():
            out[name] = series.cast(pl.Int64, strict=False)
        elif series.dtype.is_float() or series.dtype.is_decimal():
            out[name] = series.cast(pl.Float64).fill_nan(None)
        elif series.dtype == pl.Boolean:
            out[name] = series
        else:
            out[name] = series.cast(pl.String)
    return out


def _as_type(raw: pl.Series, kind: str) -> pl.Series:
    """The parsed values; what does not parse is null. Raises a polars error for an impossible type."""
    if kind == "id":
        return identifiers(raw)
    if kind in ("text", "path"):
        if raw.dtype.is_nested() or raw.dtype == pl.Binary:
            raise pl.exceptions.InvalidOperationError("nested")
        text = raw.cast(pl.String)
        return text.set(text == "", None)
    if kind in ("tags", "paths"):
        return _listed(raw)
    if kind == "time":
        return moments(raw)
    if kind == "boolean":
        return _booleans(raw)
    number = _numbers(raw)
    if kind == "integer":
        whole = number.set((number != number.round()) | (number.abs() >= 2**31), None)
        return whole.cast(pl.Int32, strict=False)
    return number


def _code(raw: pl.Series, value: pl.Series, name: str, kind: str, required: bool) -> pl.Series:
    """Why a cell is unusable, or null."""
    frame = pl.DataFrame({"raw": raw, "value": value})
    filled = pl.col("raw").is_not_null()
    if raw.dtype == pl.String:
        filled = filled & (pl.col("raw").str.strip_chars() != "")
    elif raw.dtype.is_float():
        filled = filled & pl.col("raw").is_not_nan()
    rule: pl.Expr
    if kind == "id":
        rule = (
            pl.when(pl.col("value").is_null())
            .then(pl.lit("empty_id") if required else None)
            .when(pl.col("value").str.len_bytes() > MAX_ID_BYTES)
            .then(pl.lit("long_id"))
            .when(pl.col("value").str.contains(r"\p{Cc}|[\u2028\u2029]"))
            .then(pl.lit("control_characters"))
            .when(pl.col("value").str.contains("\ufffd", literal=True))
            .then(pl.lit("invalid_unicode"))
        )
    elif kind in CODES:
        rule = pl.when(filled & pl.col("value").is_null()).then(pl.lit(CODES[kind]))
    elif required:
        rule = pl.when(pl.col("value").is_null()).then(pl.lit(f"missing_{name}"))
    else:
        return pl.Series("code", [None], dtype=pl.String).new_from_index(0, len(raw))
    return frame.select(rule.cast(pl.String).alias("code")).to_series()


def identifiers(raw: pl.Series) -> pl.Series:
    """Ids as NFC strings, blank ones null; whole numbers in a float column (a nullable integer from pandas) lose their
    ``.0``."""
    if raw.dtype.is_float():
        whole = raw.fill_nan(None)
        if ((whole != whole.round()) | (whole.abs() > 2**53)).any():
            raise pl.exceptions.InvalidOperationError("fractions are no ids")
        return whole.cast(pl.Int64).cast(pl.String)
    if raw.dtype.is_integer():
        return raw.cast(pl.String)
    if raw.dtype not in (pl.String, pl.Categorical, pl.Null) and not isinstance(raw.dtype, pl.Enum):
        raise pl.exceptions.InvalidOperationError("not an id")
    text = raw.cast(pl.String).str.normalize("NFC")
    return text.set(text.str.strip_chars() == "", None)


def _numbers(raw: pl.Series) -> pl.Series:
    if raw.dtype.is_nested() or raw.dtype.is_temporal() or raw.dtype == pl.Binary:
        raise pl.exceptions.InvalidOperationError("not a number")
    if raw.dtype == pl.String:
        raw = raw.str.strip_chars()
    number = raw.cast(pl.Float64, strict=False)
    return number.set(~number.is_finite(), None)


def _booleans(raw: pl.Series) -> pl.Series:
    if raw.dtype in (pl.Boolean, pl.Null):
        return raw.cast(pl.Boolean)
    if raw.dtype.is_nested() or raw.dtype.is_temporal() or raw.dtype == pl.Binary:
        raise pl.exceptions.InvalidOperationError("not a boolean")
    text = raw.cast(pl.String).str.strip_chars().str.to_lowercase()
    frame = pl.DataFrame({"t": text})
    rule = pl.when(pl.col("t").is_in(TRUE)).then(True).when(pl.col("t").is_in(FALSE)).then(False)
    return frame.select(rule.alias(raw.name)).to_series()


def _listed(raw: pl.Series) -> pl.Series:
    """A list column; a text is split at ``|``; empty elements vanish and an empty list is null."""
    if raw.dtype == pl.List:
        lists = raw.cast(pl.List(pl.String))
    elif raw.dtype.is_nested() or raw.dtype == pl.Binary:
        raise pl.exceptions.InvalidOperationError("nested")
    else:
        lists = raw.cast(pl.String).str.split("|")
    stripped = lists.list.eval(pl.element().str.strip_chars()).list.eval(pl.element().filter(pl.element() != ""))
    return stripped.set(stripped.list.len() == 0, None)


def moments(raw: pl.Series) -> pl.Series:
    """Timestamps as Datetime("us", "UTC"); null where a value is none."""
    name = raw.name
    if raw.dtype == pl.Null:
        return raw.cast(TIME)
    if raw.dtype == pl.Date:
        return raw.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if isinstance(raw.dtype, pl.Datetime):
        micros = raw.dt.cast_time_unit("us")
        return micros.dt.replace_time_zone("UTC") if raw.dtype.time_zone is None else micros.dt.convert_time_zone("UTC")
    if raw.dtype.is_nested() or raw.dtype in (pl.Binary, pl.Boolean) or raw.dtype.is_temporal():
        raise pl.exceptions.InvalidOperationError("not a time")
    if raw.dtype.is_numeric():
        return _epoch(raw).rename(name)
    text = raw.cast(pl.String).str.strip_chars()
    part = pl.DataFrame({"t": text}).select(
        *[pl.col("t").str.extract(ISO, i).alias(str(i)) for i in range(1, 8)],
        pl.col("t"),
    )
    clock = pl.col("2").fill_null("00:00") + pl.col("3").fill_null(":00")
    local = (pl.col("1") + pl.lit("T") + clock).str.to_datetime("%Y-%m-%dT%H:%M:%S", time_unit="us", strict=False)
    fraction = pl.col("4").fill_null("0").str.pad_end(6, "0").str.slice(0, 6).cast(pl.Int64)
    hours, minutes = pl.col("6").cast(pl.Int64).fill_null(0), pl.col("7").cast(pl.Int64).fill_null(0)
    sign = pl.when(pl.col("5") == "-").then(-1).otherwise(1)
    valid = (hours <= 23) & (minutes <= 59)
    shift = pl.duration(microseconds=fraction) - pl.duration(minutes=sign * (hours * 60 + minutes))
    utc = pl.when(valid).then(local + shift).dt.replace_time_zone("UTC").cast(TIME)
    iso = part.select(utc.alias(name)).to_series()
    numeric = text.str.contains(r"^-?\d{1,19}(\.\d+)?$")
    if numeric.any():
        numbers = _epoch(
            text.set(~numeric, None).cast(pl.Float64, strict=False)
            if text.str.contains(".", literal=True).any()
            else text.set(~numeric, None).cast(pl.Int64, strict=False)
        )
        iso = pl.DataFrame({"a": iso, "b": numbers}).select(pl.coalesce("a", "b").alias(name)).to_series()
    return iso


def _epoch(raw: pl.Series) -> pl.Series:
    """Epoch numbers -> UTC; the unit by magnitude, value by value."""
    frame = pl.DataFrame({"n": raw})
    if raw.dtype.is_float():
        frame = frame.with_columns(
            pl.when(pl.col("n").is_finite() & (pl.col("n").abs() < 9e18)).then(pl.col("n")).alias("n")
        )
    size = pl.col("n").cast(pl.Float64).abs()
    digits = pl.col("n").cast(pl.Int64, strict=False).cast(pl.String)
    day = (
        pl.when(size.is_between(*YEARS) & (size == size.floor()))
        .then(digits + "0101")
        .when(size.is_between(YEARS[0] * 10_000, YEARS[1] * 10_000 + 1231) & (size == size.floor()))
        .then(digits)
        .str.to_datetime("%Y%m%d", time_unit="us", strict=False)
    )
    micros = (
        pl.when(size < 1e11)
        .then(pl.col("n") * 1_000_000)
        .when(size < 1e14)
        .then(pl.col("n") * 1_000)
        .when(size < 1e17)
        .then(pl.col("n"))
        .otherwise(pl.col("n") // 1_000)
    )
    if raw.dtype.is_float():
        micros = micros.round()
    else:
        frame = frame.with_columns(pl.col("n").cast(pl.Int64, strict=False))
    moment = pl.coalesce(day, micros.cast(pl.Int64, strict=False).cast(pl.Datetime("us")))
    return frame.select(moment.dt.replace_time_zone("UTC")).to_series()


def _found(frame: pl.DataFrame, codes: dict[str, pl.Series]) -> list[pl.Series]:
    """Per row the first broken column: ``__code``, ``__column``, ``__found``; nulls where the row is fine.

    What stood in a user id is never repeated: raw ids appear nowhere.
    """
    code = pl.Series("__code", [None], dtype=pl.String).new_from_index(0, frame.height)
    column, found = code.rename("__column"), code.rename("__found")
    for name, new in codes.items():
        first = new.is_not_null() & code.is_null()
        rows = first.arg_true()
        if len(rows) == 0:
            continue
        values = frame[name].gather(rows).to_list()
        shown = [
            ("nothing" if v is None else f"{len(str(v))} characters")
            if name == C.USER
            else printable("" if v is None else v)
            for v in values
        ]
        code = code.scatter(rows, new.gather(rows))
        column = column.scatter(rows, pl.Series([name] * len(rows)))
        found = found.scatter(rows, pl.Series(shown))
    return [code.rename("__code"), column.rename("__column"), found.rename("__found")]


def _lines(bad: pl.DataFrame, table: str) -> pl.DataFrame:
    """Quarantine lines (without table and stage) of the unusable rows."""
    from fusionrec.data.schema import row_key

    columns: dict[str, Any] = {**dict.fromkeys((C.USER, C.ITEM, C.QUERY, C.EVENT), pl.String), C.TIME: TIME}
    keyed = bad.with_columns([pl.lit(None, dtype=t).alias(c) for c, t in columns.items() if c not in bad.columns])
    keys = [
        printable(k or "", 600) for k in keyed.select(row_key(table, keyed.columns).alias("key")).to_series().to_list()
    ]
    return bad.select(
        pl.Series("key", keys, dtype=pl.String),
        pl.col("__code").alias("code"),
        pl.col("__column").alias("column"),
        pl.col("__found").alias("found"),
        pl.col("__column")
        .replace_strict({c: EXPECTED[k] for c, k in TABLES[table].items()}, default="")
        .alias("expected"),
    )


def inferred(series: pl.Series) -> pl.Series:
    """A CSV attribute column as Int64, Float64 or Boolean where every value reads as one without loss, else String."""
    filled = series.drop_nulls()
    if len(filled) == 0:
        return series
    tests: list[tuple[str, Callable[[pl.Series], pl.Series]]] = [
        (r"^(0|-?[1-9]\d{0,17})$", lambda s: s.cast(pl.Int64)),
        (r"^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d{1,2})?$", lambda s: s.cast(pl.Float64)),
        (r"^(?i:true|false)$", lambda s: s.str.to_lowercase() == "true"),
    ]
    for pattern, convert in tests:
        if filled.str.contains(pattern).all():
            return convert(series)
    return series
