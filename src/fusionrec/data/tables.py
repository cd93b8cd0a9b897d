"""data/tables: one Parquet file a bucket, named by the hash of its rows; and how the other stages read them.

The folder is a pure function of the set of rows, never of the order or the history in which they arrived, so adding
an item and ten events changes at most eleven files.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import polars as pl

from fusionrec.data.files import fresh_folder, write_bytes, write_json
from fusionrec.data.ingest import Canonical
from fusionrec.data.schema import BESIDE, DTYPES, KEY, TABLES, media_columns, quarantine, row_key
from fusionrec.errors import DataRejected, IntegrityError
from fusionrec.paths import Paths
from fusionrec.types import Columns as C

BUCKETS = 64
HASH_DIGITS = 16


def write(paths: Paths, tables: Canonical) -> list[str]:
    """Replace data/tables; -> the names of the partition files. The ledger is written last."""
    names: list[str] = []
    with fresh_folder(paths.tables) as folder:
        for table, frame in tables.frames.items():
            (folder / table).mkdir()
            for bucket, rows in partitions(frame, table):
                name = f"{table}/{bucket}-{content_hash(rows)}.parquet"
                write_bytes(folder / name, parquet(rows))
                names.append(name)
        write_bytes(folder / "quarantine.parquet", parquet(tables.quarantine))
        write_json(folder / "ledger.json", tables.ledger)
    return names


def partitions(frame: pl.DataFrame, table: str) -> list[tuple[str, pl.DataFrame]]:
    """(bucket, rows) in bucket order; the rows keep their order."""
    if frame.height == 0:
        return []
    parts = frame.with_columns(__bucket=buckets(frame, table)).partition_by(
        "__bucket", as_dict=True, maintain_order=True
    )
    return [
        (str(key[0]), rows.drop("__bucket")) for key, rows in sorted(parts.items(), key=lambda part: str(part[0][0]))
    ]


def buckets(frame: pl.DataFrame, table: str) -> pl.Series:
    """The bucket name of every row."""
    if table != "interactions":
        return _by_hash(frame[KEY[table]], "")
    users = frame[C.USER]
    by_user = _by_hash(users, "u")
    if C.TIME not in frame.columns:
        return by_user
    days = pl.DataFrame({"day": frame[C.TIME].dt.strftime("%Y-%m-%d"), "user": by_user})
    return days.select(pl.coalesce("day", "user")).to_series()


def _by_hash(ids: pl.Series, prefix: str) -> pl.Series:
    unique = ids.unique(maintain_order=True)
    names = [
        f"{prefix}{int.from_bytes(hashlib.sha256(i.encode()).digest()[:8]) % BUCKETS:02d}" for i in unique.to_list()
    ]
    return ids.replace_strict(unique, pl.Series(names, dtype=pl.String))


def content_hash(rows: pl.DataFrame) -> str:
    """The first 16 hex digits of the sha256 of the rows: names and types of the columns, then one JSON line a row."""
    digest = hashlib.sha256(json.dumps([[n, str(t)] for n, t in rows.schema.items()]).encode())
    digest.update(rows.write_ndjson().encode("utf-8"))
    return digest.hexdigest()[:HASH_DIGITS]


def parquet(frame: pl.DataFrame) -> bytes:
    """Parquet bytes that depend on the frame alone."""
    buffer = io.BytesIO()
    frame.rechunk().write_parquet(
        buffer, compression="zstd", compression_level=3, statistics=True, row_group_size=1 << 20
    )
    return buffer.getvalue()


def files(paths: Paths, table: str) -> list[Path]:
    """The partition files of a table in bucket order; empty where the source has no such table."""
    return sorted((paths.tables / table).glob("*.parquet"))


def read(paths: Paths, table: str) -> pl.DataFrame:
    """All written rows of a table. A table that the source lacks is an empty frame with the contract's columns.

    Raises DataRejected where nothing was ingested yet.
    """
    if not (paths.tables / "ledger.json").is_file():
        raise DataRejected("data/tables is missing: run the stage ingest first")
    parts = files(paths, table)
    if not parts:
        return pl.DataFrame(schema={c: DTYPES[kind] for c, kind in TABLES[table].items()})
    return pl.concat([pl.read_parquet(part, glob=False) for part in parts], how="vertical", rechunk=True)


def ledger(paths: Paths) -> dict[str, dict[str, int]]:
    """``{table: {read, deduplicated, quarantined, written}}``."""
    return dict(json.loads((paths.tables / "ledger.json").read_text(encoding="utf-8")))


def ingested_quarantine(paths: Paths) -> pl.DataFrame:
    """data/tables/quarantine.parquet: what ingest could not use."""
    return pl.read_parquet(paths.tables / "quarantine.parquet", glob=False)


def quarantined(paths: Paths) -> pl.DataFrame:
    """data/gate/quarantine.parquet. Raises DataRejected where the gate has not passed."""
    path = paths.gate / "quarantine.parquet"
    if not path.is_file():
        raise DataRejected("data/gate is missing: run the stage validate first")
    frame = pl.read_parquet(path, glob=False)
    if set(quarantine().columns) - set(frame.columns):
        raise IntegrityError(
            "data/gate/quarantine.parquet has other columns than expected: run the stage validate again"
        )
    return frame


def accepted(paths: Paths, table: str) -> pl.DataFrame:
    """The rows that later stages may use: written, and not set aside by the gate.

    Cells that the gate set aside (an unreadable picture) are null, and so are media files without bytes; the row stays.
    """
    return accept(read(paths, table), quarantined(paths), table)


def accept(frame: pl.DataFrame, lines: pl.DataFrame, table: str) -> pl.DataFrame:
    """:func:`accepted` on frames in memory."""
    mine = lines.filter((pl.col("table") == table) & (pl.col("stage") == "validate"))
    rows, cells = mine.filter("row"), mine.filter(~pl.col("row"))
    if rows.height:
        frame = frame.filter(~row_key(table, frame.columns).is_in(rows["key"].unique().implode()))
    for column in cells["column"].unique().sort():
        if column not in media_columns(table, frame.columns):
            keys = cells.filter(pl.col("column") == column)["key"].unique()
            frame = frame.with_columns(
                pl.when(~row_key(table, frame.columns).is_in(keys.implode())).then(pl.col(column)).alias(column)
            )
    return _usable_media(frame, cells, table)


def _usable_media(frame: pl.DataFrame, cells: pl.DataFrame, table: str) -> pl.DataFrame:
    """Null the media cells that were set aside or have no bytes, in the path and in what stands beside it."""
    for column, kind in media_columns(table, frame.columns).items():
        names = [c for c in (column, *(f"{kind}_{beside}" for beside in BESIDE)) if c in frame.columns]
        bad = {(k, e) for k, e in cells.filter(pl.col("column") == column).select("key", "element").iter_rows()}
        many = frame[column].dtype == pl.List
        out: dict[str, list[object]] = {n: [] for n in names}
        for key, *group in frame.select(KEY[table], *names).iter_rows():
            lists = [values or [] for values in group] if many else [[value] for value in group]
            keep = [at for at, sha in enumerate(lists[1]) if sha is not None and (key, at if many else None) not in bad]
            for name, values in zip(names, lists, strict=True):
                kept = [values[at] for at in keep]
                out[name].append((kept or None) if many else (kept[0] if kept else None))
        frame = frame.with_columns([pl.Series(n, v, dtype=frame[n].dtype) for n, v in out.items()])
    return frame
