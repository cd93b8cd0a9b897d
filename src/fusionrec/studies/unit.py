"""One unit of a benchmark in a process of its own: fit a model once, and tell its validation or its test.

``python -m fusionrec.studies.unit JOB.json``. A unit that tells validation is given no test: it is dropped as soon as
the folder is read. The result is one JSON file, written atomically; checkpoints of a training that was killed are
used. Ranks of hits are kept instead of metrics: every metric at every K follows from them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fusionrec.data.files import write_json
from fusionrec.errors import FusionrecError
from fusionrec.evaluation import metrics
from fusionrec.evaluation.protocol import Result
from fusionrec.recommenders.base import EnoughTime, Retriever, fitted_by
from fusionrec.studies import fits, protocol
from fusionrec.studies.contestants import parse
from fusionrec.types import Bool

FORMAT_VERSION = 2


class Clock:
    """Counts the epochs and ends a training that has had its time, the time of processes that were killed included.

    ``folder``: that of the checkpoints. Beside them lies how long the unit has run and whether that was cut short.
    What was cut short with less time than now is thrown away.
    """

    def __init__(self, minutes: float, folder: Path) -> None:
        self.minutes, self.path = minutes, folder / "clock.json"
        self.epochs, self.capped, self.before = 0, False, 0.0
        self.curve: list[dict[str, float]] = []
        if self.path.is_file():
            found = json.loads(self.path.read_text(encoding="utf-8"))
            if found["capped"] and found["minutes"] < minutes:
                shutil.rmtree(folder)
            else:
                self.before, self.capped = found["seconds"], found["capped"]
        self.start = self.written = time.monotonic()

    def seconds(self) -> float:
        return self.before + time.monotonic() - self.start

    def __call__(self, epoch: int, values: Mapping[str, float]) -> None:
        self.curve.append({"epoch": epoch, **{name: float(value) for name, value in values.items()}})
        if "loss" not in values:  # a step of a grid: no training to end
            return
        self.epochs += 1
        over = self.seconds() > 60 * self.minutes
        if over or time.monotonic() - self.written > 1:
            self.capped = over
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_json(self.path, {"seconds": self.seconds(), "capped": over, "minutes": self.minutes})
            self.written = time.monotonic()
        if over:
            raise EnoughTime


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Fit and evaluate; -> what is written. ``job``: see :meth:`fusionrec.studies.runner.Runner.run`."""
    from fusionrec.recommenders.training import resumable

    bench = protocol.load(Path(job["folder"]), protocol.Rules(**job["rules"]))
    known, wants_test = bench.known, job["what"] == "test"
    if not wants_test:
        del bench
    model = parse("model", job["model"])
    retriever = model.spec.build(model.fusion)
    clock = Clock(job["minutes"], Path(job["checkpoints"]))
    facts = {"fusion": job["model"].get("fusion"), "threads": job["threads"]}
    kept = fits.Fits(Path(job["fits"]), lambda sections: code_digest(kinds(sections)), job["minutes"], facts)
    with resumable(Path(job["checkpoints"])), fitted_by(kept.around):
        retriever.fit(known.train, known.valid, known.items, seed=job["seed"], watch=clock)
    seconds, fitted = clock.seconds(), time.monotonic()
    out = {
        "format_version": FORMAT_VERSION,
        "status": "done",
        "what": job["what"],
        "valid": protocol.validate(retriever, known),
        "epochs": clock.epochs,
        "capped": clock.capped or kept.capped,
        "minutes": job["minutes"],
        "curve": clock.curve,
    }
    if wants_test:
        out |= {"test": tested(retriever, bench)}
    out["seconds"] = {
        "fit": round(seconds + kept.seconds, 2),
        "of it done before": round(kept.seconds, 2),
        "evaluate": round(time.monotonic() - fitted, 2),
    }
    return out


