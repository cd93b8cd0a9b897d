"""Raw tables -> canonical tables with an account of every row: read = deduplicated + quarantined + written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import polars as pl

from fusionrec.data.clean import typed
from fusionrec.data.media import Medium
from fusionrec.data.schema import KEY, MEDIA, QUARANTINE, ordered, printable, quarantine
from fusionrec.data.sources.base import RawTables
from fusionrec.errors import DataRejected
from fusionrec.types import Columns as C

Look = Callable[[str, str], Medium]
"""(path relative to the media root, kind) -> what was found there."""
MEDIA_EXPECTED = {
    "unsafe_path": "a path inside the media folder, no URL",
    "missing_file": "a file in the media folder",
    "not_a_file": "a regular file",
    "large_file": "a file below 1 GiB",
    "unreadable": "a file that may be read",
}


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
        unique, media = with_media(unique, look)
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


def tagged(lines: pl.DataFrame, table: str, stage: str, row: bool) -> pl.DataFrame:
    """Lines with ``key, code, column, found, expected`` and maybe ``element`` as a quarantine frame."""
    element = pl.col("element") if "element" in lines.columns else pl.lit(None)
    return lines.with_columns(
        table=pl.lit(table), stage=pl.lit(stage), row=pl.lit(row), element=element.cast(pl.Int32)
    ).select([pl.col(c).cast(t) for c, t in QUARANTINE.items()])


def sort_quarantine(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sort("table", "stage", "key", "column", "element", "code", "found", nulls_last=False)


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


def with_media(items: pl.DataFrame, look: Look) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Add ``<kind>_sha256`` and ``<kind>_format`` beside the media columns of the items.

    An unsafe path is removed and never opened; a missing file keeps its path with a null hash. Both are reported per
    cell."""
    lines: list[dict[str, object]] = []
    for column, kind in MEDIA.items():
        if column not in items.columns or C.ITEM not in items.columns:
            continue
        many = items[column].dtype == pl.List
        cells, digests, formats = [], [], []
        for item, cell in zip(items[C.ITEM].to_list(), items[column].to_list(), strict=True):
            paths: list[str] = []
            shas: list[str | None] = []
            forms: list[str | None] = []
            for path in (cell if many else [cell]) or []:
                if path is None:
                    continue
                medium = look(path, kind)
                if medium.code is not None:
                    lines.append(
                        {
                            "key": item,
                            "code": medium.code,
                            "column": column,
                            "found": printable(path),
                            "expected": MEDIA_EXPECTED.get(medium.code, "a readable file"),
                            "element": len(paths) if many else None,
                        }
                    )
                if medium.code != "unsafe_path":
                    paths.append(path)
                    shas.append(medium.sha256)
                    forms.append(medium.format)
            cells.append(paths)
            digests.append(shas)
            formats.append(forms)
        shape = (lambda v: v or None) if many else (lambda v: v[0] if v else None)
        dtype = pl.List(pl.String) if many else pl.String
        items = items.with_columns(
            [
                pl.Series(name, [shape(v) for v in values], dtype=dtype)
                for name, values in ((column, cells), (f"{kind}_sha256", digests), (f"{kind}_format", formats))
            ]
        )
    schema = {**dict.fromkeys(("key", "code", "column", "found", "expected"), pl.String), "element": pl.Int32}
    return items, pl.DataFrame(lines, schema=schema)


def sort_rows(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    """A total order: the key for tables with one, else time first and then every column."""
    if table in KEY:
        return frame.sort(KEY[table])
    first = [c for c in (C.TIME, C.USER, C.ITEM, C.EVENT) if c in frame.columns]
    return frame.sort(*first, *[c for c in frame.columns if c not in first], nulls_last=False)
