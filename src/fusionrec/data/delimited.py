"""Delimited text files -> tables of strings: encodings, separators and quotes as exports really have them.

A quote that nobody closed must not swallow the rows behind it. Tab-separated exports seldom quote at all, so there a
quote counts as one only where it encloses a whole cell, or where lines would not fit the header without (RFC 4180 for
the rest).
"""

from __future__ import annotations

import csv
from pathlib import Path

import polars as pl

from fusionrec.data.schema import printable
from fusionrec.errors import DataRejected

BLOCK = 1 << 20
MOST_BROKEN, FEW_BROKEN = 0.01, 3
"""A file is of another encoding where more than this share of its lines, and more lines than this, are not UTF-8; the
bytes of fewer become U+FFFD and cost their cells."""
QUOTED = r'(?s)^"(?:[^"]|"")*"$'


def read(path: Path, separator: str | None = None) -> pl.DataFrame:
    """All cells as strings, empty ones null, names stripped. ``separator``: else the comma, tab or semicolon that the
    header has most of.

    Raises DataRejected for an empty file, another encoding than UTF-8, and rows that do not fit the header, with the
    line where it can be told.
    """
    with open(path, "rb") as file:
        head = file.read(65536)
    if not head.strip():
        raise DataRejected(f"{path.name} is empty: nothing to train on; expected a header line and rows")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataRejected(f"{path.name}: found UTF-16, expected UTF-8; save it as UTF-8")
    first = head.splitlines()[0]
    separator = separator or max((",", "\t", ";"), key=lambda s: first.count(s.encode()))
    quotes = _look_through(path)
    frame = _parsed(path, separator, quotes)
    return frame.rename({c: c.strip() for c in frame.columns})


def _look_through(path: Path) -> bool:
    """Whether the file holds a quote. Raises DataRejected where it is not UTF-8."""
    quotes, broken, first, lines = False, 0, 0, 0
    with open(path, "rb") as file:
        rest = b""
        while block := file.read(BLOCK):
            whole, end, rest = (rest + block).rpartition(b"\n")
            quotes, whole = quotes or b'"' in whole or b'"' in rest, whole + end
            broken, first, lines = _count(whole, broken, first, lines)
        broken, first, lines = _count(rest, broken, first, lines)
    if broken > max(FEW_BROKEN, MOST_BROKEN * lines):
        raise DataRejected(
            f"{path.name}: {broken:,} of {lines:,} lines hold bytes that are not UTF-8 (the first is line {first}); "
            "save it as UTF-8 (spreadsheets call it CSV UTF-8)"
        )
    return quotes


def _count(block: bytes, broken: int, first: int, lines: int) -> tuple[int, int, int]:
    """The lines that are not UTF-8, the first of them and all lines, with those of a block."""
    try:
        block.decode("utf-8")
    except UnicodeDecodeError:
        for at, line in enumerate(block.splitlines(), lines + 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                broken, first = broken + 1, first or at
    return broken, first, lines + block.count(b"\n") + (not block.endswith(b"\n") and bool(block))


def _parsed(path: Path, separator: str, quotes: bool) -> pl.DataFrame:
    plain = quotes and separator == "\t" and _fits(path, separator)
    try:
        frame = pl.read_csv(
            path, infer_schema=False, encoding="utf8-lossy", separator=separator, glob=False,
            quote_char=None if plain else '"',
        )  # fmt: skip
    except pl.exceptions.PolarsError:
        if not quotes:
            raise
        return _leniently(path, separator)
    if not plain:
        return frame
    whole = pl.all().str.slice(1, pl.all().str.len_chars() - 2).str.replace_all('""', '"', literal=True)
    frame = frame.select(pl.when(pl.all().str.contains(QUOTED)).then(whole).otherwise(pl.all()).name.keep())
    frame = frame.select(pl.when(pl.all() != "").then(pl.all()).name.keep())
    return frame.rename({c: c[1:-1] for c in frame.columns if len(c) > 1 and c[0] == c[-1] == '"'})


def _fits(path: Path, separator: str) -> bool:
    """Whether every line has as many separators as the first: then no cell holds one, or a line's end."""
    with open(path, "rb") as file:
        wanted = file.readline().count(separator.encode())
        return all(line.count(separator.encode()) == wanted for line in file if line.strip())


def _leniently(path: Path, separator: str) -> pl.DataFrame:
    """With quotes in the middle of a cell as they stand (42" for inches)."""
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.reader(file, delimiter=separator)
        try:
            header = next(rows)
            cells: list[list[str]] = [[] for _ in header]
            for row in rows:
                if row and len(row) != len(header):
                    raise DataRejected(
                        f"{path.name}: the row that ends in line {rows.line_num} has {len(row)} cells, the header "
                        f"{len(header)} (it begins with {printable(separator.join(row), 60)!r}); a cell with a "
                        f"{'tab' if separator == chr(9) else repr(separator)} or a quote belongs into quotes"
                    )
                for column, cell in zip(cells, row, strict=False):
                    column.append(cell)
        except csv.Error as error:
            raise DataRejected(f"{path.name} cannot be read: line {rows.line_num}: {error}") from None
    columns = [pl.Series(name, column, pl.String) for name, column in zip(header, cells, strict=True)]
    frame = pl.DataFrame(columns)
    return frame.select(pl.when(pl.all() != "").then(pl.all()).name.keep())
