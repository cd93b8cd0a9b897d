"""The unit of work: some contents that are encoded together, by whoever does it, to the same bits.

What is missing is cut into shards by the contents themselves (content-defined chunking: Muthitacharoen, Chen and
Mazieres, "A low-bandwidth network file system", SOSP 2001): a shard ends where a digest ends in enough zeros. So the
shards that a killed run left undone are cut again exactly as they were, whichever were done and by whom.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, fields, is_dataclass
from itertools import islice
from typing import Any

import numpy as np

from fusionrec.embeddings.store import unusable
from fusionrec.encoders.base import Encoder, EncoderSpec
from fusionrec.media import bounded
from fusionrec.media.base import MediaError
from fusionrec.modalities.base import Modality
from fusionrec.types import Float32, Spec

Progress = Callable[[int, int], None]
"""Called with (contents done, contents to encode)."""

MEAN_SHARD = 512  # contents in a shard, on average: what a killed run loses, for each worker
AHEAD = 128  # decoded inputs that wait for the model, as long as they stay below
AHEAD_BYTES = 64 << 20  # times the largest input seen; the same bound holds for one call of the encoder


def silent(done: int, total: int) -> None:
    """A progress that shows nothing."""


@dataclass(frozen=True)
class Shard:
    """``contents`` in ascending order, each with the row of the modality that holds it."""

    contents: tuple[str, ...]
    rows: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.contents)


@dataclass(frozen=True)
class EncodedShard:
    """``vectors`` (n, D) float32 of ``contents``; ``reasons``: content -> (code, message) of those that have none;
    ``halved``: how many batches did not fit into memory and were computed in halves (its bits may then differ), those
    of a shard that was under way at the same time included."""

    contents: tuple[str, ...]
    vectors: Float32
    reasons: Mapping[str, tuple[str, str]]
    halved: int


class EngineSpec(Spec):
    """Base of the section ``embed`` of params.yaml: who encodes the shards. None of its settings changes a bit of the
    vectors, so no stage depends on it."""

    engine: Any

    @abstractmethod
    def encode(
        self, modality: Modality, spec: EncoderSpec, shards: Sequence[Shard], progress: Progress
    ) -> Generator[EncodedShard, None, None]:
        """The shards in whatever order they are done; closing the generator ends the work."""

    @abstractmethod
    def compare(self, modality: Modality, spec: EncoderSpec, sample: Shard) -> tuple[bool, list[float]]:
        """:func:`fusionrec.embeddings.precision.compared`, where the shards will be encoded."""


def cut(missing: Mapping[str, int]) -> list[Shard]:
    """``missing``: content (64 hex digits) -> row. A shard's last content is one whose last 8 digits are a multiple of
    :data:`MEAN_SHARD`."""
    shards: list[Shard] = []
    contents: list[str] = []
    for content in sorted(missing):
        contents.append(content)
        if int(content[-8:], 16) % MEAN_SHARD == 0:
            shards.append(Shard(tuple(contents), tuple(missing[c] for c in contents)))
            contents = []
    if contents:
        shards.append(Shard(tuple(contents), tuple(missing[c] for c in contents)))
    return shards


def encoded(
    modality: Modality, spec: EncoderSpec, shards: Sequence[Shard], progress: Progress = silent
) -> Generator[EncodedShard, None, None]:
    """Each shard in turn, by this process: files of later shards are decoded while the model computes.

    Only what is encoded together decides about a vector's last bits, and that is a function of the shard alone.
    """
    done, total = 0, sum(map(len, shards))
    progress(0, total)
    with (
        closing(loaded(modality, [pair for s in shards for pair in zip(s.contents, s.rows, strict=True)])) as stream,
        closing(_blocks(spec, shards, stream)) as blocks,
    ):
        for shard in shards:
            contents: list[str] = []
            vectors: list[Float32] = []
            reasons: dict[str, tuple[str, str]] = {}
            halved = 0
            for block in blocks:
                contents += block.contents
                vectors.append(block.vectors)
                reasons |= block.reasons
                halved += block.halved
                progress(done + len(contents) + len(reasons), total)
                if block.last:
                    break
            done += len(shard)
            found = [v for v in vectors if len(v)]
            yield EncodedShard(
                tuple(contents), np.concatenate(found) if found else np.zeros((0, 0), np.float32), reasons, halved
            )


@dataclass(frozen=True)
class _Block:
    """Some contents of a shard that went through the encoder together; ``last``: the shard ends with them."""

    contents: tuple[str, ...]
    vectors: Float32
    reasons: dict[str, tuple[str, str]]
    halved: int
    last: bool


def _blocks(
    spec: EncoderSpec, shards: Sequence[Shard], stream: Iterator[tuple[str, Any]]
) -> Generator[_Block, None, None]:
    """The blocks in order. While one is being encoded the next one's texts are cut into tokens, its pictures are made
    ready and its batches wait behind: no processor is idle where a block ends."""
    encoder: Encoder | None = None
    ahead: deque[Future[_Block]] = deque()
    pool = ThreadPoolExecutor(2, thread_name_prefix="block")
    try:
        for shard in shards:
            left = islice(stream, len(shard))
            while True:
                reasons: dict[str, tuple[str, str]] = {}
                first = next_input(left, reasons)
                part: list[tuple[str, Any]] = []
                if first:
                    encoder = encoder or spec.build()  # not before there is an input that can be read
                    part = [first, *next_part(left, encoder.chunk - 1, reasons, size_of(first[1]))]
                at_once = encoder.at_once if encoder else 1
                while len(ahead) >= at_once:
                    yield ahead.popleft().result()
                if at_once == 1:
                    yield _block(encoder, spec.kind, part, reasons)
                else:
                    ahead.append(pool.submit(_block, encoder, spec.kind, part, reasons))
                if not first:
                    break
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def next_input(stream: Iterator[tuple[str, Any]], reasons: dict[str, tuple[str, str]]) -> tuple[str, Any] | None:
    """The next input that could be read, None at the end; why others could not is put into ``reasons``."""
    for content, value in stream:
        if not isinstance(value, MediaError):
            return content, value
        reasons[content] = value.code, str(value)
    return None


def next_part(
    stream: Iterator[tuple[str, Any]], most: int, reasons: dict[str, tuple[str, str]], size: int = 0
) -> list[tuple[str, Any]]:
    """The next inputs that could be read, at most ``most`` and, with the ``size`` bytes that are there already, about
    :data:`AHEAD_BYTES`. Those that could not be read do not count, so that they change nobody's part."""
    part: list[tuple[str, Any]] = []
    while len(part) < most and size < AHEAD_BYTES and (pair := next_input(stream, reasons)):
        part.append(pair)
        size += size_of(pair[1])
    return part


