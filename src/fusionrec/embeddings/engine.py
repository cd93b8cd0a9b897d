"""From the rows of a modality to its vectors: what the store has is taken from there, the rest is encoded once.

Who encodes is the section ``embed`` of params.yaml (:mod:`fusionrec.embeddings.engines`); this process alone writes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fusionrec.data.files import named
from fusionrec.embeddings.engines.local import Local
from fusionrec.embeddings.precision import settled
from fusionrec.embeddings.shards import EngineSpec, Progress, Shard, cut, silent
from fusionrec.embeddings.store import Store
from fusionrec.encoders.base import EncoderSpec
from fusionrec.modalities.base import Modality, ModalityRows
from fusionrec.types import Bool, Float32

HERE = Local()


@dataclass(frozen=True)
class Embedded:
    """``vectors`` (I, D) float32, zero rows where absent; ``present`` (I,) bool; ``failed`` row -> (code, message).

    ``encoder``: what computed them, which is the one asked for, or its float32 form (``note`` says why). ``encoded``
    and ``reused`` count distinct contents; ``halved``: shards in which a batch did not fit into memory.
    """

    vectors: Float32
    present: Bool
    encoder: EncoderSpec
    encoded: int
    reused: int
    failed: dict[int, tuple[str, str]] = field(default_factory=dict)
    halved: int = 0
    note: str = ""


def embed(
    modality: Modality,
    rows: ModalityRows,
    spec: EncoderSpec,
    store: Store,
    *,
    engine: EngineSpec = HERE,
    progress: Progress = silent,
    out: Path | None = None,
) -> Embedded:
    """Vectors of all rows of ``modality`` (whose ``rows`` this is), through ``store``.

    ``out``: an .npy file to write the matrix into (memory-mapped), for catalogues that do not fit into memory. A row
    whose content cannot be loaded or encodes to NaN or zero becomes absent, with a reason; that is never an error.
    """
    first: dict[str, int] = {}
    present_rows = np.flatnonzero(rows.present).tolist()
    for row in present_rows:
        first.setdefault(rows.content[row], row)
    spec, missing, note = _missing(modality, first, spec, store, engine)
    fingerprint = spec.fingerprint()
    reasons: dict[str, tuple[str, str]] = {}
    if missing:
        with closing(engine.encode(modality, spec, _shards(missing, fingerprint, store), progress)) as shards:
            for shard in shards:
                reasons |= shard.reasons
                dim = shard.vectors.shape[1]
                store.put(fingerprint, shard.contents, shard.vectors, dim, halved=shard.halved, failed=shard.reasons)
    vectors, present = _collect(store, fingerprint, rows, reasons, out)
    return Embedded(
        vectors,
        present,
        spec,
        encoded=len(missing) - len(reasons),
        reused=len(first) - len(missing),
        failed={r: reasons[rows.content[r]] for r in present_rows if rows.content[r] in reasons},
        halved=store.halved(fingerprint, first),
        note=note,
    )


def _missing(
    modality: Modality, first: dict[str, int], spec: EncoderSpec, store: Store, engine: EngineSpec
) -> tuple[EncoderSpec, dict[str, int], str]:
    """(what encodes, content -> row of what the store lacks of it, what is to be told)."""
    missing = _lacking(first, spec, store)
    chosen, note = settled(modality, missing, spec, store, engine)
    return chosen, missing if chosen is spec else _lacking(first, chosen, store), note


def _shards(missing: Mapping[str, int], fingerprint: str, store: Store) -> list[Shard]:
    """What failed in a shard that was written is tried again apart: within the next shard it would be a stranger."""
    again = store.failed(fingerprint, missing)
    new = {content: row for content, row in missing.items() if content not in again}
    return [*cut(new), *cut({content: missing[content] for content in again})]


def _lacking(first: dict[str, int], spec: EncoderSpec, store: Store) -> dict[str, int]:
    contents = list(first)
    known = store.has(spec.fingerprint(), contents)
    return {content: first[content] for content, have in zip(contents, known, strict=True) if not have}


def _collect(
    store: Store, fingerprint: str, rows: ModalityRows, reasons: dict[str, tuple[str, str]], out: Path | None
) -> tuple[Float32, Bool]:
    """(I, D) vectors and (I,) present, read from the store."""
    chosen = [r for r in np.flatnonzero(rows.present).tolist() if rows.content[r] not in reasons]
    wanted = np.array(chosen, np.int64)
    n = len(rows.content)
    vectors: Float32 | None = None
    present = np.zeros(n, bool)
    for positions, block in store.blocks(fingerprint, [rows.content[r] for r in chosen]):
        if vectors is None:
            shape = (n, block.shape[1])
            vectors = np.zeros(shape, np.float32) if out is None else _mapped(out, shape)
        vectors[wanted[positions]] = block
        present[wanted[positions]] = True
    if int(present.sum()) != len(wanted):
        raise RuntimeError(f"the store lost {len(wanted) - int(present.sum())} vectors while they were read; run again")
    return (np.zeros((n, 0), np.float32) if vectors is None else vectors), present


def _mapped(out: Path, shape: tuple[int, int]) -> Float32:
    """A new .npy file of zeros, its space reserved: a mapped page that the disk has no room for ends the process."""
    with named(out):
        vectors: Float32 = np.lib.format.open_memmap(out, mode="w+", dtype=np.float32, shape=shape)
        with open(out, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, out.stat().st_size)
    return vectors
