"""The content-addressed store of vectors: what was encoded once is never encoded again.

    store/<fingerprint>/<name>.npy     (n, D) float32
    store/<fingerprint>/<name>.json    keys of the rows, sha256 of the .npy, how many batches were halved for want of
                                       memory, keys that were to be encoded with them and have no vector
    store/<fingerprint>/seen           size and modification time of each .npy when it was last hashed
    store/<fingerprint>/precision      how far half precision is from float32, measured before the first vector

``name`` is a digest of the keys and of the vectors, so writers cannot collide and a changed manifest is noticed. The
manifest is renamed into place after the vectors: a shard without one does not exist. Any number of processes may read
and write at once. A shard is hashed when it is new or its size or time changed, not each time it is read; ``fusionrec
verify`` hashes all of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from fusionrec.data.files import to_json, write_bytes
from fusionrec.encoders.weights import sha256_file
from fusionrec.types import Bool, Float32, Int64

log = structlog.get_logger(__name__)
_HEX = re.compile(r"[0-9a-f]{64}")
STALE_SECONDS = 24 * 3600
SEEN, VERDICT = "seen", "precision"
MOST_ASIDE = 64 << 20  # bytes of either: `seen` has about 100 a shard


@dataclass(frozen=True)
class _Shard:
    path: Path  # of the .npy
    sha256: str
    keys: tuple[str, ...]
    halved: int
    failed: tuple[str, ...]


class Store:
    """Vectors by (encoder fingerprint, content hash), both 64 hex digits."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._manifests: dict[Path, _Shard] = {}
        self._seen: dict[Path, dict[str, list[int]]] = {}  # folder -> name of an .npy -> size, time in ns
        self._news: set[Path] = set()  # folders of which more is known than their file says

    def put(
        self,
        fingerprint: str,
        keys: Sequence[str],
        vectors: Float32,
        dim: int,
        *,
        halved: int = 0,
        failed: Iterable[str] = (),
    ) -> None:
        """Write one shard: ``vectors`` (n, dim) float32, row i belongs to ``keys[i]``; ``halved``: how many of its
        batches were computed in halves; ``failed``: keys that were to be in it and have no vector.

        Raises ValueError for a shape other than (n, dim), NaN, infinite or all-zero rows, and keys that are no sha256
        or occur twice: such vectors never reach the disk.
        """
        if not keys:
            return
        problem = _problem(keys, vectors, dim)
        if problem:
            raise ValueError(f"not stored: {problem}")
        folder = self._folder(fingerprint)
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(vectors))
        data = buffer.getvalue()
        sha = hashlib.sha256(data).hexdigest()
        name = _name(keys, sha)
        write_bytes(folder / f"{name}.npy", data)
        self._hashed(folder / f"{name}.npy", _state(folder / f"{name}.npy"))
        about = {"format_version": 1, "keys": list(keys), "sha256": sha, "halved": halved, "failed": sorted(failed)}
        write_bytes(folder / f"{name}.json", to_json(about))

    def has(self, fingerprint: str, keys: Sequence[str]) -> Bool:
        """(n,) bool: which keys are in a sound shard."""
        wanted, known = set(keys), set[str]()
        for shard in self._holding(fingerprint, wanted):
            known.update(wanted.intersection(shard.keys))
        return np.fromiter(map(known.__contains__, keys), bool, len(keys))

    def blocks(self, fingerprint: str, keys: Sequence[str]) -> Iterator[tuple[Int64, Float32]]:
        """(positions in ``keys``, their vectors), shard by shard; keys that are absent are left out."""
        number = {key: n for n, key in enumerate(dict.fromkeys(keys))}
        shards = self._holding(fingerprint, number.keys())
        shard_of, row_of = np.full(len(number), -1), np.zeros(len(number), np.int64)
        for at, shard in enumerate(shards):
            found = np.fromiter(map(number.get, shard.keys, repeat(-1)), np.int64, len(shard.keys))
            rows = np.flatnonzero(found >= 0)
            shard_of[found[rows]], row_of[found[rows]] = at, rows
        which = np.fromiter(map(number.__getitem__, keys), np.int64, len(keys))
        shard_of, row_of = shard_of[which], row_of[which]
        order = np.lexsort((row_of, shard_of))
        ends = np.searchsorted(shard_of[order], np.arange(len(shards) + 1))
        for shard, start, end in zip(shards, ends[:-1], ends[1:], strict=True):
            if start < end:
                positions = order[start:end]
                yield positions, np.load(shard.path, mmap_mode="r", allow_pickle=False)[row_of[positions]]

    def get(self, fingerprint: str, keys: Sequence[str]) -> tuple[Bool, Float32]:
        """(n,) bool which keys were found, and (n, D) float32 with zero rows for the others (D 0 if none was found)."""
        found, out = np.zeros(len(keys), bool), np.zeros((len(keys), 0), np.float32)
        for positions, vectors in self.blocks(fingerprint, keys):
            if not out.shape[1]:
                out = np.zeros((len(keys), vectors.shape[1]), np.float32)
            out[positions], found[positions] = vectors, True
        return found, out

    def halved(self, fingerprint: str, keys: Collection[str]) -> int:
        """How many of the shards that hold a key had a batch computed in halves."""
        return sum(1 for shard in self._holding(fingerprint, set(keys)) if shard.halved)

    def failed(self, fingerprint: str, keys: Collection[str]) -> set[str]:
        """Those of the keys that have no vector although the rest of their shard was written."""
        shards = filter(None, map(self._manifest, sorted(self._folder(fingerprint).glob("*.json"))))
        return {key for shard in shards for key in shard.failed}.intersection(keys)

    def verdict(self, fingerprint: str) -> dict[str, float] | None:
        """What :meth:`keep_verdict` kept; None where nothing readable is there."""
        found = _aside(self._folder(fingerprint) / VERDICT)
        try:
            verdict = {name: float(found[name]) for name in ("sample", "mean", "least")}
        except (ValueError, KeyError, TypeError, OverflowError):
            return None
        cosines = all(-1.01 < verdict[name] < 1.01 for name in ("mean", "least"))
        return verdict if cosines and 1 <= verdict["sample"] < math.inf else None

    def keep_verdict(self, fingerprint: str, verdict: Mapping[str, float]) -> None:
        """Keep how far the vectors of this fingerprint are from those in float32."""
        write_bytes(self._folder(fingerprint) / VERDICT, to_json(dict(verdict)))

    def _folder(self, fingerprint: str) -> Path:
        if not _HEX.fullmatch(fingerprint):
            raise ValueError(f"a fingerprint is 64 hex digits, found {fingerprint[:80]!r}")
        return self.root / fingerprint

    def _holding(self, fingerprint: str, wanted: Set[str]) -> list[_Shard]:
        """The shards that hold a wanted key and whose bytes match their manifest."""
        folder = self._folder(fingerprint)
        out = []
        for manifest in sorted(folder.glob("*.json")) if folder.is_dir() else ():
            shard = self._manifest(manifest)
            if shard and not wanted.isdisjoint(shard.keys) and self._sound(shard):
                out.append(shard)
        if out:
            self._keep_seen(folder)
        _sweep(folder)
        return out

    def _manifest(self, path: Path) -> _Shard | None:
        if path not in self._manifests:
            try:
                value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                keys, halved, failed = tuple(value["keys"]), int(value.get("halved", 0)), value.get("failed", ())
                shard = _Shard(path.with_suffix(".npy"), value["sha256"], keys, halved, tuple(map(str, failed)))
                if value["format_version"] != 1 or _name(shard.keys, shard.sha256) != path.stem:
                    raise ValueError("the manifest does not match its name")
            except FileNotFoundError:
                return None
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
                self._discard(path, str(error))
                return None
            self._manifests[path] = shard
        return self._manifests[path]

    def _sound(self, shard: _Shard) -> bool:
        try:
            state = _state(shard.path)
            if self._looked_at(shard.path.parent).get(shard.path.name) == state:
                return True
            if sha256_file(shard.path) == shard.sha256:
                self._hashed(shard.path, state)
                return True
            reason = "its bytes changed"
        except FileNotFoundError:
            reason = "its vectors are missing"
        self._discard(shard.path.with_suffix(".json"), reason)
        return False

    def _looked_at(self, folder: Path) -> dict[str, list[int]]:
        if folder not in self._seen:
            try:
                found = _aside(folder / SEEN)
                self._seen[folder] = {str(name): list(map(int, state)) for name, state in found.items()}
            except (ValueError, TypeError, OverflowError):
                self._seen[folder] = {}
        return self._seen[folder]

    def _hashed(self, path: Path, state: list[int]) -> None:
        """Its bytes are what its manifest says, as long as its size and time stay."""
        self._looked_at(path.parent)[path.name] = state
        self._news.add(path.parent)

    def _keep_seen(self, folder: Path) -> None:
        if folder in self._news:
            self._news.discard(folder)
            with contextlib.suppress(OSError):  # a full or read-only disk: what is read is sound, it is hashed again
                write_bytes(folder / SEEN, to_json(self._seen[folder]))

    def _discard(self, manifest: Path, reason: str) -> None:
        """A broken shard is removed, manifest first; its rows will be encoded again."""
        log.warning("broken shard dropped from the store", shard=manifest.stem, reason=reason)
        self._manifests.pop(manifest, None)
        manifest.unlink(missing_ok=True)
        manifest.with_suffix(".npy").unlink(missing_ok=True)


