"""Fits that several units of a benchmark need are done once: a part of a blend is also a model of its own, and the spec
that a search chose has been fitted by one of its trials.

A fit is named after all that decides about it: spec, seed, data, the source. What it learnt is stored with its hash in
one file, written atomically; what does not match is fitted again. Models that are fitted in no time or need much space
are not stored.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from fusionrec.data.files import write_bytes
from fusionrec.errors import IntegrityError
from fusionrec.recommenders.base import EnoughTime, Fitting, Retriever, RetrieverSpec, Watch
from fusionrec.registry.model import arrays_to_bytes, bytes_to_arrays
from fusionrec.studies.space import digest
from fusionrec.types import Interactions, ItemSet

FORMAT_VERSION = 1
WORTH = 5.0
"""Seconds from which a fit is kept."""
MOST = 64 << 20
"""Bytes of what was learnt up to which a fit is kept."""
ROOM = 1 << 30
"""Bytes of all that are kept; the oldest go."""


class Fits:
    """The fits in ``folder``, each with at most ``minutes``; ``code`` of a spec's sections: the digest of its source.

    ``facts``: what else decides (the fusion, the number of threads). ``seconds`` and ``capped``: how long the fits had
    taken that were not repeated, and whether one was cut short. One that was, and had less time, is not used.
    """

    def __init__(self, folder: Path, code: Callable[[Any], str], minutes: float, facts: Mapping[str, Any]) -> None:
        self.folder, self.code, self.minutes, self.facts = folder, code, minutes, facts
        self.seconds, self.capped = 0.0, False

    def around(self, fitting: Fitting) -> Fitting:
        """As :func:`fusionrec.recommenders.base.fitted_by` wants it."""

        def fit(
            model: Retriever, train: Interactions, valid: Interactions, items: ItemSet, seed: int, watch: Watch
        ) -> None:
            spec = getattr(model, "spec", None)
            if not isinstance(spec, RetrieverSpec):
                return fitting(model, train, valid, items, seed, watch)
            path = self.folder / f"{self._name(spec, seed, train, valid, items)}.fit"
            if (found := self._read(path)) is None:
                return self._kept(path, lambda w: fitting(model, train, valid, items, seed, w), model, watch)
            about, arrays = found
            model.restore(arrays, items.ids)
            self.seconds += about["seconds"]
            self.capped |= about["capped"]
            for row in about["curve"]:
                try:
                    watch(int(row["epoch"]), {name: value for name, value in row.items() if name != "epoch"})
                except EnoughTime:  # it is over already
                    break

        return fit

    def _kept(self, path: Path, fit: Callable[[Watch], None], model: Retriever, watch: Watch) -> None:
        curve: list[dict[str, float]] = []
        cut = False

        def watched(epoch: int, values: Mapping[str, float]) -> None:
            nonlocal cut
            curve.append({"epoch": epoch, **{name: float(value) for name, value in values.items()}})
            try:
                watch(epoch, values)
            except EnoughTime:
                cut = True
                raise

        before, capped, start = self.seconds, self.capped, time.monotonic()
        self.capped = False
        fit(watched)
        took, cut = time.monotonic() - start + self.seconds - before, cut or self.capped
        self.capped |= capped
        if took < WORTH or sum(array.nbytes for array in model.arrays().values()) > MOST:
            return
        content = arrays_to_bytes(model.arrays())
        about = {
            "format_version": FORMAT_VERSION,
            "sha256": hashlib.sha256(content).hexdigest(),
            "seconds": took,
            "minutes": self.minutes,
            "capped": cut,
            "curve": curve,
        }
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_bytes(path, json.dumps(about).encode() + b"\n" + content)
        self._prune()

    def _prune(self) -> None:
        """Other units prune too, so a file may be gone; what a killed one was writing goes with the old."""
        left = ROOM
        for _, size, file in sorted(_files(self.folder), reverse=True):
            left -= size
            if left < 0:
                file.unlink(missing_ok=True)

    def _read(self, path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        try:
            head, _, content = path.read_bytes().partition(b"\n")
            about: dict[str, Any] = json.loads(head)
            if about["format_version"] != FORMAT_VERSION or hashlib.sha256(content).hexdigest() != about["sha256"]:
                return None
            if about["capped"] and about["minutes"] < self.minutes:
                return None
            return about, bytes_to_arrays(content)
        except (OSError, ValueError, KeyError, TypeError, IntegrityError):
            return None

    def _name(self, spec: RetrieverSpec, seed: int, *data: Interactions | ItemSet) -> str:
        sections = spec.model_dump(mode="json", serialize_as_any=True)
        of = hashlib.sha256(digest([sections, seed, self.code(sections), dict(self.facts)]).encode())
        for given in data:
            _add(of, {field.name: getattr(given, field.name) for field in fields(given)})
        return of.hexdigest()[:32]


def _files(folder: Path) -> list[tuple[int, int, Path]]:
    """(time of the last change, bytes, file), those included that are being written."""
    found = []
    for file in [*folder.glob("*.fit"), *folder.glob(".*.tmp")]:
        with suppress(FileNotFoundError):
            facts = file.stat()
            found.append((facts.st_mtime_ns, facts.st_size, file))
    return found


def _add(of: Any, value: Any) -> None:
    """Put arrays, mappings of them, and what ``repr`` tells whole into the hash ``of``."""
    if isinstance(value, np.ndarray):
        of.update(f"{value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Mapping):
        for key in sorted(value):
            of.update(f"{key}:".encode())
            _add(of, value[key])
    else:
        of.update(repr(value).encode("utf-8", "surrogatepass"))
