"""A folder in the format of the MMRec toolbox: NAME.inter, *_feat.npy and, where they exist, titles.

    source:
      kind: mmrec
      root: baby                    # baby.inter, text_feat.npy, image_feat.npy
    split: {kind: given}            # x_label: 0 train, 1 valid, 2 test
    modalities:
      text: {kind: precomputed, file: text_feat.npy, numbered: true, encoder: {kind: identity}}

``NAME.inter`` is separated by tabs: userID, itemID, and perhaps rating, timestamp, x_label. A type behind a colon
(``user_id:token``) is ignored. Items are numbered from 0: row n of every feature file is item n, and every item is one
that can be recommended, whether anybody touched it or not. ``i_id_mapping.csv`` (number -> id in the original data) and
``meta-*.csv`` (titles), both written by the toolbox's preparation, are read where they lie beside it.
Zhou, "MMRec: Simplifying multimodal recommendation", arXiv:2302.03497.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field

from fusionrec.data import delimited
from fusionrec.data.schema import printable
from fusionrec.data.sources.base import RawTables, Source, SourceSpec
from fusionrec.errors import DataRejected
from fusionrec.types import Bool, Float32
from fusionrec.types import Columns as C

LABEL = C.LABEL
NAMES = {
    C.USER: ("userid", "user_id"),
    C.ITEM: ("itemid", "item_id"),
    C.VALUE: ("rating",),
    C.TIME: ("timestamp",),
    LABEL: ("x_label",),
}
TITLES = (C.TITLE, C.DESCRIPTION, "brand", C.CATEGORY, C.LANGUAGE)
MAPPING = "i_id_mapping.csv"


class MMRecSource(SourceSpec):
    """``kind: mmrec``."""

    kind: Literal["mmrec"] = "mmrec"
    root: str
    interactions: str | None = Field(None, description="the file below root; default: the only .inter file")
    titles: str | None = Field(None, description="a table with a column itemID; default: the only meta-*.csv, if any")
    event: str = Field("click", description="what an interaction is called; the format does not tell")

    def build(self, project: Path) -> MMRec:
        return MMRec(self, project)

    def media_root(self, project: Path) -> Path:
        return Path(project, self.root)


class MMRec(Source):
    """See :class:`MMRecSource`. Item and user ids are the numbers as texts."""

    def __init__(self, spec: MMRecSource, project: Path) -> None:
        self.spec, self.root = spec, Path(project, spec.root)

    def read(self) -> RawTables:
        log = read_log(self.root, self.spec.interactions)
        n_items = count_items(self.root, log)
        for path in feature_files(self.root).values():
            read_features(path)
        items = pl.DataFrame({C.ITEM: [str(n) for n in range(n_items)]})
        for more in (self._mapping(n_items), self._titles(n_items)):
            items = items if more is None else items.join(more, on=C.ITEM, how="left", maintain_order="left")
        ids = [pl.col(c).cast(pl.String) for c in (C.USER, C.ITEM)]
        interactions = log.with_columns(*ids, pl.lit(self.spec.event).alias(C.EVENT))
        return RawTables(items, interactions, None, None, self.root)

    def _mapping(self, n_items: int) -> pl.DataFrame | None:
        """``item_id, original_id``: the first column beside the number."""
        path = self.root / MAPPING
        if not path.is_file():
            return None
        frame = _numbered(path, n_items)
        others = [c for c in frame.columns if c != C.ITEM]
        return frame.select(C.ITEM, pl.col(others[0]).alias("original_id")) if others else None

    def _titles(self, n_items: int) -> pl.DataFrame | None:
        found = sorted(self.root.glob("meta-*.csv"))
        if self.spec.titles is None and len(found) > 1:
            raise DataRejected(f"both {found[0].name} and {found[1].name} exist; say which with source.titles")
        path = self.root / self.spec.titles if self.spec.titles else found[0] if found else None
        if path is None:
            return None
        _inside(self.root, path, "source.titles")
        frame = _numbered(path, n_items)
        return frame.select(C.ITEM, *[c for c in TITLES if c in frame.columns])


def read_log(root: Path, name: str | None = None) -> pl.DataFrame:
    """The .inter file: ``user_id``, ``item_id`` Int64 and, where it has them, ``value``, ``timestamp`` String,
    ``x_label`` Int64 in 0, 1, 2; rows in the file's order. Raises DataRejected naming file, column and first bad row.
    """
    path = log_file(root, name)
    frame = _read(path, "\t")
    plain = {c: c.partition(":")[0].strip().lower() for c in frame.columns}
    out = {}
    for canonical, names in NAMES.items():
        columns = [c for c, p in plain.items() if p in names]
        if len(columns) > 1:
            raise DataRejected(f"{path.name}: columns {columns[0]!r} and {columns[1]!r} mean the same; keep one")
        if columns:
            out[canonical] = frame[columns[0]]
    for needed, shown in ((C.USER, "userID"), (C.ITEM, "itemID")):
        if needed not in out:
            found = ", ".join(printable(c, 40) for c in frame.columns[:12])
            raise DataRejected(
                f"{path.name}: column {shown} is missing; found {found}; the interactions are separated by tabs"
            )
        out[needed] = _whole(out[needed], path.name, shown, 2**31 - 1)
    if LABEL in out:
        out[LABEL] = _whole(out[LABEL], path.name, LABEL, 2)
    if frame.height == 0:
        raise DataRejected(f"{path.name}: nothing to train on: the interactions have no rows")
    return pl.DataFrame(out)


def feature_files(root: Path) -> dict[str, Path]:
    """Modality -> file, for every ``*_feat.npy`` or ``*-feat.npy`` of the folder, in the order of the names."""
    files = sorted(p for p in root.glob("*.npy") if re.search(r"[_-]feat\.npy$", p.name))
    return {re.sub(r"[^a-z0-9_]", "_", p.name[: -len("_feat.npy")].lower()): p for p in files}


def count_items(root: Path, log: pl.DataFrame) -> int:
    """How many items there are: what the log or the feature files say. Raises DataRejected where they disagree."""
    top = int(log[C.ITEM].max()) + 1  # type: ignore[arg-type]
    rows = {path.name: len(_load(path)) for path in feature_files(root).values()}
    for name, n in rows.items():
        if n < top:
            raise DataRejected(
                f"{name}: found {n} rows, but the interactions name item {top - 1}; expected one row for each item, at "
                f"least {top}"
            )
    if len(set(rows.values())) > 1:
        shown = ", ".join(f"{name} {n}" for name, n in rows.items())
        raise DataRejected(f"feature files must have the same rows, one for each item; found {shown}")
    return max([top, *rows.values()])


def read_features(path: Path) -> tuple[Float32, Bool]:
    """(I, D) float32 and (I,) bool: a row of zeros is an item without the modality. Raises DataRejected for NaN."""
    raw = _load(path)
    vectors = np.asarray(raw, np.float32)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise DataRejected(
            f"{path.name}: {len(bad)} of {len(vectors)} rows hold NaN or infinite values (first: row {bad[0]}); "
            "expected numbers; write a row of zeros where an item lacks the modality"
        )
    return vectors, np.asarray(vectors.any(axis=1))


def _load(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        why = str(error).splitlines()[0][:200] if isinstance(error, OSError) else "it is none, or one of objects"
        raise DataRejected(f"{path.name} cannot be read as an array of numbers (.npy): {why}") from None
    if array.ndim != 2 or array.dtype.kind not in "fiu" or array.shape[1] == 0:
        raise DataRejected(f"{path.name}: found an array {array.dtype} {array.shape}, expected numbers (items, width)")
    return np.asarray(array)


def log_file(root: Path, name: str | None = None) -> Path:
    """The file of interactions in ``root``. Raises DataRejected where ``root`` is no folder or has not one alone."""
    if not root.is_dir():
        raise DataRejected(f"{root.name} is not a folder; point it to the folder with the interactions (NAME.inter)")
    if name is not None:
        _inside(root, root / name, "source.interactions")
        return root / name
    found = sorted(root.glob("*.inter"))
    if len(found) != 1:
        shown = ", ".join(p.name for p in found) or "none"
        raise DataRejected(
            f"interactions: expected one file NAME.inter in {root.name}, found {shown}"
            + ("; say which with source.interactions" if found else "")
        )
    return found[0]


def _inside(root: Path, path: Path, key: str) -> None:
    if not path.resolve().is_relative_to(root.resolve()) or not path.is_file():
        raise DataRejected(f"{key}: {printable(path.name)} is no file of {root.name}")


def _numbered(path: Path, n_items: int) -> pl.DataFrame:
    """A table about items (tabs or commas), its number as ``item_id`` String, each at most once."""
    with open(path, "rb") as file:
        head = file.readline()
    frame = _read(path, "\t" if b"\t" in head else ",")
    column = next((c for c in frame.columns if c.partition(":")[0].strip().lower() in NAMES[C.ITEM]), None)
    if column is None:
        raise DataRejected(f"{path.name}: column itemID is missing; found {', '.join(frame.columns[:12])}")
    number = _whole(frame[column], path.name, "itemID", n_items - 1)
    if number.is_duplicated().any():
        twice = number.filter(number.is_duplicated())[0]
        raise DataRejected(f"{path.name}: item {twice} occurs twice; keep one row for each item")
    return frame.drop(column).with_columns(number.cast(pl.String).alias(C.ITEM))


def _read(path: Path, separator: str) -> pl.DataFrame:
    try:
        return delimited.read(path, separator)
    except (pl.exceptions.PolarsError, OSError) as error:
        first = printable(str(error).splitlines()[0], 200)
        raise DataRejected(f"{path.name} cannot be read as a table: {first}") from None


def _whole(values: pl.Series, file: str, column: str, highest: int) -> pl.Series:
    """Texts as Int64 in [0, highest]; 3.0 counts as 3. Raises DataRejected."""
    number = values.cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)
    good = (number.is_not_null() & (number == number.floor()) & (number >= 0) & (number <= highest)).fill_null(False)
    if not good.all():
        row = int((~good).arg_true()[0])
        raise DataRejected(
            f"{file}: column {column}: {int((~good).sum())} of {len(values)} values are out of range (first: row "
            f"{row + 1}, {printable(values[row], 40)!r}); expected whole numbers from 0 to {highest}"
        )
    return number.cast(pl.Int64).alias(column)
