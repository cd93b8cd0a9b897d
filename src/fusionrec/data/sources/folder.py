"""A catalogue in a folder: items, interactions and optionally users and queries, as CSV or Parquet, and media files.

    source:
      kind: folder
      root: my-catalogue                     # relative to the project
      interactions:
        file: log.csv                        # default: interactions.parquet or interactions.csv
        columns: {timestamp: when}           # canonical or attribute name: source column
        constants: {event: like}             # a column that the file lacks
      media:
        image: images/{item_id}.jpg          # only files that exist count

Without a mapping a source column keeps its name. CSV cells are read as strings and typed later
(:mod:`fusionrec.data.clean`), so that one bad value costs one row.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field, model_validator

from fusionrec.data import delimited
from fusionrec.data.clean import inferred
from fusionrec.data.schema import MEDIA, REQUIRED, TABLES, printable
from fusionrec.data.sources.base import RawTables, Source, SourceSpec
from fusionrec.errors import DataRejected
from fusionrec.types import Columns as C
from fusionrec.types import Spec

ENDINGS = (".parquet", ".csv")
TEXT_ENDINGS = (".csv", ".tsv", ".txt")
ALIASES = {"items": {"image_path": "image_paths"}}


class Table(Spec):
    """One table of the folder."""

    file: str | None = Field(None, description="file name inside root; default: <table>.parquet or <table>.csv")
    columns: dict[str, str] = Field({}, description="canonical or attribute name: column of the file")
    constants: dict[str, bool | int | float | str] = Field(
        {}, description="columns the file lacks: one value for all rows"
    )


class FolderSource(SourceSpec):
    """Reads a folder of CSV or Parquet tables."""

    kind: Literal["folder"] = "folder"
    root: str
    items: Table = Table()
    interactions: Table = Table()
    users: Table = Table()
    queries: Table = Table()
    media: dict[Literal["image", "audio", "video"], str] = Field(
        {}, description="path of an item's file below root with {item_id} in it"
    )

    @model_validator(mode="after")
    def _templates(self) -> FolderSource:
        for name, template in self.media.items():
            if template.count("{item_id}") < 1:
                raise ValueError(f"media.{name} must contain {{item_id}}, found {template!r}")
        return self

    def build(self, project: Path) -> Folder:
        return Folder(self, project)

    def media_root(self, project: Path) -> Path:
        return Path(project, self.root)


class Folder(Source):
    """See :class:`FolderSource`."""

    def __init__(self, spec: FolderSource, project: Path) -> None:
        self.spec = spec
        self.root = Path(project, spec.root)

    def read(self) -> RawTables:
        if not self.root.is_dir():
            raise DataRejected(f"source.root: {self.spec.root} is not a folder; point it to the folder with the tables")
        frames = {name: self._table(name) for name in TABLES}
        if frames["items"] is not None:
            frames["items"] = self._with_media(frames["items"])
        return RawTables(**frames, media_root=self.root)  # type: ignore[arg-type]

    def _table(self, name: str) -> pl.DataFrame | None:
        spec: Table = getattr(self.spec, name)
        path = self._file(name, spec)
        if path is None:
            return None
        frame = read_frame(path)
        return mapped(frame, name, spec, path.name)

    def _file(self, name: str, spec: Table) -> Path | None:
        if spec.file is not None:
            path = (self.root / spec.file).resolve()
            if not path.is_relative_to(self.root.resolve()):
                raise DataRejected(f"{name}: file {spec.file!r} lies outside source.root")
            if not path.is_file():
                near = get_close_matches(spec.file, [p.name for p in self.root.iterdir()], 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise DataRejected(f"{name}: file {spec.file!r} not found in {self.spec.root}{hint}")
            return path
        found = [self.root / f"{name}{end}" for end in ENDINGS if (self.root / f"{name}{end}").is_file()]
        if len(found) > 1:
            raise DataRejected(
                f"{name}: both {found[0].name} and {found[1].name} exist; say which with source.{name}.file"
            )
        if not found and name in ("items", "interactions"):
            raise DataRejected(
                f"{name}: expected {name}.parquet or {name}.csv in {self.spec.root}, found "
                f"{', '.join(sorted(p.name for p in self.root.iterdir())[:8]) or 'an empty folder'}; "
                f"set source.{name}.file"
            )
        return found[0] if found else None

    def _with_media(self, items: pl.DataFrame) -> pl.DataFrame:
        """Add media columns from the templates, where the file exists. The directories are listed, not each file."""
        kinds = {kind: column for column, kind in MEDIA.items()}
        for kind, template in self.spec.media.items():
            column = kinds[kind]
            if column in items.columns:
                raise DataRejected(f"items: the column {column} and source.media.{kind} both name files; keep one")
            listed: dict[Path, set[str]] = {}
            paths: list[str | None] = []
            for item in items[C.ITEM].cast(pl.String).to_list():
                relative = template.replace("{item_id}", item or "")
                folder, leaf = (self.root / relative).parent, relative.rsplit("/", 1)[-1]
                safe = item and "/" not in item and "\\" not in item and "\0" not in item and item not in (".", "..")
                if safe and folder not in listed:
                    listed[folder] = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
                paths.append(relative if safe and leaf in listed[folder] else None)
            items = items.with_columns(pl.Series(column, paths, dtype=pl.String))
        return items


def read_frame(path: Path) -> pl.DataFrame:
    """A CSV as strings (:mod:`fusionrec.data.delimited`) or a Parquet file as it is typed."""
    try:
        if path.suffix.lower() in TEXT_ENDINGS:
            return delimited.read(path)
        return pl.read_parquet(path, glob=False)
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        first = printable(str(error).splitlines()[0], 200)
        raise DataRejected(f"{path.name} cannot be read as {path.suffix.lstrip('.') or 'a table'}: {first}") from None


def mapped(frame: pl.DataFrame, table: str, spec: Table, file: str) -> pl.DataFrame:
    """Rename to canonical names, add constants, and refuse missing columns with the nearest name."""
    problems = []
    for canonical, source in spec.columns.items():
        if source not in frame.columns:
            problems.append(_missing(file, source, frame.columns, f"source.{table}.columns.{canonical} names it"))
    aliases = {a: c for a, c in ALIASES.get(table, {}).items() if a in frame.columns and c not in frame.columns}
    taken = set(spec.columns.values())
    out = {canonical: source for canonical, source in spec.columns.items() if source in frame.columns}
    for source in frame.columns:
        name = aliases.get(source, source)
        if source not in taken and name not in out and name not in spec.constants:
            out[name] = source
    for name in REQUIRED[table]:
        if name not in out and name not in spec.constants and not problems:
            problems.append(
                _missing(file, name, frame.columns, f"{table} need it", mapping=f"source.{table}.columns.{name}")
            )
    if problems:
        raise DataRejected("\n".join(problems))
    frame = frame.select([pl.col(source).alias(name) for name, source in out.items()])
    if file.lower().endswith(TEXT_ENDINGS):
        frame = frame.with_columns([inferred(frame[name]) for name in frame.columns if name not in TABLES[table]])
    return frame.with_columns([pl.lit(value).alias(name) for name, value in spec.constants.items()])


def _missing(file: str, column: str, columns: list[str], why: str, mapping: str | None = None) -> str:
    from fusionrec.data.synonyms import nearest

    near = nearest(column, columns)
    hint = f"; did you mean {near!r}?" if near else ""
    if mapping and near:
        hint += f" Then set {mapping}: {near}"
    if mapping and not near and column == C.EVENT:
        hint += f"; for a log without events set {mapping.replace('columns', 'constants')}: click"
    shown = ", ".join(printable(c, 40) for c in columns[:12]) + (", ..." if len(columns) > 12 else "")
    return f"{file}: column {column!r} is missing ({why}); found {shown}{hint}"
