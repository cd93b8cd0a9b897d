"""Encodes what the store lacks: identical content once, files decoded while the model computes.

The threads here only wait: media are decoded in bounded child processes (:mod:`fusionrec.media.bounded`), which end
with the run. Decoded inputs that wait for the model are bounded in number and in bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fusionrec.embeddings.store import Store, unusable
from fusionrec.encoders.base import Encoder, EncoderSpec
from fusionrec.media import bounded
from fusionrec.media.base import MediaError
from fusionrec.modalities.base import Modality, ModalityRows
from fusionrec.types import Bool, Float32

Progress = Callable[[int, int], None]
"""Called with (contents done, contents to encode)."""

SHARD = 256  # rows in a shard: what a killed run loses at most
AHEAD = 128  # decoded inputs that wait for the model, as long as they stay below
AHEAD_BYTES = 64 << 20  # times the largest input seen; the same bound holds for one call of the encoder


def silent(done: int, total: int) -> None:
    """A progress that shows nothing."""


@dataclass(frozen=True)
class Embedded:
    """``vectors`` (I, D) float32, zero rows where absent; ``present`` (I,) bool; ``failed`` row -> (code, message).

    ``encoded`` and ``reused`` count distinct contents.
    """

    vectors: Float32
    present: Bool
    encoded: int
    reused: int
    failed: dict[int, tuple[str, str]] = field(default_factory=dict)


def embed(
    modality: Modality,
    rows: ModalityRows,
    spec: EncoderSpec,
    store: Store,
    *,
    progress: Progress = silent,
    out: Path | None = None,
) -> Embedded:
    """Vectors of all rows of ``modality`` (whose ``rows`` this is), through ``store``.

    ``out``: an .npy file to write the matrix into (memory-mapped), for catalogues that do not fit into memory. A row
    whose content cannot be loaded or encodes to NaN or zero becomes absent, with a reason; that is never an error.
    """
    fingerprint = spec.fingerprint()
    first: dict[str, int] = {}
    present_rows = np.flatnonzero(rows.present).tolist()
    for row in present_rows:
        first.setdefault(rows.content[row], row)
    contents = list(first)
    known = store.has(fingerprint, contents)
    missing = [(key, first[key]) for key, have in zip(contents, known, strict=True) if not have]
    reasons = _encode(modality, missing, spec, fingerprint, store, progress) if missing else {}
    vectors, present = _collect(store, fingerprint, rows, reasons, out)
    failed = {r: reasons[rows.content[r]] for r in present_rows if rows.content[r] in reasons}
    return Embedded(vectors, present, len(missing) - len(reasons), int(known.sum()), failed)


def _encode(
    modality: Modality,
    missing: Sequence[tuple[str, int]],
    spec: EncoderSpec,
    fingerprint: str,
    store: Store,
    progress: Progress,
) -> dict[str, tuple[str, str]]:
    """Encode and store; returns content -> (code, message) of what could not be."""
    reasons: dict[str, tuple[str, str]] = {}
    encoder: Encoder | None = None
    keys: list[str] = []
    blocks: list[Float32] = []
    done = 0

    def flush() -> None:
        if keys and encoder is not None:
            store.put(fingerprint, keys, np.concatenate(blocks), encoder.dim)
        keys.clear()
        blocks.clear()

    progress(0, len(missing))
    with closing(loaded(modality, missing)) as stream:
        # One input first: nothing is loaded where no input can be decoded.
        while part := next_part(stream, encoder.chunk if encoder else 1):
            good = [(key, value) for key, value in part if not isinstance(value, MediaError)]
            reasons |= {key: (value.code, str(value)) for key, value in part if isinstance(value, MediaError)}
            if good:
                encoder = encoder or spec.build()
                block = encoder.encode([value for _, value in good])
                if block.shape != (len(good), encoder.dim):
                    raise ValueError(f"{spec.kind} gave {block.shape}, expected ({len(good)}, {encoder.dim})")
                bad = unusable(block)
                reasons |= {good[i][0]: ("bad_vector", "NaN, infinite or zero") for i in np.flatnonzero(bad)}
                keys += [key for (key, _), b in zip(good, bad, strict=True) if not b]
                blocks.append(block[~bad])
            if len(keys) >= SHARD:
                flush()
            done += len(part)
            progress(done, len(missing))
    flush()
    return reasons


def next_part(stream: Iterator[tuple[str, Any]], most: int) -> list[tuple[str, Any]]:
    """The next inputs, at most ``most`` and about :data:`AHEAD_BYTES`; empty at the end."""
    part: list[tuple[str, Any]] = []
    size = 0
    for pair in stream:
        part.append(pair)
        size += _bytes(pair[1])
        if len(part) >= most or size >= AHEAD_BYTES:
            break
    return part


def _bytes(value: Any) -> int:
    """About how much memory a decoded input takes: an array, a picture, or a tuple or dataclass of such."""
    if hasattr(value, "nbytes"):
        return int(value.nbytes)
    if hasattr(value, "getbands"):
        return int(value.width * value.height * 4)
    if isinstance(value, tuple):
        return sum(map(_bytes, value))
    return sum(_bytes(getattr(value, f.name)) for f in fields(value)) if is_dataclass(value) else 64


def loaded(modality: Modality, missing: Sequence[tuple[str, int]]) -> Generator[tuple[str, Any], None, None]:
    """(content, encoder input or MediaError) in the order given; threads run a bounded number of inputs ahead."""

    def load(row: int) -> Any:
        try:
            return modality.load(row)
        except MediaError as error:
            return error

    # Twice as many threads as decoders: while one unpacks an answer, its decoder has the next file.
    pool = ThreadPoolExecutor(2 * bounded.CHILDREN, thread_name_prefix="decode")
    ahead: deque[tuple[str, Future[Any]]] = deque()
    room = 4 * bounded.CHILDREN  # until the first sizes are known
    largest = 1
    waiting = iter(missing)
    try:
        while True:
            ahead.extend((key, pool.submit(load, row)) for key, row in islice(waiting, max(room - len(ahead), 0)))
            if not ahead:
                return
            name, future = ahead.popleft()
            value = future.result()
            largest = max(largest, _bytes(value))
            room = min(max(AHEAD_BYTES // largest, 4 * bounded.CHILDREN), AHEAD)
            yield name, value
            del value, future
    except BaseException:  # the run is over: nobody waits for a decoder that hangs
        bounded.close(now=True)
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        bounded.close()


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
