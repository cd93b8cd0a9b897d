"""``fusionrec verify``: re-hash what DVC's cache and the embedding store serve silently.

DVC trusts its cache: a flipped bit is checked out and ``dvc status`` says that all is well. Here every cache object
that dvc.lock and the .dvc files name is read again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusionrec.errors import ConfigError, IntegrityError
from fusionrec.paths import Paths
from fusionrec.problems import read_yaml


@dataclass(frozen=True)
class Checked:
    """``files`` were read (``bytes`` in all); ``missing`` objects are not in the cache (not an error: pull or
    repro)."""

    files: int
    bytes: int
    missing: tuple[str, ...]


def verify(paths: Paths) -> Checked:
    """Raises IntegrityError with one line per damaged file: which out, which object, expected and found; at once for a
    dvc.lock or .dvc file that is none, and ConfigError where DVC cannot be used."""
    cache = _cache(paths.project)
    files = size = 0
    bad: list[str] = []
    missing: list[str] = []
    seen: set[str] = set()
    for out, md5 in _named(paths.project):
        for name, digest in _objects(cache, out, md5, bad, missing):
            if digest in seen:
                continue
            seen.add(digest)
            path = _object(cache, digest)
            if not path.is_file():
                missing.append(name)
                continue
            files, size = files + 1, size + path.stat().st_size
            found = _md5(path)
            if found != digest.removesuffix(".dir"):
                bad.append(f"{name}: cache object {path} has md5 {found}, expected {digest.removesuffix('.dir')}")
    bad += _store(paths)
    if bad:
        raise IntegrityError(
            f"{len(bad)} damaged file(s): {bad[0]}\n"
            + "\n".join(f"  {line}" for line in bad)
            + "\n  delete the named cache objects, then `dvc pull` or `fusionrec repro`"
        )
    return Checked(files, size, tuple(missing))


def _cache(project: Path) -> Path:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(project)) as repo:
            return Path(repo.cache.local.path)
    except DvcException as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"DVC cannot be used ({said}): mend .dvc/config or .dvc/config.local") from None


def _named(project: Path) -> Iterator[tuple[str, str]]:
    """(path, md5) of every out in dvc.lock and every dvc-added file."""
    lock = project / "dvc.lock"
    if lock.is_file():
        again = "take one side of a merge, or delete it and run `fusionrec repro`"
        for stage in _mapping(lock, "stages", dict, again).values():
            for out in stage.get("outs", []):
                if "md5" in out:
                    yield out["path"], out["md5"]
    for file in sorted((project / "data").rglob("*.dvc")) if (project / "data").is_dir() else ():
        if file.is_file():
            for out in _mapping(file, "outs", list, "take one side of a merge, or `dvc add` the data again"):
                if "md5" in out:
                    yield str((file.parent / out["path"]).relative_to(project)), out["md5"]


def _mapping(file: Path, key: str, kind: type, what: str) -> Any:
    """The part ``key`` of a file of DVC's. Raises IntegrityError with ``what`` to do where the file is none."""
    try:
        found = read_yaml(file.read_text(encoding="utf-8")) or {}
        part = found.get(key, kind())
        if not isinstance(part, kind):
            raise ValueError(f"{key} is a {type(part).__name__}")
        return part
    except (ValueError, AttributeError) as error:
        raise IntegrityError(f"{file.name} is no file that DVC wrote ({error}): {what}") from None


def _objects(cache: Path, out: str, md5: str, bad: list[str], missing: list[str]) -> Iterator[tuple[str, str]]:
    """The object of an out and, for a folder, those of its files."""
    yield out, md5
    if not md5.endswith(".dir"):
        return
    listing = _object(cache, md5)
    if not listing.is_file():
        return
    try:
        entries = json.loads(listing.read_bytes())
        yield from ((f"{out}/{entry['relpath']}", entry["md5"]) for entry in entries)
    except (ValueError, KeyError, TypeError):
        bad.append(f"{out}: the folder listing {listing} is not readable JSON")


def _object(cache: Path, digest: str) -> Path:
    return cache / digest[:2] / digest[2:] if cache.name == "md5" else cache / "files" / "md5" / digest[:2] / digest[2:]


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _store(paths: Paths) -> list[str]:
    """Damaged shards of the embedding store."""
    if not paths.store.is_dir():
        return []
    from fusionrec.embeddings import store

    return [str(line) for line in store.verify(paths.store)]
