"""The canonical tables: which columns the contract names, their kinds, and the identity of a row."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Literal

import polars as pl

from fusionrec.types import Columns as C

Kind = Literal["id", "text", "number", "integer", "boolean", "time", "tags", "paths", "path"]
TIME = pl.Datetime("us", "UTC")

TABLES: dict[str, dict[str, Kind]] = {
    "items": {
        C.ITEM: "id",
        C.TITLE: "text",
        C.DESCRIPTION: "text",
        C.CATEGORY: "text",
        "brand": "text",
        "price": "number",
        "in_stock": "boolean",
        "tags": "tags",
        C.LANGUAGE: "text",
        C.CREATED: "time",
        "image_paths": "paths",
        "audio_path": "path",
        "video_path": "path",
    },
    "interactions": {
        C.USER: "id",
        C.ITEM: "id",
        C.EVENT: "text",
        C.VALUE: "number",
        C.TIME: "time",
        C.IMPRESSION: "id",
        C.POSITION: "integer",
        C.SESSION: "id",
        C.QUERY: "id",
        C.SURFACE: "text",
        C.REVIEW: "text",
    },
    "users": {C.USER: "id", "age_band": "text", "gender": "text", "region": "text"},
    "queries": {
        C.QUERY: "id",
        "text": "text",
        "audio_path": "path",
        C.USER: "id",
        "clicked_item_id": "id",
        C.TIME: "time",
    },
}
"""Columns the contract names, in their written order. Columns beyond these are attributes and follow by name."""

REQUIRED = {
    "items": (C.ITEM,),
    "interactions": (C.USER, C.ITEM, C.EVENT),
    "users": (C.USER,),
    "queries": (C.QUERY,),
}
KEY = {"items": C.ITEM, "users": C.USER, "queries": C.QUERY}
MEDIA = {"image_paths": "image", "audio_path": "audio", "video_path": "video"}
BESIDE = ("sha256", "format", "fault")
"""What stands beside a media column, as ``<kind>_<name>``."""

DTYPES: dict[Kind, pl.DataType] = {
    "id": pl.String(),
    "text": pl.String(),
    "number": pl.Float64(),
    "integer": pl.Int32(),
    "boolean": pl.Boolean(),
    "time": TIME,
    "tags": pl.List(pl.String),
    "paths": pl.List(pl.String),
    "path": pl.String(),
}

QUARANTINE = {
    "table": pl.String(),
    "key": pl.String(),
    "code": pl.String(),
    "column": pl.String(),
    "found": pl.String(),
    "expected": pl.String(),
    "stage": pl.String(),
    "row": pl.Boolean(),
    "element": pl.Int32(),
}
"""``row``: true where the whole row is set aside, false where only this cell is; ``element``: the position inside a
list cell, else null."""

FOUND_CHARS = 80


def quarantine(rows: list[dict[str, object]] | None = None) -> pl.DataFrame:
    """A quarantine frame from dicts, empty by default."""
    return pl.DataFrame(rows or [], schema=QUARANTINE)


def tagged(lines: pl.DataFrame, table: str, stage: str, row: bool) -> pl.DataFrame:
    """Lines with ``key, code, column, found, expected`` and maybe ``element`` as a quarantine frame."""
    element = pl.col("element") if "element" in lines.columns else pl.lit(None)
    return lines.with_columns(
        table=pl.lit(table), stage=pl.lit(stage), row=pl.lit(row), element=element.cast(pl.Int32)
    ).select([pl.col(c).cast(t) for c, t in QUARANTINE.items()])


def sort_quarantine(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sort("table", "stage", "key", "column", "element", "code", "found", nulls_last=False)


def printable(value: object, limit: int = FOUND_CHARS) -> str:
    """A value as at most ``limit`` printable characters; control, format and unassigned ones are spelled out."""
    out: list[str] = []
    size = 0
    for ch in str(value)[: limit + 1]:
        piece = ch if unicodedata.category(ch)[0] not in "C" and ch not in "\u2028\u2029" else f"\\u{ord(ch):04x}"
        if size + len(piece) > limit:
            return "".join(out)[: limit - 1] + "…"
        out.append(piece)
        size += len(piece)
    return "".join(out)


def media_columns(table: str, columns: Sequence[str]) -> dict[str, str]:
    """The media columns of a table among ``columns``, with their kinds."""
    return {c: kind for c, kind in MEDIA.items() if c in TABLES[table] and c in columns}


def row_key(table: str, columns: Sequence[str]) -> pl.Expr:
    """The String key of a row of a frame with ``columns``: its id, or ``user_id|item_id|event|timestamp`` for
    interactions."""
    if table != "interactions":
        return pl.col(KEY[table])
    moment = pl.col(C.TIME).dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").fill_null("") if C.TIME in columns else pl.lit("")
    return pl.concat_str(
        pl.col(C.USER).fill_null(""), pl.col(C.ITEM).fill_null(""), pl.col(C.EVENT).fill_null(""), moment, separator="|"
    )


def ordered(table: str, columns: list[str]) -> list[str]:
    """Columns in their written order: contract columns with what was derived of them, then attributes by name."""
    first: list[str] = []
    for name in TABLES[table]:
        first.append(name)
        if name in MEDIA:
            first += [f"{MEDIA[name]}_{beside}" for beside in BESIDE]
    return [c for c in first if c in columns] + sorted(c for c in columns if c not in first)