def _block(
    encoder: Encoder | None, kind: str, part: list[tuple[str, Any]], reasons: dict[str, tuple[str, str]]
) -> _Block:
    """Encode a part; ``reasons`` are those of contents beside it that could not be read. An empty part ends a shard."""
    if encoder is None or not part:
        return _Block((), np.zeros((0, 0), np.float32), reasons, 0, last=True)
    halved = encoder.halved
    try:
        vectors = encoder.encode([value for _, value in part])
    except MemoryError:  # OutOfMemory of the network, or of what makes its input
        part, vectors = _one_by_one(encoder, part, reasons)
    if vectors.shape != (len(part), encoder.dim):
        raise ValueError(f"{kind} gave {vectors.shape}, expected ({len(part)}, {encoder.dim})")
    bad = unusable(vectors)
    for at in np.flatnonzero(bad):
        reasons[part[at][0]] = "bad_vector", "NaN, infinite or zero"
    contents = tuple(content for (content, _), b in zip(part, bad.tolist(), strict=True) if not b)
    return _Block(contents, vectors[~bad] if bad.any() else vectors, reasons, encoder.halved - halved, last=False)


def _one_by_one(
    encoder: Encoder, part: list[tuple[str, Any]], reasons: dict[str, tuple[str, str]]
) -> tuple[list[tuple[str, Any]], Float32]:
    """What of a part fits into memory alone, with its vectors."""
    kept, rows = [], []
    for content, value in part:
        try:
            rows.append(encoder.encode([value]))
            kept.append((content, value))
        except MemoryError as error:
            reasons[content] = "out_of_memory", str(error) or "it does not fit into the memory"
    return kept, np.concatenate(rows) if rows else np.zeros((0, encoder.dim), np.float32)


def size_of(value: Any) -> int:
    """About how much memory a decoded input takes: an array, a picture, or a tuple or dataclass of such."""
    if hasattr(value, "nbytes"):
        return int(value.nbytes)
    if hasattr(value, "getbands"):
        return int(value.width * value.height * 4)
    if isinstance(value, tuple):
        return sum(map(size_of, value))
    return sum(size_of(getattr(value, f.name)) for f in fields(value)) if is_dataclass(value) else 64


def loaded(modality: Modality, missing: Sequence[tuple[str, int]]) -> Generator[tuple[str, Any], None, None]:
    """(content, encoder input or MediaError) in the order given; threads run a bounded number of inputs ahead.

    The threads only wait: media are decoded in bounded child processes (:mod:`fusionrec.media.bounded`), which end with
    the run. Decoded inputs that wait for the model are bounded in number and in bytes.
    """

    def load(row: int) -> Any:
        try:
            return modality.load(row)
        except MediaError as error:
            return error

    # Twice as many threads as decoders: while one unpacks an answer, its decoder has the next file.
    pool = ThreadPoolExecutor(2 * bounded.CHILDREN, thread_name_prefix="decode")
    ahead: deque[tuple[str, Future[Any]]] = deque()
    room = bounded.CHILDREN  # until the first sizes are known
    largest = 1
    waiting = iter(missing)
    try:
        while True:
            ahead.extend((key, pool.submit(load, row)) for key, row in islice(waiting, max(room - len(ahead), 0)))
            if not ahead:
                return
            name, future = ahead.popleft()
            value = future.result()
            largest = max(largest, size_of(value))
            room = min(max(AHEAD_BYTES // largest, 1), AHEAD)
            yield name, value
            del value, future
    except BaseException:  # the run is over: nobody waits for a decoder that hangs
        bounded.close(now=True)
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        bounded.close()
