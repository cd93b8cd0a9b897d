"""Checkpoints of the training loop: atomic, hashed, and enough to go on as if nothing had happened.

A checkpoint is a folder ``epoch-00007``: ``state.safetensors`` (weights, best weights, optimiser) and ``state.json``
(counters, the curve so far, the sha256 of both files). It is made under another name, synced, and renamed; one that
does not match its hashes is passed over for the one before, so two are kept. No random state is stored: the loop seeds
every epoch from (seed, epoch), see :func:`fusionrec.recommenders.training.train`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionrec.data.files import fresh_folder, to_json, write_bytes

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = 1
KEPT = 2
TENSORS, COUNTERS = "state.safetensors", "state.json"


@dataclass
class Progress:
    """What is known after ``epoch`` epochs: best validation value, validations since, one row an epoch."""

    epoch: int = 0
    best: float = float("-inf")
    since: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    done: bool = False


@dataclass
class _Place:
    folder: Path
    effort: float
    calls: int = 0


_place: ContextVar[_Place | None] = ContextVar("checkpoints", default=None)


@contextmanager
def resumable(folder: Path, effort: float = 0.05) -> Iterator[None]:
    """Inside, every ``train`` call keeps checkpoints under ``folder/<number of the call>`` and goes on from the newest.

    ``effort``: the share of the time that may go into writing them. The first epoch's is always written, a later
    one when it is worth it; with ``inf`` every epoch's. The caller removes the folder when it has the results.
    """
    token = _place.set(_Place(folder, effort))
    try:
        yield
    finally:
        _place.reset(token)


def next_checkpoints(start: str, writes: bool) -> Checkpoints | None:
    """The checkpoints of the next ``train`` call, None outside :func:`resumable`.

    ``start`` identifies what is trained: a checkpoint of anything else is not used. ``writes``: whether this process
    is the one that writes.
    """
    place = _place.get()
    if place is None:
        return None
    place.calls += 1
    return Checkpoints(place.folder / f"{place.calls:02d}", start, place.effort, writes)


class Checkpoints:
    """The checkpoints of one training."""

    def __init__(self, folder: Path, start: str, effort: float = 0.05, writes: bool = True) -> None:
        self.folder, self.start, self.effort, self.writes = folder, start, effort, writes
        self._cost, self._last = 0.0, -float("inf")
        if writes and folder.is_dir():
            for torn in folder.glob(".*.tmp"):  # of a run that was killed while it wrote
                shutil.rmtree(torn, ignore_errors=True)

    def newest(self) -> tuple[Progress, dict[str, Tensor]] | None:
        """The newest complete one: what it knows, and its tensors on the CPU; None where there is none.

        What cannot be used is removed: it would count as newer than those of the epochs done again.
        """
        for folder in reversed(self._all()):
            found = self._read(folder)
            if found is not None:
                return found
            if self.writes:
                shutil.rmtree(folder, ignore_errors=True)
        return None

    def due(self) -> bool:
        """Whether writing one now keeps within the effort."""
        return self.writes and self._cost <= self.effort * (time.monotonic() - self._last)

    def write(self, progress: Progress, tensors: Mapping[str, Tensor]) -> None:
        """Put a complete checkpoint beside the last one and drop older ones."""
        if not self.writes:
            return
        from safetensors.torch import save_file

        began = time.monotonic()
        with fresh_folder(self.folder / f"epoch-{progress.epoch:05d}") as making:
            path = making / TENSORS
            save_file({name: value.detach().contiguous().cpu() for name, value in tensors.items()}, path)
            with path.open("rb") as file:
                os.fsync(file.fileno())
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            about = {"format_version": FORMAT_VERSION, "start": self.start, "tensors": digest, **_to_text(progress)}
            write_bytes(making / COUNTERS, to_json({**about, "digest": _digest(about)}))
        for old in self._all()[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        self._last = time.monotonic()
        self._cost = self._last - began

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("epoch-*")) if self.folder.is_dir() else []

    def _read(self, folder: Path) -> tuple[Progress, dict[str, Tensor]] | None:
        from safetensors.torch import load

        try:
            about = json.loads((folder / COUNTERS).read_bytes())
            if about.pop("digest") != _digest(about) or about.pop("format_version") != FORMAT_VERSION:
                return None
            content = (folder / TENSORS).read_bytes()
            if hashlib.sha256(content).hexdigest() != about.pop("tensors") or about.pop("start") != self.start:
                return None
            return _from_text(about), load(content)
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return None


def _digest(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(to_json(about)).hexdigest()


def _to_text(progress: Progress) -> dict[str, Any]:
    """JSON has no infinity; ``repr`` gives every float back exactly."""
    rows = [{name: repr(float(value)) for name, value in row.items()} for row in progress.curve]
    return {**asdict(progress), "best": repr(float(progress.best)), "curve": rows}


def _from_text(about: Mapping[str, Any]) -> Progress:
    rows = [{name: float(text) for name, text in row.items()} for row in about["curve"]]
    return Progress(about["epoch"], float(about["best"]), about["since"], rows, about["done"])
