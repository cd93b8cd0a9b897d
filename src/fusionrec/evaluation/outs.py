"""data/evaluation/ as files: what is in it, and how each is written (docs/contracts.md)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fusionrec.data.files import fresh_folder, to_json, write_bytes
from fusionrec.evaluation import comparisons, plots
from fusionrec.evaluation.knockout import EVERY
from fusionrec.evaluation.protocol import Result

COLUMNS = {
    "models": ("model", "slice", "metric", "mean", "low", "high", "n"),
    "recall_by_k": ("model", "k", "recall", "ndcg"),
    "knockout": ("modality", "slice", "loss", "low", "high", "full", "masked", "n", "p"),
    "missing": ("hidden", "share", "score", "low", "high", "n"),
    "popularity": ("model", "band", "share"),
    "beyond": (
        "model", "k", "coverage", "gini", "novelty", "popularity", "diversity", "serendipity", "popular", "new",
    ),
    "categories": ("category", "model", "metric", "choices", "n", "mean", "low", "high"),
}  # fmt: skip
"""The columns of plots/*.csv."""

LOSS = ("loss", "low", "high", "full", "masked", "n", "p")


@dataclass(frozen=True)
class Outs:
    """``rows``: table.json; ``tests``: tests.json; ``ranking``: ranking.json; ``drawn``: rows by the names of
    :data:`COLUMNS`."""

    metric: str
    rows: list[dict[str, Any]]
    tests: Mapping[str, Any]
    drawn: Mapping[str, Sequence[Mapping[str, Any]]]
    users: pl.DataFrame
    ranking: Mapping[str, Any] = field(default_factory=dict)


def write(folder: Path, outs: Outs, page: bytes) -> None:
    """data/evaluation/, replaced as a whole."""
    parquet = io.BytesIO()
    outs.users.write_parquet(parquet, compression="zstd")
    with fresh_folder(folder) as target:
        for name, names in COLUMNS.items():
            write_bytes(target / "plots" / f"{name}.csv", plots.as_csv(outs.drawn[name], names))
        write_bytes(target / "per_user.parquet", parquet.getvalue())
        write_bytes(target / "report.html", page)
        write_bytes(target / "knockout.json", to_json({"metric": outs.metric, **knockouts(outs.drawn["knockout"])}))
        write_bytes(target / "tests.json", to_json(outs.tests))
        write_bytes(target / "ranking.json", to_json(outs.ranking))
        write_bytes(target / "table.json", to_json(outs.rows))
        write_bytes(target / "headline.json", to_json(comparisons.headline(outs.rows)))
        write_bytes(target / "metrics.json", to_json(comparisons.nested(outs.rows)))


def knockouts(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """``{"modalities": {name: {slice: ...}}, "every": {slice: ...}}``; ``every``: all of them masked at once."""
    found: dict[str, Any] = {}
    for row in rows:
        found.setdefault(row["modality"], {})[row["slice"]] = {key: row[key] for key in LOSS}
    return {"every": found.pop(EVERY, {}), "modalities": found}


def per_user(results: Sequence[Result], users: Sequence[str]) -> pl.DataFrame:
    """Long rows: model, user (pseudonym), slice, and one Float64 column for each metric; users with a positive only."""
    frames = []
    for result in results:
        for part, values in result.values.items():
            keep = np.flatnonzero(~np.isnan(next(iter(values.values()))))
            frames.append(
                pl.DataFrame(
                    {
                        "model": pl.Series([result.model] * len(keep), dtype=pl.String),
                        "user": pl.Series([users[int(i)] for i in keep], dtype=pl.String),
                        "slice": pl.Series([part] * len(keep), dtype=pl.String),
                        **{name: pl.Series(v[keep], dtype=pl.Float64) for name, v in values.items()},
                    }
                )
            )
    return pl.concat(frames)