def _aside(path: Path) -> dict[str, Any]:
    """A JSON object that only saves work; {} where it is missing, too large or none."""
    try:
        found = json.loads(path.read_bytes()) if path.stat().st_size <= MOST_ASIDE else {}
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}


def _state(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _name(keys: Sequence[str], sha256: str) -> str:
    return hashlib.sha256("\n".join([sha256, *keys]).encode()).hexdigest()[:32]


def _problem(keys: Sequence[str], vectors: Float32, dim: int) -> str:
    """What is wrong with a shard; "" if nothing is."""
    if vectors.dtype != np.float32 or vectors.shape != (len(keys), dim) or dim < 1:
        return f"found {vectors.dtype} {vectors.shape}, expected float32 ({len(keys)}, {dim})"
    if len(set(keys)) != len(keys) or not all(_HEX.fullmatch(k) for k in keys):
        return "keys must be distinct sha256 digests"
    bad = unusable(vectors)
    return f"row {int(np.argmax(bad))} is NaN, infinite or zero" if bad.any() else ""


def unusable(vectors: Float32) -> Bool:
    """(n,) bool: rows that hold NaN or infinity, or only zeros."""
    return np.logical_not(np.isfinite(vectors).all(axis=1) & vectors.any(axis=1))


def verify(root: Path) -> list[str]:
    """One line per damaged shard below ``root``; nothing is changed. Every byte is read again."""
    bad = []
    for manifest in sorted(root.glob("*/*.json")):
        vectors = manifest.with_suffix(".npy")
        where = f"store/{manifest.parent.name[:12]}/{manifest.stem}"
        try:
            value = json.loads(manifest.read_text(encoding="utf-8"))
            with open(vectors, "rb") as file:
                sha = hashlib.file_digest(file, "sha256").hexdigest()
            if _name(value["keys"], value["sha256"]) != manifest.stem or sha != value["sha256"]:
                bad.append(f"{where}: its bytes do not match its manifest")
        except FileNotFoundError:
            bad.append(f"{where}: its vectors are missing")
        except (ValueError, KeyError, TypeError, RecursionError):
            bad.append(f"{where}: its manifest is not readable")
    return bad


def _sweep(folder: Path) -> None:
    """Remove what a killed writer left, once it is surely dead."""
    for path in folder.glob(".*.tmp") if folder.is_dir() else ():
        try:
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()
        except FileNotFoundError:
            continue
