"""The files of data/words (docs/contracts.md): who said something when, and its vector; no text, and no hash of one."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fusionrec.errors import DataRejected
from fusionrec.paths import Paths
from fusionrec.ranking.base import Words
from fusionrec.registry.sealed import seal, unseal
from fusionrec.types import Columns as C
from fusionrec.types import Float32

TABLE, VECTORS = "words.parquet", "vectors.npy"


def save_nothing(paths: Paths, why: str) -> None:
    """A manifest alone; ``why`` there is nothing."""
    seal(paths.words, {}, {"modality": None, "n_words": 0, "why": why})


def save_words(paths: Paths, said: bytes, vectors: Float32, manifest: Mapping[str, Any]) -> None:
    """``said``: Parquet bytes, ``user_id``, ``timestamp``, ``kind``, ``language`` of the rows of ``vectors`` (W, D)."""
    content = io.BytesIO()
    np.save(content, np.ascontiguousarray(vectors, np.float32), allow_pickle=False)
    seal(paths.words, {TABLE: said, VECTORS: content.getvalue()}, {**manifest, "n_words": len(vectors)})


def load_words(paths: Paths, users: Sequence[str], until: int | None = None) -> Words | None:
    """What ``users``, in their order, said, strictly before ``until`` (UTC microseconds) where it is given; None where
    they said nothing. Raises DataRejected where the stage words has not run, IntegrityError where a file changed."""
    import polars as pl

    if not paths.words.is_dir():
        raise DataRejected("data/words is missing: run the stage words first")
    sealed = unseal(paths.words)
    if not sealed.manifest["n_words"]:
        return None
    said = pl.read_parquet(io.BytesIO(sealed.read(TABLE)), glob=False).with_row_index("row")
    rows = pl.DataFrame({C.USER: list(users)}, schema={C.USER: pl.String}).with_row_index("user")
    said = said.join(rows, on=C.USER).with_columns(pl.col(C.TIME).dt.epoch("us")).sort("row")
    if until is not None:
        said = said.filter(pl.col(C.TIME) < until)
    vectors: Float32 = np.load(io.BytesIO(sealed.read(VECTORS)), allow_pickle=False)
    words = Words(
        said["user"].to_numpy().astype(np.int32),
        said[C.TIME].to_numpy().astype(np.int64),
        vectors[said["row"].to_numpy()],
        np.array(said["language"].to_list(), dtype=np.str_),
        sealed.manifest["modality"],
    )
    return words if len(words) else None