def tested(retriever: Retriever, bench: protocol.Bench) -> dict[str, Any]:
    """Slice -> the users' numbers of positives and the ranks (from 1) of their hits, as texts."""
    result = protocol.test_result(retriever, bench)
    positives = protocol.test_slices(bench)
    return {name: packed(result, name, np.diff(positives[name].indptr), positives[name]) for name in result.lists}


def packed(result: Result, name: str, n_positives: np.ndarray, positives: Any) -> dict[str, str]:
    found = metrics.hits(result.lists[name], positives)
    ranks = [" ".join(str(rank + 1) for rank in np.flatnonzero(row)) for row in found]
    return {"positives": " ".join(map(str, n_positives.tolist())), "hits": ";".join(ranks)}


def unpacked(texts: Mapping[str, str]) -> tuple[Bool, np.ndarray]:
    """The inverse of :func:`packed`: (B, 50) bool hits and (B,) float64 numbers of positives."""
    n_positives = np.array(texts["positives"].split(), np.float64)
    hits = np.zeros((len(n_positives), max(protocol.KS)), bool)
    for row, ranks in enumerate(texts["hits"].split(";") if len(n_positives) else []):
        hits[row, [int(rank) - 1 for rank in ranks.split()]] = True
    return hits, n_positives


_PARSING = threading.Lock()  # CPython 3.11 mixes up the recursion counters of two threads that parse


def kinds(sections: Any) -> set[str]:
    """Every ``kind`` inside a model's sections, at any depth."""
    if isinstance(sections, Mapping):
        own = {str(sections["kind"])} if "kind" in sections else set()
        return own.union(*(kinds(inner) for inner in sections.values()))
    if isinstance(sections, list | tuple):
        return set().union(*(kinds(inner) for inner in sections))
    return set()


def code_digest(kinds: Iterable[str]) -> str:
    """sha256 of the source that fits and judges these kinds of retrievers and fusions, followed through its imports.

    A unit that older code computed is computed again. Asked once a process: a file changed later is not its code.
    """
    with _PARSING:
        return _code_digest(frozenset(kinds))


@lru_cache
def _code_digest(kinds: frozenset[str]) -> str:
    root = Path(__file__).resolve().parents[1]
    start = [root / folder / f"{kind}.py" for folder in ("recommenders", "fusion") for kind in kinds]
    start += [root / "recommenders" / "loop.py", Path(protocol.__file__), Path(fits.__file__), Path(__file__)]
    seen: dict[Path, bytes] = {}
    todo = [path for path in start if path.is_file()]
    while todo:
        path = todo.pop()
        if path in seen or path.name == "__init__.py":
            continue
        seen[path] = path.read_bytes()
        todo += [found for name in _imported(seen[path]) if (found := root / f"{name}.py").is_file()]
    digest = hashlib.sha256()
    for path in sorted(seen):
        digest.update(path.relative_to(root).as_posix().encode() + hashlib.sha256(seen[path]).digest())
    return digest.hexdigest()


def _imported(source: bytes) -> set[str]:
    """``fusion/space`` and so on: what a module imports of the packages that models are made of."""
    import ast

    out = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        out |= {name.removeprefix("fusionrec.").replace(".", "/") for name in names if name.startswith("fusionrec.")}
    return {name for name in out if name.split("/")[0] in ("recommenders", "fusion", "evaluation", "types", "threads")}


def _die_with(parent: int) -> None:
    """End this process when the one that started it is gone, however it went."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(path: Path) -> int:
    job = json.loads(path.read_text(encoding="utf-8"))
    _die_with(job["parent"])
    try:
        if job["code"] not in ("any", code_digest(kinds(job["model"]))):
            raise ValueError("the source has changed since this benchmark was started: start it again")
        out = run(job)
    except (FusionrecError, ValueError, MemoryError) as error:
        first = next(iter(str(error).strip().splitlines()), "")
        out = {"format_version": FORMAT_VERSION, "status": "failed", "reason": f"{type(error).__name__}: {first}"[:500]}
    write_json(Path(job["out"]), {**job["identity"], **out})
    shutil.rmtree(job["checkpoints"], ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
