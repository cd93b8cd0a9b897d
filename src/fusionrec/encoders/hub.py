"""Weights that params.yaml names: of a model hub at one revision, in a folder, or in an installed package.

Only files on a list of names are looked at, each is hashed before it is read, and tensors come from .safetensors alone:
a pickle, a Python file or an adapter beside them is never opened. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator, model_validator

from fusionrec.encoders.weights import sha256_file
from fusionrec.errors import ConfigError, IntegrityError, Unavailable, UsageError
from fusionrec.paths import Paths
from fusionrec.types import Spec

if TYPE_CHECKING:
    import torch

TENSORS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
_download = ContextVar("download", default=True)


@contextmanager
def no_download() -> Iterator[None]:
    """Inside, weights that are not on this machine are an error, not a download."""
    token = _download.set(False)
    try:
        yield
    finally:
        _download.reset(token)


class Weights(Spec):
    """Exactly one of ``hub`` (a model's id, with the 40 hex digits of a ``revision``), ``path`` (a folder, or one
    .safetensors file; relative to the project) and ``package`` (an import name; the package is not imported).
    ``folder``: the sub-folder inside of it. ``sha256``: what :meth:`digest` must give, where that is to be pinned."""

    hub: str | None = Field(None, pattern=r"^([A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*$")
    revision: str | None = Field(None, pattern=r"^[0-9a-f]{40}$")
    path: str | None = Field(None, min_length=1)
    package: str | None = Field(None, pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")
    folder: str = Field("", pattern=r"^([\w-][\w.-]*(/[\w-][\w.-]*)*)?$")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")

    @field_validator("revision", mode="before")
    @classmethod
    def _commit(cls, value: Any) -> Any:
        if isinstance(value, str) and not re.fullmatch(r"[0-9a-f]{40}", value):
            raise ValueError(
                f"found {value!r}, expected the 40 hex digits of a commit: names of branches and tags move"
            )
        return value

    @model_validator(mode="after")
    def _one_place(self) -> Weights:
        named = [name for name in ("hub", "path", "package") if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(f"found {' and '.join(named) or 'none'}, expected exactly one of hub, path and package")
        if self.hub is not None and self.revision is None:
            raise ValueError(
                f"hub: {self.hub} needs the revision, 40 hex digits (the commit on the model's page): what a hub's "
                "branch holds may change"
            )
        if self.hub is None and self.revision is not None:
            raise ValueError("revision belongs to hub; a folder or a package is pinned by sha256")
        return self

    def __str__(self) -> str:
        return f"{self.hub}@{str(self.revision)[:12]}" if self.hub else str(self.path or self.package)

    def verified(self, others: Sequence[str] = ()) -> dict[str, Path]:
        """Name -> path of the tensors and of those of ``others`` that are there, hashed and compared with what is
        known of them: the hub's own hashes, and ``sha256``.

        Downloads where the files are the hub's and not yet in its cache. Raises ConfigError, Unavailable and
        IntegrityError.
        """
        names = (*TENSORS, *others)
        found = self._hub_files(names) if self.hub else self._local_files(names)
        if not _complete(found):
            names_found = ", ".join(sorted(found)) or "none"
            raise ConfigError(
                f"weights: {self} holds no complete set of model.safetensors (found {names_found}); other formats "
                "can execute code and are not read: convert them to safetensors first"
            )
        for path in found.values():
            _as_named(path)
        digest = _digest(found)
        if self.sha256 not in (None, digest):
            raise IntegrityError(f"weights: {self} has the sha256 {digest}, expected {self.sha256}; it is not loaded")
        return found

    def digest(self, others: Sequence[str] = ()) -> str:
        """Hex sha256 over the names and the sha256 of the files of :meth:`verified`; the same wherever they lie."""
        return _digest(self.verified(others))

    def _local_files(self, names: Sequence[str]) -> dict[str, Path]:
        if self.package:
            spec = importlib.util.find_spec(self.package.partition(".")[0])  # a parent of a dotted name is imported
            places = list(spec.submodule_search_locations or []) if spec else []
            if not places:
                raise ConfigError(f"weights: the package {self.package} is not installed; install it with pip")
            root = Path(places[0], *self.package.split(".")[1:])
        else:
            try:
                root = Paths.find().project / str(self.path)
            except UsageError:
                root = Path(str(self.path)).resolve()
        root = root / self.folder
        if root.is_file() and root.suffix == ".safetensors":
            return {"model.safetensors": root}
        if not root.is_dir():
            raise ConfigError(f"weights: {root} is neither a folder nor a .safetensors file")
        return _listed(root, names)

    def _hub_files(self, names: Sequence[str]) -> dict[str, Path]:
        from huggingface_hub import constants, snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

        wanted = [f"{self.folder}/{name}" if self.folder else name for name in names]
        place: dict[str, Any] = {"repo_id": self.hub, "revision": self.revision, "allow_patterns": wanted}
        try:
            found = _listed(Path(snapshot_download(**place, local_files_only=True)) / self.folder, names)
            if _complete(found):
                return found
        except LocalEntryNotFoundError:
            pass
        command = f"hf download {self.hub} --revision {self.revision} --local-dir FOLDER"
        if constants.HF_HUB_OFFLINE or not _download.get():
            offline = constants.HF_HUB_OFFLINE
            why = "HF_HUB_OFFLINE is set. Unset it and run" if offline else "nothing is downloaded here. Run"
            raise ConfigError(
                f"weights: {self} is not in the hub's cache on this machine, and {why} the stage embed, "
                f"which fetches it; or, where there is a network: {command}, bring the folder here and write "
                "weights: {path: FOLDER}"
            )
        try:
            return _listed(Path(snapshot_download(**place)) / self.folder, names)
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            raise ConfigError(
                f"weights: the hub has no {self} for you ({_line(error)}); check the id and the revision, "
                "and log in to the hub where the model is not public"
            ) from None
        except Exception as error:  # of the network there are many kinds, from several libraries
            raise Unavailable(
                f"weights: the hub did not give {self} ({_line(error)}). Try again; or, where there is a network: "
                f"{command}, bring the folder here and write weights: {{path: FOLDER}}"
            ) from None


def tensors(files: dict[str, Path]) -> dict[str, torch.Tensor]:
    """All tensors of :meth:`Weights.verified`. Raises IntegrityError where a file is no safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    out: dict[str, torch.Tensor] = {}
    for name, path in sorted(files.items()):
        if name.endswith(".safetensors"):
            try:
                out |= load_file(path)
            except SafetensorError as error:
                raise IntegrityError(f"{path} is no safetensors file ({error}); it is not loaded") from None
    return out


def _listed(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    there = sorted(p for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []
    return {p.name: p for p in there if any(fnmatch(p.name, name) for name in names)}


def _complete(files: dict[str, Path]) -> bool:
    """Whether there is one file of tensors, or all parts that the names speak of."""
    parts = [m for name in files if (m := re.fullmatch(r"model-(\d+)-of-(\d+)\.safetensors", name))]
    return "model.safetensors" in files or (
        "model.safetensors.index.json" in files and bool(parts) and len(parts) == int(parts[0][2])
    )


def _as_named(path: Path) -> None:
    """In its cache the hub names a file by its hash: sha256 of a large one, git's object id of a small one."""
    name = path.resolve().name
    if path.is_symlink() and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", name):
        if len(name) == 64:
            found = sha256_file(path)
        else:
            data = path.read_bytes()
            found = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        if found != name:
            raise IntegrityError(
                f"{path} has the hash {found[:16]}..., the hub says {name[:16]}...; it is not loaded. Remove the file "
                f"{path.resolve()}, it will be downloaded again"
            )


def _digest(files: dict[str, Path]) -> str:
    lines = "\n".join(f"{sha256_file(path)}  {name}" for name, path in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:200]
