"""The content-addressed store of vectors: what was encoded once is never encoded again.

    store/<fingerprint>/<name>.npy     (n, D) float32
    store/<fingerprint>/<name>.json    keys of the rows, sha256 of the .npy

``name`` is a digest of the keys and of the vectors, so writers cannot collide and a changed manifest is noticed. The
manifest is renamed into place after the vectors: a shard without one does not exist. Any number of processes may read
and write at once.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class _Shard:
    path: Path  # of the .npy
    sha256: str
    keys: tuple[str, ...]


class Store:
    """Vectors by (encoder fingerprint, content hash), both 64 hex digits."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._manifests: dict[Path, _Shard] = {}

    def put(self, fingerprint: str, keys: Sequence[str], vectors: Float32, dim: int) -> None:
        """Write one shard: ``vectors`` (n, dim) float32, row i belongs to ``keys[i]``.

        Raises ValueError for a shape other than (n, dim), NaN, infinite or all-zero rows, and keys that are no sha256
        or occur twice: such vectors never reach the disk.
        """
        problem = _problem(keys, vectors, dim)
        if problem:
            raise ValueError(f"not stored: {problem}")
        if not keys:
            return
        folder = self._folder(fingerprint)
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(vectors))
        data = buffer.getvalue()
        sha = hashlib.sha256(data).hexdigest()
        name = _name(keys, sha)
        write_bytes(folder / f"{name}.npy", data)
        write_bytes(folder / f"{name}.json", to_json({"format_version": 1, "keys": list(keys), "sha256": sha}))

    def has(self, fingerprint: str, keys: Sequence[str]) -> Bool:
        """(n,) bool: which keys are in a sound shard."""
        index = self._index(fingerprint, set(keys))
        return np.array([k in index for k in keys], bool)

    def blocks(self, fingerprint: str, keys: Sequence[str]) -> Iterator[tuple[Int64, Float32]]:
        """(positions in ``keys``, their vectors), shard by shard; keys that are absent are left out."""
        index = self._index(fingerprint, set(keys))
        by_shard: dict[Path, list[tuple[int, int]]] = {}
        for position, key in enumerate(keys):
            if key in index:
                path, row = index[key]
                by_shard.setdefault(path, []).append((row, position))
        for path in sorted(by_shard):
            pairs = np.array(sorted(by_shard[path]), np.int64)
            yield pairs[:, 1], np.load(path, mmap_mode="r", allow_pickle=False)[pairs[:, 0]]

    def get(self, fingerprint: str, keys: Sequence[str]) -> tuple[Bool, Float32]:
        """(n,) bool which keys were found, and (n, D) float32 with zero rows for the others (D 0 if none was found)."""
        found, out = np.zeros(len(keys), bool), np.zeros((len(keys), 0), np.float32)
        for positions, vectors in self.blocks(fingerprint, keys):
            if not out.shape[1]:
                out = np.zeros((len(keys), vectors.shape[1]), np.float32)
            out[positions], found[positions] = vectors, True
        return found, out

    def _folder(self, fingerprint: str) -> Path:
        if not _HEX.fullmatch(fingerprint):
            raise ValueError(f"a fingerprint is 64 hex digits, found {fingerprint[:80]!r}")
        return self.root / fingerprint

    def _index(self, fingerprint: str, wanted: set[str]) -> dict[str, tuple[Path, int]]:
        """wanted key -> (shard, row), over shards that hold a wanted key and whose bytes match their manifest."""
        folder = self._folder(fingerprint)
        index: dict[str, tuple[Path, int]] = {}
        for manifest in sorted(folder.glob("*.json")) if folder.is_dir() else ():
            shard = self._manifest(manifest)
            rows = [(key, row) for row, key in enumerate(shard.keys) if key in wanted] if shard else []
            if shard and rows and self._sound(shard):
                index.update({key: (shard.path, row) for key, row in rows})
        _sweep(folder)
        return index

    def _manifest(self, path: Path) -> _Shard | None:
        if path not in self._manifests:
            try:
                value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                shard = _Shard(path.with_suffix(".npy"), value["sha256"], tuple(value["keys"]))
                if value["format_version"] != 1 or _name(shard.keys, shard.sha256) != path.stem:
                    raise ValueError("the manifest does not match its name")
            except FileNotFoundError:
                return None
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                self._discard(path, str(error))
                return None
            self._manifests[path] = shard
        return self._manifests[path]

    def _sound(self, shard: _Shard) -> bool:
        try:
            if sha256_file(shard.path) == shard.sha256:
                return True
            reason = "its bytes changed"
        except FileNotFoundError:
            reason = "its vectors are missing"
        self._discard(shard.path.with_suffix(".json"), reason)
        return False

    def _discard(self, manifest: Path, reason: str) -> None:
        """A broken shard is removed, manifest first; its rows will be encoded again."""
        log.warning("broken shard dropped from the store", shard=manifest.stem, reason=reason)
        self._manifests.pop(manifest, None)
        manifest.unlink(missing_ok=True)
        manifest.with_suffix(".npy").unlink(missing_ok=True)


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
        except (ValueError, KeyError, TypeError):
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
