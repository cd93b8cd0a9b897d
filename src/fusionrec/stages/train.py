"""Train the chosen model, the same model on each modality alone, and the baselines. Reads no test data."""

from __future__ import annotations

import time
from collections.abc import Mapping

from fusionrec.config import Params
from fusionrec.data import split
from fusionrec.embeddings import base as embeddings
from fusionrec.paths import Paths
from fusionrec.recommenders.base import RetrieverSpec
from fusionrec.registry import bundle
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

    def one(folder, spec: RetrieverSpec, label: str, use: ItemSet) -> None:  # type: ignore[no-untyped-def]
        start = time.monotonic()
        curve: list[dict[str, float]] = []

        def watch(epoch: int, values: Mapping[str, float]) -> None:
            curve.append({"step": len(curve), "epoch": epoch, **values})

        retriever = spec.build(params.train.fusion)
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
        report.seconds[label] = time.monotonic() - start
        valid = [c["valid_ndcg@20"] for c in curve if "valid_ndcg@20" in c]
        report.table.append(
            {
                "model": label,
                "epochs": len(curve),
                "valid NDCG@20": round(max(valid), 4) if valid else None,
                "seconds": round(report.seconds[label], 1),
            }
        )

    one(paths.model, params.train.retriever, params.train.retriever.kind, items)
    for spec in params.train.baselines:
        one(paths.baselines / spec.kind, spec, spec.kind, items)
    if params.train.singles and len(items.modalities) > 1:
        for name in items.modalities:
            one(paths.baselines / f"only-{name}", params.train.retriever, f"only-{name}", items.only(name))
    return report
