"""Train the chosen model, the same model on each modality alone, and the baselines. Reads no test data."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from fusionrec.config import Params
from fusionrec.data import split
from fusionrec.embeddings import base as embeddings
from fusionrec.paths import Paths
from fusionrec.recommenders.base import RetrieverSpec
from fusionrec.registry import bundle
from fusionrec.stages.progress import epochs
from fusionrec.types import ItemSet, Report


def run(params: Params, paths: Paths) -> Report:
    """Writes data/model/ and data/baselines/<name>/; see docs/contracts.md."""
    report = Report("train")
    data = split.load(paths, ("train", "valid"))
    items = embeddings.load(paths, tuple(params.modalities)) if params.modalities else ItemSet(ids=data.items)
    if items.ids != data.items:
        raise ValueError("the embeddings and the splits speak of different items: run `dvc repro`")
    report.counts |= {
        "users": data.train.n_users,
        "items": len(items),
        "train": len(data.train),
        "valid": len(data.valid),
    }
    chosen = params.train.retriever
    models: list[tuple[Path, RetrieverSpec, str, ItemSet]] = [(paths.model, chosen, chosen.kind, items)]
    models += [(paths.baselines / spec.kind, spec, spec.kind, items) for spec in params.train.baselines]
    if params.train.singles and len(items.modalities) > 1:
        for name in items.modalities:
            models.append((paths.baselines / f"only-{name}", chosen, f"only-{name}", items.only(name)))
    for folder, spec, label, use in models:
        start = time.monotonic()
        curve = _one(params, paths, data, folder, spec, label, use)
        report.seconds[label] = time.monotonic() - start
        valid = [c["valid_ndcg@20"] for c in curve if "valid_ndcg@20" in c]
        row = {"model": label, "steps": len(curve), "valid NDCG@20": round(max(valid), 4) if valid else None}
        report.table.append({**row, "seconds": round(report.seconds[label], 1)})
    return report


def _one(
    params: Params, paths: Paths, data: split.SplitData, folder: Path, spec: RetrieverSpec, label: str, use: ItemSet
) -> list[dict[str, float]]:
    """Fit one model and save it; returns its curve."""
    curve: list[dict[str, float]] = []
    retriever = spec.build(params.train.fusion)
    with epochs(f"training {label}") as show:

        def watch(epoch: int, values: Mapping[str, float]) -> None:
            curve.append({"step": len(curve), "epoch": epoch, **values})
            show(epoch, values)

        retriever.fit(data.train, data.valid, use, seed=params.train.seed, watch=watch)
    bundle.save_model(
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
