"""Vectors that come with the catalogue, one per item id.

behaviour:
  kind: precomputed
  file: vectors.parquet        # columns item_id and vector
  # or  file: vectors.npz      # arrays ids and vectors
  # or  file: vectors.npy, ids: items.csv
  # or  file: text_feat.npy, numbered: true   (the MMRec format: row n is the item with the id n)
"""

from __future__ import annotations

import hashlib
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import PositiveInt, field_validator, model_validator

from fusionrec.encoders import AnyEncoder
from fusionrec.encoders.identity import Identity
from fusionrec.errors import ConfigError, DataRejected
from fusionrec.media.base import MediaError, resolve
from fusionrec.modalities.base import Modality, ModalityRows, ModalitySpec, check_accepts
from fusionrec.types import Float32

if TYPE_CHECKING:
    import polars as pl

KINDS = {".parquet", ".npz", ".npy"}


class Precomputed(ModalitySpec):
    """``file`` and ``ids`` are relative to the source's folder. The order of a file never names an item: ids do
    (``numbered`` says that an id is the number of the row).

    ``dim``: the expected width (default: the most frequent one). Rows of another width, with NaN or infinite values, or
    all zero are absent, with a reason each.
    """

    kind: Literal["precomputed"] = "precomputed"
    file: str
    ids: str | None = None
    numbered: bool = False
    id_column: str = "item_id"
    vector_column: str = "vector"
    dim: PositiveInt | None = None
    encoder: AnyEncoder = Identity()

    _accepts = field_validator("encoder")(check_accepts("vector"))

    @model_validator(mode="after")
    def _pair(self) -> Precomputed:
        ending = Path(self.file).suffix.lower()
        if ending not in KINDS:
            raise ValueError(f"file must end in {', '.join(sorted(KINDS))}, found {self.file!r}")
        if (ending == ".npy") != (self.ids is not None or self.numbered) or (self.ids is not None and self.numbered):
            raise ValueError(
                "an .npy file needs 'ids': a .csv, .parquet or .npy file with the item id of each row, or "
                "'numbered: true' where the id is the number of the row; the other kinds carry their ids inside"
            )
        return self

    def build(self) -> Modality:
        return PrecomputedModality(self)


class PrecomputedModality(Modality):
    """See :class:`Precomputed`."""

    def __init__(self, spec: Precomputed) -> None:
        self.spec = spec
        self.vectors: Sequence[Float32] = ()
        self.row_of: list[int] = []
        self.dim = 0

    def rows(self, items: pl.DataFrame, root: Path) -> ModalityRows:
        ids, self.vectors = self._read(root)
        if len(ids) != len(self.vectors):
            raise DataRejected(f"{self.spec.file}: found {len(self.vectors)} vectors but {len(ids)} ids; one each")
        ids = [_id(i, self.spec.file) for i in ids]
        twice = [i for i, n in Counter(ids).items() if n > 1]
        if twice:
            raise DataRejected(f"{self.spec.file}: {len(twice)} ids occur twice (first: {twice[0][:80]!r}); keep one")
        widths = Counter(len(v) for v in self.vectors)
        self.dim = self.spec.dim or max(widths, key=lambda w: (widths[w], w), default=0)
        at = {item: row for row, item in enumerate(ids)}
        self.row_of = [at.get(i, -1) for i in items["item_id"].to_list()]
        return ModalityRows(
            present=np.array([r >= 0 for r in self.row_of], bool),
            content=[self._content(self.vectors[r]) if r >= 0 else "" for r in self.row_of],
            group=np.zeros(len(items), np.int16),
        )

    def _content(self, vector: Float32) -> str:
        """One that is refused for its width is another content than the same one where that is right: the store would
        give what it kept from then."""
        wrong = b"" if len(vector) == self.dim else b"wrong_dim %d\n" % self.dim
        return hashlib.sha256(wrong + np.ascontiguousarray(vector, np.float32).tobytes()).hexdigest()

    def load(self, index: int) -> Float32:
        """(D,) float32. Raises MediaError ``wrong_dim``, ``not_finite``, ``zero_vector``."""
        vector = np.asarray(self.vectors[self.row_of[index]], np.float32)
        if vector.shape != (self.dim,):
            raise MediaError("wrong_dim", f"{self.spec.file}: found {vector.size} values, expected {self.dim}")
        if not np.isfinite(vector).all():
            raise MediaError("not_finite", f"{self.spec.file}: the vector holds NaN or infinite values")
        if not vector.any():
            raise MediaError("zero_vector", f"{self.spec.file}: all values are zero")
        return vector

    def _read(self, root: Path) -> tuple[list[Any], Sequence[Float32]]:
        path, spec = _below(root, self.spec.file), self.spec
        try:
            if path.suffix.lower() == ".parquet":
                ids = _column(path, spec.id_column)
                cells = _column(path, spec.vector_column)
                return ids, [np.asarray(_plain(v), np.float32) for v in cells]
            if path.suffix.lower() == ".npz":
                with np.load(path, allow_pickle=False) as arrays:
                    return _listed(arrays["ids"]), _matrix(arrays["vectors"])
            vectors = _matrix(np.load(path, mmap_mode="r", allow_pickle=False))
            if spec.numbered:
                return list(range(len(vectors))), vectors
            other = _below(root, spec.ids or "")
            if other.suffix.lower() == ".npy":
                return _listed(np.load(other, allow_pickle=False)), vectors
            return _column(other, spec.id_column), vectors
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            first = next(iter(str(error).splitlines()), type(error).__name__)
            raise DataRejected(f"{spec.file} cannot be read as vectors: {first[:200]}") from None


def _below(root: Path, relative: str) -> Path:
    try:
        return resolve(root, relative)
    except MediaError as error:
        raise ConfigError(f"precomputed vectors: {error}") from None


def _column(path: Path, name: str) -> list[Any]:
    import polars as pl

    try:
        frame = (
            pl.read_parquet(path, glob=False)
            if path.suffix.lower() == ".parquet"
            else pl.read_csv(path, infer_schema=False, glob=False)
        )
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{path.name}: {error}") from None
    if name not in frame.columns:
        raise ValueError(f"{path.name} has no column {name!r}; found {', '.join(frame.columns)}")
    return frame[name].to_list()


def _matrix(array: Any) -> Any:
    """The array as it is, if it has rows and columns of numbers. Raises ValueError."""
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise ValueError(f"found an array {array.dtype} {array.shape}, expected numbers (rows, width)")
    return array


def _plain(cell: Any) -> Any:
    """A null cell or a null inside a list becomes NaN, which :meth:`PrecomputedModality.load` reports. Raises
    ValueError for a cell that is no list of numbers (bytes would be read as numbers, each of them)."""
    if cell is None:
        return [np.nan]
    if isinstance(cell, bytes | str) or not isinstance(cell, Iterable):
        raise ValueError(f"found a cell of {type(cell).__name__}, expected a list of numbers")
    return [np.nan if v is None else v for v in cell]


def _listed(ids: Any) -> list[Any]:
    """Raises ValueError for ids that are no plain row."""
    if ids.ndim != 1:
        raise ValueError(f"found ids of the shape {ids.shape}, expected one a row: (rows,)")
    return list(ids.tolist())


def _id(value: Any, file: str) -> str:
    """An id as ingest reads it: NFC, and whole numbers in a float column lose their ``.0``."""
    if isinstance(value, float):
        if not value.is_integer():
            raise DataRejected(f"{file}: found the id {value}, expected texts or whole numbers")
        value = int(value)
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return unicodedata.normalize("NFC", text).strip()
