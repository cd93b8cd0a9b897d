"""Fits of ranking.py: each is judged in a child process and kept, so that a long call can be ended and gone on with.

A fit counts as done where this commit made it of the project that lies beside it.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from workspace import about, embedded

from fusionrec.config import load as load_params
from fusionrec.data import split
from fusionrec.data.files import write_json
from fusionrec.embeddings import base as embeddings
from fusionrec.paths import Paths
from fusionrec.ranking import AnyRanker, frame
from fusionrec.ranking.base import Ranker, Words
from fusionrec.ranking.judging import Judgement, judge
from fusionrec.registry.words import load_words
from fusionrec.stages import words

PARTS = ("train", "valid", "test")
KNOWN = 0.1
"""The share of train and valid whose conversion is known where conversions are to be few."""
Judged = tuple[dict[str, Judgement], float]
"""Task -> how well the test is foreseen; and the seconds of the fit."""


@dataclass(frozen=True)
class Fit:
    """One training: a ranker's ``section`` on ``tasks``, with or without the modalities, by a seed."""

    name: str
    section: Mapping[str, Any]
    tasks: Sequence[str]
    content: bool
    seed: int


def project(place: Path, change: Callable[[dict[str, Any]], None] | None, *sizes: str) -> None:
    """``place/project`` with the stages up to embed done and what its users said encoded, those of the test included.
    What lies there of this commit stays; of another one it is made again, and its fits with it."""
    made, wanted = place / "made.json", {"commit": about()["commit"], "sizes": list(sizes)}
    if made.is_file() and json.loads(made.read_text(encoding="utf-8")) == wanted:
        return
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    folder = embedded(place, change, *sizes)
    words.run(load_params(folder / "params.yaml", {"rank.ranker": {"kind": "deepfm", "own_words": True}}), paths(place))
    write_json(made, wanted)


def paths(place: Path) -> Paths:
    return Paths(place / "project", place / "home")


def load(place: Path, thin: bool) -> frame.Shown:
    """The impressions of a project of :func:`project`; ``thin``: of few of train and valid is the conversion known."""
    at = paths(place)
    data = split.load(at, PARTS)
    modalities = tuple(load_params(at.project / "params.yaml").modalities)
    shown = frame.load(at, data, embeddings.load(at, modalities), PARTS)
    shown = replace(shown, known=replace(shown.known, words=load_words(at, data.users)))
    return thinned(shown) if thin else shown


def thinned(data: frame.Shown) -> frame.Shown:
    """The same, the conversion of :data:`KNOWN` of train and valid known."""
    rng = np.random.default_rng(0)
    parts = dict(data.parts)
    for name in ("train", "valid"):
        part = parts[name]
        bought = np.where(rng.random(len(part)) < KNOWN, part.labels["conversion"], np.nan).astype(np.float32)
        parts[name] = replace(part, labels={**part.labels, "conversion": bought})
    return replace(data, parts=parts)


def before_test(data: frame.Shown) -> Words | None:
    """What users said before the test, as the stage rank reads it."""
    times = [data.parts[name].time for name in ("train", "valid")]
    if data.known.words is None or any(time is None for time in times):
        return None
    return data.known.words.before(max(int(time.max(initial=0)) for time in times if time is not None))


def judged(data: frame.Shown, fit: Fit) -> Judged:
    """Learn from train, stop early by valid, ask the test once."""
    known = replace(data.known, words=before_test(data))
    known = known if fit.content else replace(known, items=known.items.only())
    ranker: Ranker = TypeAdapter(AnyRanker).validate_python({"tasks": fit.tasks, **fit.section}).build()
    start = time.monotonic()
    ranker.fit(data.parts["train"], data.parts["valid"], known, seed=fit.seed)
    seconds = time.monotonic() - start
    ranker.hear(data.known.words)  # of which an impression knows those strictly before it
    return judge(ranker, data.parts["test"], data.positives), seconds


def run(place: Path, thin: bool, fits: Sequence[Fit], jobs: int) -> Iterator[Judged]:
    """Each fit's result, in order: kept ones from ``place/fits``, the others by ``jobs`` processes that share the
    cores; they are kept as soon as they are there."""
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    todo = [fit for fit in fits if kept(place, fit) is None]
    print(f"{len(fits) - len(todo)} of {len(fits)} fits are there", flush=True)
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_open, initargs=(place, thin)) as pool:
        waits = {id(fit): pool.submit(_work, fit) for fit in todo}
        for fit in fits:
            if id(fit) in waits:
                waits[id(fit)].result()
            found = kept(place, fit)
            if found is None:
                raise RuntimeError(f"{fit.name}, seed {fit.seed}: not kept in {file_of(place, fit)}")
            yield found


_opened: tuple[Path, frame.Shown] | None = None
"""What a process of the pool reads once."""


def _open(place: Path, thin: bool) -> None:
    global _opened
    _opened = (place, load(place, thin))


def _work(fit: Fit) -> None:
    if _opened is None:
        raise RuntimeError("nothing was opened for this process")
    place, data = _opened
    tasks, seconds = judged(data, fit)
    told = {task: to_plain(one) for task, one in tasks.items()}
    write_json(file_of(place, fit), {"fit": asdict(fit), "seconds": seconds, "judged": told})


def kept(place: Path, fit: Fit) -> Judged | None:
    """What was found before, if it was this very fit."""
    file = file_of(place, fit)
    if not file.is_file():
        return None
    found = json.loads(file.read_text(encoding="utf-8"))
    if found["fit"] != json.loads(json.dumps(asdict(fit))):
        return None
    return {task: of_plain(one) for task, one in found["judged"].items()}, found["seconds"]


def to_plain(one: Judgement) -> dict[str, Any]:
    """A judgement for JSON, where what is undefined is null."""
    values = {part: {k: none(v) for k, v in getattr(one, part).items()} for part in ("mean", "low", "high")}
    users = {metric: [none(value) for value in of.tolist()] for metric, of in one.users.items()}
    return {**asdict(one), **values, "users": users}


def of_plain(told: Mapping[str, Any]) -> Judgement:
    """The inverse of :func:`to_plain`."""
    values = {part: {k: nan(v) for k, v in told[part].items()} for part in ("mean", "low", "high")}
    users = {metric: np.array(of, np.float64) for metric, of in told["users"].items()}
    return Judgement(**{**told, **values, "users": users})


def none(value: float) -> float | None:
    return None if np.isnan(value) else value


def nan(value: float | None) -> float:
    return np.nan if value is None else value


def file_of(place: Path, fit: Fit) -> Path:
    return place / "fits" / f"{fit.name.replace(', ', '-').replace(' ', '-')}-{fit.seed}.json"
