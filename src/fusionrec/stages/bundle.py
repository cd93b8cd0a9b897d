"""Pack model, catalogue snapshot and user state into data/bundle/ (docs/contracts.md)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from fusionrec.config import Params
from fusionrec.data import split, tables
from fusionrec.embeddings import base as embeddings
from fusionrec.errors import DataRejected
from fusionrec.evaluation import table
from fusionrec.paths import Paths
from fusionrec.ranking import frame
from fusionrec.registry.bundle import save_bundle
from fusionrec.registry.ranker import MAIN, read_reranker, stands_behind
from fusionrec.registry.sealed import read_manifest
from fusionrec.types import Columns, ItemSet, Report


def run(params: Params, paths: Paths) -> Report:
    """Writes data/bundle/. Raises DataRejected where a stage before has not run, IntegrityError for altered inputs."""
    start = time.monotonic()
    metrics_file = paths.evaluation / "metrics.json"
    if not metrics_file.is_file():
        raise DataRejected("data/evaluation/metrics.json is missing: run the stage evaluate first")
    data = split.load(paths, ("train", "valid", "test"))
    names = tuple(sorted(params.modalities))
    items = embeddings.load(paths, names) if names else ItemSet(ids=data.items)
    seen = pl.concat([data.frames["train"], data.frames["valid"]])
    ranker, reranker = behind(paths), read_reranker(paths.rankers)
    digest = save_bundle(
        paths.bundle,
        paths.model,
        table=tables.read(paths, "items"),
        items=items,
        fingerprints={name: embeddings.describe(paths, name)["fingerprint"] for name in names},
        histories=pl.concat([seen, data.frames["test"]]).unique([Columns.USER, Columns.ITEM]),
        trained=seen,
        users=data.users,
        metrics=headline(json.loads(metrics_file.read_text("utf-8")), served(ranker, reranker)),
        temporal=is_temporal(seen, data.frames["test"]),
        ranker=ranker,
        reranker=reranker,
        attributes=frame.read_users(paths) if ranker is not None else None,
        encoders={n: paths.encoders / n for n in names if params.modalities[n].encoder.learnt},
    )
    size = sum(file.stat().st_size for file in paths.bundle.rglob("*") if file.is_file())
    return Report(
        "bundle",
        counts={"items": len(items), "users": len(data.users), "bytes": size},
        seconds={"bundle": time.monotonic() - start},
        links={"bundle": "data/bundle"},
        notes=[f"bundle digest {digest}"],
    )


def behind(paths: Paths) -> Path | None:
    """The folder of the ranker that judges the model's candidates; None where there is none, or validation trusts the
    model's own order alone."""
    folder = paths.rankers / MAIN
    return folder if folder.is_dir() and stands_behind(read_manifest(folder / "manifest.json")) else None


def served(ranker: Path | None, reranker: Mapping[str, Any] | None) -> str:
    """The key in metrics.json of what is bundled: the main model, the two stages, or what is re-ranked."""
    if reranker is not None:
        return table.RERANKED
    return table.MAIN if ranker is None else table.TWO_STAGE


def headline(metrics: dict[str, Any], model: str) -> dict[str, Any]:
    """A model's metrics over all test pairs."""
    return dict(metrics.get(model, {}).get("all", {}))


def is_temporal(seen: pl.DataFrame, test: pl.DataFrame) -> bool:
    """Whether every test pair is later than every pair before it: told by the rows, whatever the split is called."""
    if not test.height or seen[Columns.TIME].null_count() or test[Columns.TIME].null_count():
        return False
    return bool(seen[Columns.TIME].max() < test[Columns.TIME].min())  # type: ignore[operator]
