"""A sealed folder: plain files, one manifest with the sha256 of each, and one digest over the manifest.

Nothing in a sealed folder is opened before every file in it has been hashed: safetensors loads a flipped bit
without a word, so the format of a file is no protection. No pickle is written or read anywhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusionrec.data.files import fresh_folder, to_json, write_bytes
from fusionrec.errors import ConfigError, IntegrityError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def digest_of(manifest: Mapping[str, Any]) -> str:
    """sha256 of the manifest without its own digest."""
    return hashlib.sha256(to_json({k: v for k, v in manifest.items() if k != "digest"})).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path, files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> str:
    """Replace ``folder`` by these files and their manifest; returns the digest.

    ``files``, ``format_version`` and ``digest`` are added to the manifest, which is written last.
    """
    bad = [name for name in files if not _NAME.fullmatch(name) or name == MANIFEST]
    if bad:
        raise ValueError(f"not usable as file names in a bundle: {bad}")
    complete = {
        **manifest,
        "format_version": FORMAT_VERSION,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    complete["digest"] = digest_of(complete)

    with fresh_folder(folder) as target:
        for name in sorted(files):
            write_bytes(target / name, files[name])
        write_bytes(target / MANIFEST, to_json(complete))
    return str(complete["digest"])


@dataclass(frozen=True)
class Sealed:
    """A folder whose every file matched its sha256 when it was opened."""

    folder: Path
    manifest: Mapping[str, Any]
    digest: str

    def read(self, name: str) -> bytes:
        """The bytes of a file, hashed again, so that what is parsed is what was recorded."""
        content = (self.folder / name).read_bytes()
        if hashlib.sha256(content).hexdigest() != self.manifest["files"].get(name):
            raise IntegrityError(f"{self.folder.name}/{name} changed while it was being read; it is not loaded")
        return content


def read_manifest(path: Path, version: int = FORMAT_VERSION) -> dict[str, Any]:
    """A manifest: JSON of the format_version ``version``, in the very bytes that we write.

    IntegrityError names the file where it is missing or is not one, ConfigError for a format that we do not read.
    """
    where = f"{path.parent.name}/{path.name}"
    try:
        content = path.read_bytes()
        value = json.loads(content.decode("utf-8"))
    except FileNotFoundError:
        raise IntegrityError(f"{where} is missing; expected a bundle: run the pipeline or `dvc pull`") from None
    except (ValueError, RecursionError, OSError) as error:
        raise IntegrityError(f"{where} is not JSON ({error}); the folder is not loaded") from None
    if not isinstance(value, dict):
        raise IntegrityError(f"{where} holds a {type(value).__name__}, expected a mapping; the folder is not loaded")
    if value.get("format_version") != version:
        raise ConfigError(
            f"{where} has format_version {value.get('format_version')!r}, this version reads {version}: "
            "use the fusionrec that wrote it, or run the pipeline again"
        )
    try:
        same = to_json(value) == content
    except ValueError:  # NaN, a lone surrogate
        same = False
    if not same:
        raise IntegrityError(f"{where} was changed: it is not spelled as it was written; the folder is not loaded")
    return value


def unseal(folder: Path, expected: str | None = None) -> Sealed:
    """Verify a sealed folder and open it; nothing but the manifest is parsed here.

    ``expected``: the digest recorded elsewhere. Raises IntegrityError naming the file that was added, removed,
    or changed, and ConfigError for an unknown format_version.
    """
    name = folder.name
    manifest = read_manifest(folder / MANIFEST)
    files = manifest.get("files")
    if not isinstance(files, dict) or any(not _NAME.fullmatch(f) or f == MANIFEST for f in files):
        raise IntegrityError(f"{name}/{MANIFEST} lists unusable file names; the folder is not loaded")
    found = {entry.name for entry in folder.iterdir()} - {MANIFEST}
    if extra := sorted(found - set(files)):
        raise IntegrityError(f"{name}/{extra[0]} is not in the manifest; the folder is not loaded: remove the file")
    if gone := sorted(set(files) - found):
        raise IntegrityError(f"{name}/{gone[0]} is in the manifest and missing on disk; restore it (`dvc checkout`)")
    if manifest.get("digest") != digest_of(manifest):
        raise IntegrityError(f"{name}/{MANIFEST} was changed: its digest does not match; the folder is not loaded")
    for file in sorted(files):
        path = folder / file
        actual = sha256_file(path) if path.is_file() else "a folder"
        if actual != files[file]:
            raise IntegrityError(
                f"{name}/{file} does not match its recorded sha256 (found {actual[:12]}, expected "
                f"{str(files[file])[:12]}); it is not loaded: restore it (`dvc checkout`) or run the pipeline again"
            )
    digest = str(manifest["digest"])
    if expected is not None and digest != expected:
        raise IntegrityError(
            f"{name} is another bundle than the one recorded (found digest {digest[:12]}, expected {expected[:12]}); "
            "it is not loaded"
        )
    return Sealed(folder, manifest, digest)
