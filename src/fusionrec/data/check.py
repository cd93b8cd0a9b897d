"""``fusionrec check DIR``: guess how a folder maps to the canonical tables, and run ingest and the gate on it without
writing.

Columns are guessed by name (synonyms) first and by their values then: ids that occur in the item table, values that
read as times, long texts. Everything that was guessed stands in the YAML to paste, so that it can be corrected."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from fusionrec.data import clean, gate, synonyms
from fusionrec.data.ingest import canonical
from fusionrec.data.media import MediaMemory
from fusionrec.data.rules import Rules
from fusionrec.data.schema import TABLES, printable
from fusionrec.data.sources.folder import ENDINGS, FolderSource, read_frame
from fusionrec.errors import DataRejected
from fusionrec.types import Columns as C

SAMPLE = 2000
MEDIA_FOLDERS = {
    "image": ("images", "image", "pictures", "posters"),
    "audio": ("audio", "sounds"),
    "video": ("video", "videos", "clips"),
}
MEDIA_ENDINGS = {
    "image": ("jpg", "jpeg", "png", "webp"),
    "audio": ("wav", "mp3", "flac", "ogg"),
    "video": ("mp4", "webm", "mkv", "mov"),
}


@dataclass(frozen=True)
class CheckResult:
    """``ok``: the gate would pass; ``lines``: for people; ``source``: the section for params.yaml, ``yaml`` the same as
    text."""

    ok: bool
    lines: list[str]
    source: dict[str, Any]
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def yaml(self) -> str:
        return str(yaml.safe_dump({"source": self.source}, sort_keys=False, allow_unicode=True))

    def __str__(self) -> str:
        return "\n".join([*self.lines, "", "The section for params.yaml:", "", self.yaml])


def check(folder: Path) -> CheckResult:
    """Raises DataRejected where the folder holds no table at all; a catalogue that the gate would stop is a result."""
    root = Path(folder).resolve()
    if not root.is_dir():
        raise DataRejected(f"{folder} is not a folder; expected one with items and interactions as CSV or Parquet")
    frames = _frames(root)
    source: dict[str, Any] = {"kind": "folder", "root": str(folder)}
    lines = [
        f"{name}: {file}, {frame.height:,} rows, columns {', '.join(printable(c, 40) for c in frame.columns)}"
        for name, (file, frame) in frames.items()
    ]
    ids = frames["items"][1] if "items" in frames else None
    for table, (file, frame) in frames.items():
        section = _section(table, file, frame, None if table == "items" else _item_ids(ids))
        lines += [
            f"{table}: {canonical_name} <- {column}" for canonical_name, column in section.get("columns", {}).items()
        ]
        if section:
            source[table] = section
    if ids is not None and (media := _media(root, ids)):
        source["media"] = media
        lines += [f"media: {kind} <- {template}" for kind, template in media.items()]
    return _dry_run(root, source, lines)


def _dry_run(root: Path, source: dict[str, Any], lines: list[str]) -> CheckResult:
    """Ingest and gate in memory, with a key that is thrown away."""
    try:
        raw = FolderSource.model_validate({**source, "root": str(root)}).build(root).read()
        with closing(sqlite3.connect(":memory:")) as connection:
            tables = canonical(raw, bytes(32), MediaMemory(connection, root).look)
    except DataRejected as error:
        return CheckResult(False, [*lines, *(f"REJECTED {line}" for line in str(error).splitlines())], source)
    verdict = gate.judge(tables.frames, tables.ledger, tables.quarantine, Rules(), None)
    for table, account in verdict.summary["tables"].items():
        lines.append(
            f"{table}: {account['read']:,} read = {account['accepted']:,} accepted + {account['deduplicated']:,} "
            f"deduplicated + {account['quarantined']:,} quarantined"
        )
    for kind, by_table in verdict.summary["codes"].items():
        lines += [
            f"{table}: {count:,} {kind} set aside: {code}"
            for table, codes in by_table.items()
            for code, count in codes.items()
        ]
    lines += [*tables.notes, *verdict.summary["notes"], *(f"REJECTED {line}" for line in verdict.broken)]
    lines.append("the gate would stop this catalogue" if verdict.broken else "the gate would accept this catalogue")
    return CheckResult(not verdict.broken, lines, source, verdict.summary)


def _frames(root: Path) -> dict[str, tuple[str, pl.DataFrame]]:
    """table -> (file name, frame): by the file's name, else by which ids its columns hold."""
    files = sorted(p for p in root.iterdir() if p.suffix.lower() in ENDINGS and p.is_file())
    if not files:
        raise DataRejected(
            f"{root.name} holds no .csv or .parquet file; found "
            f"{', '.join(sorted(p.name for p in root.iterdir())[:8]) or 'nothing'}"
        )
    found: dict[str, tuple[str, pl.DataFrame]] = {}
    for name in TABLES:
        for file in files:
            if file.stem.lower() == name and name not in found:
                found[name] = (file.name, read_frame(file))
    for file in files:
        if any(file.name == taken for taken, _ in found.values()) or {"items", "interactions"} <= set(found):
            continue
        frame = read_frame(file)
        guess = _table_of(frame.columns)
        if guess is not None and guess not in found:
            found[guess] = (file.name, frame)
    return found


def _table_of(columns: list[str]) -> str | None:
    user, item = (_by_name(c, columns) is not None for c in (C.USER, C.ITEM))
    return "interactions" if user and item else "users" if user else "items" if item else None


