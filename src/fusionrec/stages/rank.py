"""Train the rankers on what was shown and what came of it: the chosen one, itself with less to read, and the baselines;
and choose how far retrieval's order is trusted where the chosen one judges its candidates. Reads no test data."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fusionrec.config import Params
from fusionrec.data import split
from fusionrec.data.files import fresh_folder
from fusionrec.embeddings import base as embeddings
from fusionrec.errors import ConfigError, DataRejected
from fusionrec.paths import Paths
from fusionrec.ranking import frame
from fusionrec.ranking.base import Impressions, Ranker, RankerSpec, Words
from fusionrec.recommenders.recommender import Recommender
from fusionrec.recommenders.trust import choose_trust
from fusionrec.registry.model import load_model
from fusionrec.registry.ranker import MAIN, ONLY, WITHOUT, save_ranker, save_reranker
from fusionrec.registry.words import load_words
from fusionrec.stages.progress import epochs
from fusionrec.types import ItemSet, Report


@dataclass(frozen=True)
class Given:
    """What the rankers learn from."""

    data: split.SplitData
    items: ItemSet
    shown: frame.Shown
    words: Words | None


def run(params: Params, paths: Paths) -> Report:
    """Writes data/rankers/<name>/; none where nothing was shown, or nothing is known of what came of it. What re-ranks
    is written down beside them.

    Raises DataRejected where the stages before have not run, ConfigError where a ranker cannot be fitted to what is
    there (a head whose task has no label, a training that diverged) or rank.task is none that it learnt.
    """
    report = Report("rank")
    data = split.load(paths, ("train", "valid"))
    items = embeddings.load(paths, tuple(params.modalities)) if params.modalities else ItemSet(ids=data.items)
    if items.ids != data.items:
        raise DataRejected("the embeddings and the splits speak of different items: run `dvc repro`")
    shown = frame.load(paths, data, items, ("train", "valid"))
    hears = any(spec.hears for spec in (params.rank.ranker, *params.rank.baselines))
    given = Given(data, items, shown, words_before(paths, data.users, shown) if hears else None)
    train = given.shown.parts["train"]
    report.counts |= {name: len(part) for name, part in given.shown.parts.items()}
    report.counts |= {f"{task} labels": n for task, n in labels(train).items() if n}
    with fresh_folder(paths.rankers) as folder:
        for name, spec, use in chosen(params, items, train, given.words is not None):
            start = time.monotonic()
            told = _one(params, paths, given, folder / name, spec, use)
            report.seconds[name] = time.monotonic() - start
            report.table.append({"ranker": name, **told, "seconds": round(report.seconds[name], 1)})
        if params.rank.reranker is not None:
            save_reranker(folder, params.rank.reranker)
    if params.rank.ranker.hears:
        report.counts["words"] = 0 if given.words is None else len(given.words)
    if not report.table:
        report.notes.append(
            "no ranker: the log tells of no impression with an outcome (events impression or view with clicks, carts, "
            "purchases, or ratings, or likes with a value of 0 for a no)"
        )
    return report


def words_before(paths: Paths, users: Sequence[str], shown: frame.Shown) -> Words | None:
    """What users said before the last impression of these parts; None where impressions have no times."""
    times = [part.time for part in shown.parts.values() if len(part)]
    if not times or any(time is None for time in times):
        return None
    return load_words(paths, users, max(int(time.max()) for time in times if time is not None))


def labels(part: Impressions) -> dict[str, int]:
    """Task -> the number of rows that have its label."""
    return {task: int((~np.isnan(label)).sum()) for task, label in part.labels.items()}


def chosen(
    params: Params, items: ItemSet, train: Impressions, words: bool = False
) -> list[tuple[str, RankerSpec, ItemSet]]:
    """Name, spec and the catalogue of every ranker that can learn something of ``train``; ``words``: whether users said
    anything."""
    there = {task for task, n in labels(train).items() if n}
    spec = params.rank.ranker
    wanted: list[tuple[str, RankerSpec, ItemSet]] = [(MAIN, spec, items)]
    if spec.reads_content:
        less = {}
        if items.modalities:
            less = {"content": (spec, items.only()), "ids": (spec.model_copy(update={"ids": False}), items)}
        if spec.hears and words:
            less["words"] = (spec.deaf(), items)
        wanted += [(f"{WITHOUT}{what}", *less[what]) for what in params.rank.without if what in less]
    if spec.reads_content and params.rank.singles and len(items.modalities) > 1:
        wanted += [(f"{ONLY}{name}", spec, items.only(name)) for name in items.modalities]
    wanted += [(other.kind, other, items) for other in params.rank.baselines]
    return [one for one in wanted if there & {*one[1].tasks}]


def _one(
    params: Params, paths: Paths, given: Given, folder: Path, spec: RankerSpec, use: ItemSet
) -> dict[str, str | int | float]:
    """Fit one ranker and save it; returns what the stage's table says of it."""
    curve: list[dict[str, float]] = []
    seed, parts = params.rank.seed, given.shown.parts
    with epochs(f"training ranker {folder.name}") as show:

        def watch(epoch: int, values: Mapping[str, float]) -> None:
            curve.append({"step": len(curve), "epoch": epoch, **values})
            show(epoch, values)

        try:
            ranker = spec.build(params.train.fusion)
            known = replace(given.shown.known, items=use, words=given.words)
            ranker.fit(parts["train"], parts["valid"], known, seed=seed, watch=watch)
        except ValueError as error:
            raise ConfigError(f"{folder.name}: {error}") from error
    ranker.hear(None)  # as it is served: the bundle holds nobody's words
    behind = behind_retrieval(params, paths, given, ranker) if folder.name == MAIN else None
    save_ranker(
        folder,
        ranker,
        spec={"ranker": spec.model_dump(mode="json"), "fusion": params.train.fusion.model_dump(mode="json")},
        label=spec.kind,
        modalities={m: embeddings.describe(paths, m) for m in use.modalities},
        surfaces=given.shown.surfaces,
        coding=given.shown.coding,
        seed=seed,
        curve=curve,
        behind=behind,
    )
    trust, by = (f"{behind['trust']:.0%}", behind["task"]) if behind else ("–", "–")
    return {
        "tasks": ", ".join(ranker.tasks),
        "steps": len(curve),
        "trust in retrieval's order": trust,
        "else ordered by": by,
    }


def behind_retrieval(params: Params, paths: Paths, given: Given, ranker: Ranker) -> dict[str, Any]:
    """By which outcome validation orders this ranker's candidates, and how far it trusts retrieval's order: ``task``,
    ``depth``, ``trust`` and what was ``tried``. Raises ConfigError for a task that the ranker has not learnt."""
    task = params.rank.task
    if task is not None and task not in ranker.tasks:
        raise ConfigError(f"rank.task: found {task!r}, the log taught the ranker {', '.join(ranker.tasks)}")
    model = load_model(paths.model)
    model.retriever.attach(given.items.only(*model.modalities))
    both = Recommender(model.retriever, ranker, depth=params.rank.depth)
    tried = choose_trust(both, given.data.train, given.data.valid, ranker.tasks if task is None else (task,))
    best, trust = tried[0][:2] if tried else (task or ranker.tasks[0], 1.0)
    rounded = [[name, part, round(value, 6)] for name, part, value in tried]
    return {"task": best, "depth": params.rank.depth, "trust": trust, "tried": rounded}
