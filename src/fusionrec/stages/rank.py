"""Train the rankers on what was shown and what came of it: the chosen one, itself without content, and the baselines.
Reads no test data."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from fusionrec.config import Params
from fusionrec.data import split
from fusionrec.data.files import fresh_folder
from fusionrec.embeddings import base as embeddings
from fusionrec.errors import ConfigError, DataRejected
from fusionrec.paths import Paths
from fusionrec.ranking import frame
from fusionrec.ranking.base import Impressions, RankerSpec
from fusionrec.registry.ranker import BARE, MAIN, save_ranker
from fusionrec.stages.progress import epochs
from fusionrec.types import ItemSet, Report


def run(params: Params, paths: Paths) -> Report:
    """Writes data/rankers/<name>/; none where nothing was shown, or nothing is known of what came of it.

    Raises DataRejected where the stages before have not run, ConfigError where a ranker cannot be fitted to what is
    there (a head whose task has no label, a training that diverged).
    """
    report = Report("rank")
    data = split.load(paths, ("train", "valid"))
    items = embeddings.load(paths, tuple(params.modalities)) if params.modalities else ItemSet(ids=data.items)
    if items.ids != data.items:
        raise DataRejected("the embeddings and the splits speak of different items: run `dvc repro`")
    shown = frame.load(paths, data, items, ("train", "valid"))
    train = shown.parts["train"]
    report.counts |= {name: len(part) for name, part in shown.parts.items()}
    report.counts |= {f"{task} labels": n for task, n in labels(train).items() if n}
    with fresh_folder(paths.rankers) as folder:
        for name, spec, use in chosen(params, items, train):
            start = time.monotonic()
            tasks, steps = _one(params, paths, shown, folder / name, spec, use)
            report.seconds[name] = time.monotonic() - start
            row = {"ranker": name, "tasks": ", ".join(tasks), "steps": steps}
            report.table.append({**row, "seconds": round(report.seconds[name], 1)})
    if not report.table:
        report.notes.append(
            "no ranker: the log tells of no impression with an outcome (events impression or view with clicks, carts, "
            "purchases, or ratings, or likes with a value of 0 for a no)"
        )
    return report


def labels(part: Impressions) -> dict[str, int]:
    """Task -> the number of rows that have its label."""
    return {task: int((~np.isnan(label)).sum()) for task, label in part.labels.items()}


def chosen(params: Params, items: ItemSet, train: Impressions) -> list[tuple[str, RankerSpec, ItemSet]]:
    """Name, spec and the catalogue of every ranker that can learn something of ``train``."""
    there = {task for task, n in labels(train).items() if n}
    spec = params.rank.ranker
    wanted: list[tuple[str, RankerSpec, ItemSet]] = [(MAIN, spec, items)]
    if params.rank.bare and items.modalities:
        wanted.append((BARE, spec, items.only()))
    wanted += [(other.kind, other, items) for other in params.rank.baselines]
    return [one for one in wanted if there & {*one[1].tasks}]


def _one(
    params: Params, paths: Paths, shown: frame.Shown, folder: Path, spec: RankerSpec, use: ItemSet
) -> tuple[tuple[str, ...], int]:
    """Fit one ranker and save it; returns its tasks and the steps of its curve."""
    curve: list[dict[str, float]] = []
    ranker, seed = spec.build(params.train.fusion), params.rank.seed
    with epochs(f"training ranker {folder.name}") as show:

        def watch(epoch: int, values: Mapping[str, float]) -> None:
            curve.append({"step": len(curve), "epoch": epoch, **values})
            show(epoch, values)

        try:
            known = replace(shown.known, items=use)
            ranker.fit(shown.parts["train"], shown.parts["valid"], known, seed=seed, watch=watch)
        except ValueError as error:
            raise ConfigError(f"{folder.name}: {error}") from error
    save_ranker(
        folder,
        ranker,
        spec={"ranker": spec.model_dump(mode="json"), "fusion": params.train.fusion.model_dump(mode="json")},
        label=spec.kind,
        modalities={m: embeddings.describe(paths, m) for m in use.modalities},
        surfaces=shown.surfaces,
        seed=seed,
        curve=curve,
    )
    return ranker.tasks, len(curve)
