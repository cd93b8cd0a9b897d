"""From the rows of a modality to its vectors: what the store has is taken from there, the rest is encoded once.

Who encodes is the section ``embed`` of params.yaml (:mod:`fusionrec.embeddings.engines`); this process alone writes.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fusionrec.embeddings.engines.local import Local
from fusionrec.embeddings.precision import settled
from fusionrec.embeddings.shards import EngineSpec, Progress, cut, silent
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
        with closing(engine.encode(modality, spec, cut(missing), progress)) as shards:
            for shard in shards:
                reasons |= shard.reasons
                store.put(fingerprint, shard.contents, shard.vectors, shard.vectors.shape[1], halved=shard.halved)
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
            vectors = (
                np.zeros(shape, np.float32)
                if out is None
                else np.lib.format.open_memmap(out, mode="w+", dtype=np.float32, shape=shape)
            )
        vectors[wanted[positions]] = block
        present[wanted[positions]] = True
    if int(present.sum()) != len(wanted):
        raise RuntimeError(f"the store lost {len(wanted) - int(present.sum())} vectors while they were read; run again")
    return (np.zeros((n, 0), np.float32) if vectors is None else vectors), present
