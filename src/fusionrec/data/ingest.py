"""Raw tables -> canonical tables with an account of every row: read = deduplicated + quarantined + written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import polars as pl

from fusionrec.data.clean import typed
from fusionrec.data.media import Medium
from fusionrec.data.schema import (
    BESIDE,
    KEY,
    media_columns,
    ordered,
    printable,
    quarantine,
    sort_quarantine,
    tagged,
)
from fusionrec.data.sources.base import RawTables
from fusionrec.errors import DataRejected
from fusionrec.media.base import expected
from fusionrec.types import Columns as C

Look = Callable[[Sequence[str], str], list[Medium]]
"""(paths relative to the media root, their kind) -> what was found there, in order."""


@dataclass(frozen=True)
class Canonical:
    """Typed tables in written column order, the rows that fell out, and the ledger per table."""

    frames: dict[str, pl.DataFrame]
    quarantine: pl.DataFrame
    ledger: dict[str, dict[str, int]]
    notes: list[str] = field(default_factory=list)


def canonical(raw: RawTables, key: bytes, look: Look) -> Canonical:
    """Type, pseudonymise, deduplicate and hash. Pure but for ``look``, which reads media files.

    Raises DataRejected for wrong columns and for tables in which nothing usable is left.
    """
    frames: dict[str, pl.DataFrame] = {}
    ledger: dict[str, dict[str, int]] = {}
    notes: list[str] = []
    quarantined = [quarantine()]
    problems: list[str] = []
    for table in ("items", "interactions", "users", "queries"):
        source: pl.DataFrame | None = getattr(raw, table)
        if source is None:
            continue
        dropped = [c for c in source.columns if source[c].dtype.is_nested() and source[c].dtype != pl.List(pl.String)]
        notes += [f"{table}: the nested column {c!r} is left out" for c in dropped]
        if table in ("items", "interactions") and source.height == 0:
            problems.append(f"{table}: nothing to train on: the table has no rows")
            continue
        try:
            good, lines = typed(source, table, table, key)
        except DataRejected as error:
            problems.append(str(error))
            continue
        unique = good.select(ordered(table, good.columns)).unique(maintain_order=False)
        repeated = good.height - unique.height
        if table in KEY:
            unique, conflicts = one_per_key(unique, KEY[table])
            lines = pl.concat([lines, conflicts])
        unique, media = with_media(unique, table, look)
        frames[table] = sort_rows(unique.select(ordered(table, unique.columns)), table)
        for part, row in ((lines, True), (media, False)):
            quarantined.append(tagged(part, table, "ingest", row))
        ledger[table] = {
            "read": source.height,
            "deduplicated": repeated,
            "quarantined": lines.height,
            "written": unique.height,
        }
        if table in ("items", "interactions") and unique.height == 0:
            codes = ", ".join(sorted(set(lines["code"])))
            problems.append(f"{table}: nothing to train on: all {source.height} rows are unusable ({codes})")
    if problems:
        raise DataRejected("\n".join(problems))
    return Canonical(frames, sort_quarantine(pl.concat(quarantined)), ledger, notes)


def one_per_key(frame: pl.DataFrame, column: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Of rows that share an id keep the one with the most filled cells, then the smallest as JSON text.

    The rule looks at contents alone, so the order of the input does not matter.
    """
    shared = frame.filter(pl.col(column).is_duplicated())
    if shared.height == 0:
        return frame, _no_lines()
    ranked = shared.with_columns(
        __filled=pl.sum_horizontal([pl.col(c).is_not_null().cast(pl.Int32) for c in frame.columns]),
        __text=pl.struct(frame.columns).struct.json_encode(),
    ).sort(column, "__filled", "__text", descending=[False, True, False])
    first = ranked[column].is_first_distinct()
    kept, lost = ranked.filter(first).select(frame.columns), ranked.filter(~first)
    lines = lost.select(
        pl.col(column).alias("key"),
        pl.lit("conflicting_duplicate").alias("code"),
        pl.lit(column).alias("column"),
        pl.lit("another row with this id and other content").alias("found"),
        pl.lit("one row for each id").alias("expected"),
    )
    return pl.concat([frame.filter(~pl.col(column).is_duplicated()), kept]), lines


def _no_lines() -> pl.DataFrame:
    return pl.DataFrame(schema=dict.fromkeys(("key", "code", "column", "found", "expected"), pl.String))


def with_media(frame: pl.DataFrame, table: str, look: Look) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Add ``<kind>_sha256``, ``<kind>_format`` and ``<kind>_fault`` beside the media columns of a table with a key.

    An unsafe path is removed and never opened; a missing file keeps its path with a null hash. Both are reported per
    cell. What has bytes that do not decode keeps them and the reason: the gate decides."""
    lines: list[dict[str, object]] = []
    for column, kind in media_columns(table, frame.columns).items():
        if KEY.get(table) not in frame.columns:
            continue
        many = frame[column].dtype == pl.List
        paths = [[p for p in (cell if many else [cell]) or [] if p is not None] for cell in frame[column].to_list()]
        found = iter(look([path for cell in paths for path in cell], kind))
        cells: list[list[tuple[str, Medium]]] = []
        for key, cell in zip(frame[KEY[table]].to_list(), paths, strict=True):
            kept: list[tuple[str, Medium]] = []
            for path in cell:
                medium = next(found)
                if medium.code is not None:
                    line = {"key": key, "code": medium.code, "column": column, "found": printable(path)}
                    element = len(kept) if many else None
                    lines.append({**line, "expected": expected(medium.code), "element": element})
                if medium.code != "unsafe_path":
                    kept.append((path, medium))
            cells.append(kept)
        columns = {column: [[path for path, _ in kept] for kept in cells]}
        columns |= {f"{kind}_{name}": [[getattr(m, name) for _, m in kept] for kept in cells] for name in BESIDE}
        shape = (lambda values: values or None) if many else (lambda values: values[0] if values else None)
        dtype = pl.List(pl.String) if many else pl.String
        frame = frame.with_columns(
            [pl.Series(name, [shape(v) for v in values], dtype=dtype) for name, values in columns.items()]
        )
    schema = {**dict.fromkeys(("key", "code", "column", "found", "expected"), pl.String), "element": pl.Int32}
    return frame, pl.DataFrame(lines, schema=schema)


def sort_rows(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    """A total order: the key for tables with one, else time first and then every column."""
    if table in KEY:
        return frame.sort(KEY[table])
    first = [c for c in (C.TIME, C.USER, C.ITEM, C.EVENT) if c in frame.columns]
    return frame.sort(*first, *[c for c in frame.columns if c not in first], nulls_last=False)
