"""Train the chosen model, the same model on each modality alone, and the baselines. Reads no test data."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fusionrec.config import Params
from fusionrec.data import split
from fusionrec.embeddings import base as embeddings
from fusionrec.errors import ConfigError, DataRejected
from fusionrec.paths import Paths
from fusionrec.recommenders.base import RetrieverSpec
from fusionrec.recommenders.checkpoints import resumable
from fusionrec.recommenders.devices import world
from fusionrec.recommenders.validation import can_judge
from fusionrec.registry.model import save_model
from fusionrec.stages.progress import epochs
from fusionrec.types import ItemSet, Report

CODE = Path(__file__).resolve().parents[1]
KEPT = 3  # interrupted trainings whose checkpoints stay


def run(params: Params, paths: Paths) -> Report:
    """Writes data/model/ and data/baselines/<name>/; see docs/contracts.md.

    An interrupted run goes on from its checkpoints. Under torchrun every process trains and process 0 alone writes.
    Raises DataRejected where there is nothing to train on, and ConfigError where a model cannot be fitted to what is
    there (timestamps that it needs, a catalogue that is too large for it, a training that diverged).
    """
    report = Report("train")
    data = split.load(paths, ("train", "valid"))
    items = embeddings.load(paths, tuple(params.modalities)) if params.modalities else ItemSet(ids=data.items)
    if items.ids != data.items:
        raise DataRejected("the embeddings and the splits speak of different items: run `dvc repro`")
    report.counts |= {
        "users": data.train.n_users,
        "items": len(items),
        "train": len(data.train),
        "valid": len(data.valid),
    }
    chosen = params.train.retriever
    models: list[tuple[Path, RetrieverSpec, str, ItemSet]] = [(paths.model, chosen, chosen.kind, items)]
    for spec in params.train.baselines:
        label = spec.kind if spec.kind != chosen.kind else f"{spec.kind} (baseline)"
        models.append((paths.baselines / spec.kind, spec, label, items))
    if params.train.singles and len(items.modalities) > 1:
        for name in items.modalities:
            models.append((paths.baselines / f"only-{name}", chosen, f"only-{name}", items.only(name)))
    if not can_judge(data.train, data.valid):
        report.notes.append(
            "nobody to validate on: trainings go on to their last epoch (train.retriever.training.epochs) and grids "
            "keep their first values; choose a split with a validation part"
        )
    checkpoints = _checkpoints(params, paths)
    for folder, spec, label, use in models:
        start = time.monotonic()
        own = chosen.kind if folder == paths.model else folder.relative_to(paths.data)  # a baseline may be of its kind
        with resumable(checkpoints / own), _fitting(label):
            curve = _one(params, paths, data, folder, spec, label, use)
        report.seconds[label] = time.monotonic() - start
        valid = [c["valid_ndcg@20"] for c in curve if "valid_ndcg@20" in c]
        row = {"model": label, "steps": len(curve), "valid NDCG@20": round(max(valid), 4) if valid else None}
        report.table.append({**row, "seconds": round(report.seconds[label], 1)})
    if world()[0] == 0:
        shutil.rmtree(checkpoints, ignore_errors=True)
    return report


@contextmanager
def _fitting(label: str) -> Iterator[None]:
    """What a model says against the data or its parameters, as a message for the user instead of a bug."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{label}: {error}") from error


def _checkpoints(params: Params, paths: Paths) -> Path:
    """``.fusionrec/checkpoints/<fingerprint>``: the same parameters, data, code and number of processes give the same
    folder. Those of older interrupted runs are dropped but for the latest few."""
    chosen = params.model_dump(mode="json", include={"train", "modalities"})
    digest = hashlib.sha256(json.dumps([chosen, world()[1]], sort_keys=True).encode())
    files = [paths.splits / f"{name}.parquet" for name in ("items", "train", "valid")]
    files += [paths.embeddings / name / "manifest.json" for name in sorted(params.modalities)]
    files += sorted(file for part in ("fusion", "recommenders") for file in (CODE / part).glob("*.py"))
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    folder = paths.home / "checkpoints"
    if world()[0] == 0 and folder.is_dir():
        by_age = sorted(folder.iterdir(), key=lambda f: f.stat().st_mtime)
        for old in [f for f in by_age if f.name != digest.hexdigest()[:16]][: -KEPT or None]:
            shutil.rmtree(old, ignore_errors=True)
    return folder / digest.hexdigest()[:16]


def _one(
    params: Params, paths: Paths, data: split.SplitData, folder: Path, spec: RetrieverSpec, label: str, use: ItemSet
) -> list[dict[str, float]]:
    """Fit one model and save it; returns its curve."""
    curve: list[dict[str, float]] = []
    retriever = spec.build(params.train.fusion)
    with epochs(f"training {label}", shown=world()[0] == 0) as show:

        def watch(epoch: int, values: Mapping[str, float]) -> None:
            curve.append({"step": len(curve), "epoch": epoch, **values})
            show(epoch, values)

        retriever.fit(data.train, data.valid, use, seed=params.train.seed, watch=watch)
    if world()[0] > 0:
        return curve
    save_model(
        folder,
        retriever,
        spec={"retriever": spec.model_dump(mode="json"), "fusion": params.train.fusion.model_dump(mode="json")},
        label=label,
        modalities={m: embeddings.describe(paths, m) for m in use.modalities},
        seed=params.train.seed,
        train_end=data.train_end,
        curve=curve,
    )
    return curve