def _by_name(canonical_name: str, columns: Iterable[str]) -> str | None:
    """The column with this name or one of its synonyms; similar spellings do not count here."""
    plain = {synonyms.plain(c).replace("_", ""): c for c in reversed(list(columns))}
    names = (canonical_name, *synonyms.SYNONYMS.get(canonical_name, ()))
    return next((plain[n.replace("_", "")] for n in names if n.replace("_", "") in plain), None)


def _item_ids(items: pl.DataFrame | None) -> set[str]:
    column = None if items is None else _by_name(C.ITEM, items.columns)
    return set() if items is None or column is None else {str(i) for i in items[column].to_list()}


def _section(table: str, file: str, frame: pl.DataFrame, ids: set[str] | None) -> dict[str, Any]:
    """``file``, ``columns`` and ``constants`` of one table, without what is the default."""
    columns: dict[str, str] = {}
    free = list(frame.columns)
    for name in TABLES[table]:
        guess = _by_name(name, free)
        if guess is not None:
            columns[name] = guess
            free.remove(guess)
    sample = frame.head(SAMPLE)
    if table == "interactions":
        _ids_by_value(columns, free, sample, ids or set())
    if table in ("interactions", "queries") and C.TIME not in columns:
        _take(columns, free, C.TIME, next((c for c in free if _reads_as_time(sample[c])), None))
    if table == "items":
        _texts_by_value(columns, free, sample)
    section: dict[str, Any] = {} if Path(file).stem == table else {"file": file}
    renamed = {
        name: column
        for name, column in columns.items()
        if name != column and not (name == "image_paths" and column == "image_path")
    }
    if renamed:
        section["columns"] = renamed
    if table == "interactions" and C.EVENT not in columns:
        section["constants"] = {C.EVENT: _event(sample, columns.get(C.VALUE))}
    return section


def _take(columns: dict[str, str], free: list[str], name: str, column: str | None) -> None:
    if column is not None:
        columns[name] = column
        free.remove(column)


def _ids_by_value(columns: dict[str, str], free: list[str], sample: pl.DataFrame, ids: set[str]) -> None:
    if C.ITEM not in columns and ids:
        shares = {c: sum(str(v) in ids for v in sample[c].to_list()) / max(sample.height, 1) for c in free}
        best = max(shares, key=lambda c: shares[c], default=None)
        _take(columns, free, C.ITEM, best if best is not None and shares[best] > 0.5 else None)
    if C.USER not in columns:
        _take(
            columns,
            free,
            C.USER,
            next((c for c in free if not _reads_as_time(sample[c]) and sample[c].n_unique() > 1), None),
        )


def _texts_by_value(columns: dict[str, str], free: list[str], sample: pl.DataFrame) -> None:
    lengths = {c: float(sample[c].str.len_chars().mean() or 0) for c in free if sample[c].dtype == pl.String}  # type: ignore[arg-type]
    longest = sorted(lengths, key=lambda c: lengths[c], reverse=True)
    if C.DESCRIPTION not in columns and longest and lengths[longest[0]] >= 60:
        _take(columns, free, C.DESCRIPTION, longest.pop(0))
    if (
        C.TITLE not in columns
        and longest
        and lengths[longest[0]] >= 8
        and sample[longest[0]].n_unique() > sample.height / 2
    ):
        _take(columns, free, C.TITLE, longest[0])


def _reads_as_time(series: pl.Series) -> bool:
    """Nearly all values parse as times between 1990 and next year; small whole numbers are no times."""
    if series.dtype.is_nested() or series.dtype in (pl.Boolean, pl.Binary) or series.null_count() == len(series):
        return False
    try:
        found = clean.moments(series.drop_nulls())
    except pl.exceptions.PolarsError:
        return False
    inside = (found >= datetime(1990, 1, 1, tzinfo=UTC)) & (
        found < datetime(datetime.now(UTC).year + 2, 1, 1, tzinfo=UTC)
    )
    return bool(inside.fill_null(False).mean() >= 0.95)  # type: ignore[operator]


def _event(sample: pl.DataFrame, value: str | None) -> str:
    """What a log without an event column most probably holds: likes (0/1), ratings (a scale up to 10), else clicks."""
    if value is None:
        return "click"
    number = sample[value].cast(pl.Float64, strict=False).drop_nulls()
    if len(number) and set(number.unique()) <= {0.0, 1.0}:
        return "like"
    return "rating" if len(number) and number.max() <= 10 and number.n_unique() <= 50 else "click"  # type: ignore[operator]


def _media(root: Path, items: pl.DataFrame) -> dict[str, str]:
    """Templates for media folders whose files are named by item ids."""
    out: dict[str, str] = {}
    ids, given = (
        _item_ids(items),
        {_by_name(c, items.columns) for c in ("image_paths", "audio_path", "video_path")} - {None},
    )
    for kind, names in MEDIA_FOLDERS.items():
        column = {"image": "image_paths", "audio": "audio_path", "video": "video_path"}[kind]
        if _by_name(column, items.columns) in given:
            continue
        for name in names:
            files = {p.name for p in (root / name).iterdir()} if (root / name).is_dir() else set()
            hits = {end: sum(f"{i}.{end}" in files for i in ids) for end in MEDIA_ENDINGS[kind]}
            best = max(hits, key=lambda end: hits[end])
            if hits[best] and kind not in out:
                out[kind] = f"{name}/{{item_id}}.{best}"
    return out
