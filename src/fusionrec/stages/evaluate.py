"""Evaluate the model, its single-modality versions and the baselines on the test split (docs/contracts.md)."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fusionrec.config import Params
from fusionrec.data import split, tables
from fusionrec.data.files import fresh_folder, to_json, write_bytes
from fusionrec.embeddings import base as embeddings
from fusionrec.errors import DataRejected
from fusionrec.evaluation import ceiling, comparisons, plots, report, samples, slices, table
from fusionrec.evaluation.knockout import knock_out
from fusionrec.evaluation.protocol import Result, evaluate
from fusionrec.paths import Paths
from fusionrec.registry.bundle import LoadedModel, load_model
from fusionrec.types import Columns, ItemSet, Report

COLD_K = 10
"""List length of the cold-only headline."""

KNOCKOUT_SLICES = ("all", "cold", "cold_only")


def run(params: Params, paths: Paths) -> Report:
    """Writes data/evaluation/. Raises DataRejected where model, embeddings and splits speak of different items."""
    told, clock, spec = Report("evaluate"), _Clock(), params.evaluate
    data = split.load(paths, ("train", "valid", "test"))
    asked = split.requests(data, "test", ("train", "valid") if spec.history == "train+valid" else ("train",))
    items = embeddings.load(paths, tuple(params.modalities)) if params.modalities else ItemSet(ids=data.items)
    if items.ids != data.items:
        raise DataRejected("the embeddings and the splits speak of different items: run the stages from split on again")
    train_count = np.bincount(data.train.item, minlength=len(items))
    parts = slices.build(asked.requests, asked.positives, train_count == 0, items.present)
    models = load_models(paths, data, items)
    clock.lap(told, "load")

    ks, metric = sorted({*spec.k, spec.main_k, COLD_K}), f"{spec.main_metric}@{spec.main_k}"
    results = {
        name: evaluate(models[name].retriever, asked.requests, parts, ks, name=name, depth=max(plots.CURVE))
        for name in table.order(models)
    }
    clock.lap(told, "rank")
    main = models[table.MAIN]
    knocked = knock_out(
        main.retriever,
        asked.requests,
        [p for p in parts if p.name in KNOCKOUT_SLICES],
        results[table.MAIN],
        metric,
        repeats=spec.bootstrap,
        seed=spec.seed,
    )
    clock.lap(told, "knock-out")

    labels = {name: table.label(name, model.label, model.modalities) for name, model in models.items()}
    labels |= {name: table.label(name) for name in ("oracle", "random")}
    rows, tests = statistics(params, paths, data, asked, parts, results, labels)
    clock.lap(told, "statistics")
    drawn = {
        "models": rows,
        "recall_by_k": plots.by_k(list(results.values()), asked.positives, labels),
        "knockout": plots.knockouts(knocked),
        "popularity": plots.exposure(list(results.values()), asked.positives, train_count, labels, spec.main_k),
    }
    shown = samples.draw(
        asked.requests,
        asked.positives,
        results[table.MAIN].lists["all"],
        train_count == 0,
        data.items,
        about_items(paths),
        media_root(params, paths),
        spec.samples,
        spec.seed,
    )
    story = report.Story(
        labels[table.MAIN],
        main.modalities,
        metric,
        facts(params, data, asked),
        rows,
        tests,
        by_k=drawn["recall_by_k"],
        exposure=drawn["popularity"],
        knockouts=drawn["knockout"],
        samples=shown,
    )
    page = report.render(story)
    clock.lap(told, "report")
    write(paths.evaluation, rows, tests, metric, drawn, page, per_user(list(results.values()), asked.users))
    clock.lap(told, "write")

    told.counts |= {
        "users": len(asked.users),
        "pairs": tests["n_pairs"],
        "items": len(items),
        "models": len(results),
        "cold_items": int((train_count == 0).sum()),
    }
    told.table = [dict(row) for row in table.rows_for_people(rows)]
    told.links["report"] = (paths.evaluation / "report.html").relative_to(paths.project).as_posix()
    told.notes += notes(tests)
    return told


def statistics(
    params: Params, paths: Paths, data: split.SplitData, asked: split.Asked, parts: Sequence[slices.Slice],
    results: Mapping[str, Result], labels: Mapping[str, str],
) -> tuple[list[dict[str, Any]], dict[str, Any]]:  # fmt: skip
    """The rows of table.json and the content of tests.json."""
    spec = params.evaluate
    metric, repeats, seed = f"{spec.main_metric}@{spec.main_k}", spec.bootstrap, spec.seed
    cold = next(p for p in parts if p.name == "cold_only")
    ks = sorted({int(name.rpartition("@")[2]) for name in results[table.MAIN].values["all"]})
    chance = {f"recall@{k}": slices.random_recall(asked.requests, cold, k) for k in ks}
    _, item, when = data.rows(data.frames["test"])
    digest = ceiling.pairs_digest(data.items, item, when)
    oracle = ceiling.load(media_root(params, paths), digest, spec.history)
    rows = [
        *ceiling.rows(oracle, labels),
        *table.long_rows([Result("random", {"cold_only": chance}, {})], labels, repeats, seed),
        *table.long_rows(list(results.values()), labels, repeats, seed),
    ]
    return rows, {
        "main_metric": metric,
        "n_users": len(asked.users),
        "n_pairs": len(item),
        "pairs_digest": digest,
        "comparisons": comparisons.against_others(results, labels, metric, repeats, seed),
        "best_single": comparisons.best_single(results, metric),
        "cold_only": comparisons.cold_only(results, labels, chance[f"recall@{COLD_K}"], COLD_K, repeats, seed),
        "ceiling": ceiling.ratios(oracle, rows),
    }


class _Clock:
    """Seconds since the last lap, into a report."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def lap(self, told: Report, name: str) -> None:
        now = time.monotonic()
        told.seconds[name], self.start = now - self.start, now


def load_models(paths: Paths, data: split.SplitData, items: ItemSet) -> dict[str, LoadedModel]:
    """The main model and every baseline by folder name, attached; popularity is made here where no folder holds it."""
    from fusionrec.recommenders.popularity import Popularity

    models = {table.MAIN: load_model(paths.model)}
    folders = sorted(f for f in paths.baselines.iterdir() if f.is_dir()) if paths.baselines.is_dir() else []
    models |= {folder.name: load_model(folder) for folder in folders if not folder.name.startswith(".")}
    for model in models.values():
        lost = sorted(set(model.modalities) - set(items.modalities))
        if lost:
            raise DataRejected(
                f"the model {model.label!r} reads {', '.join(lost)}, and data/embeddings holds "
                f"{', '.join(items.modalities) or 'nothing'}: run the stage train again"
            )
        model.retriever.attach(items.only(*model.modalities))
    if "popularity" not in models:
        floor = Popularity().build()
        floor.fit(data.train, data.valid, items.only())
        models["popularity"] = LoadedModel(floor, "popularity", (), {}, "")
    return models


def media_root(params: Params, paths: Paths) -> Path:
    """What picture paths are relative to, and where ceiling.json may lie."""
    return Path(params.source.media_root(paths.project))


def about_items(paths: Paths) -> dict[str, dict[str, Any]]:
    """item id -> title, category and picture paths of the accepted items (where the catalogue has them)."""
    frame = tables.accepted(paths, "items")
    names = [c for c in (Columns.ITEM, Columns.TITLE, Columns.CATEGORY, "image_paths") if c in frame.columns]
    return {row[Columns.ITEM]: row for row in frame.select(names).iter_rows(named=True)}


def facts(params: Params, data: split.SplitData, asked: split.Asked) -> dict[str, Any]:
    """The sizes and the protocol, for the report."""
    spec, kind = params.evaluate, params.split.kind.replace("_", " ")
    return {
        "train": len(data.train),
        "users": len(data.users),
        "n_items": len(data.items),
        "pairs": data.frames["test"].height,
        "asked": len(asked.users),
        "cold_items": len(data.items) - len(np.unique(data.train.item)),
        "protocol": {
            "split": kind,
            "ranking": "every item is scored for every user; no sampled negatives",
            "never recommended": f"what the user chose before ({spec.history.replace('+', ' and ')})",
            "intervals": f"{spec.bootstrap} bootstrap resamples of users, 95 %",
            "tests": "sign-flip permutation over the same users, one-sided, Holm-corrected",
            "random": "the exact expectation, not a simulation",
        },
    }


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


def write(
    folder: Path, rows: list[dict[str, Any]], tests: Mapping[str, Any], metric: str,
    drawn: Mapping[str, Sequence[Mapping[str, Any]]], page: bytes, users: pl.DataFrame,
) -> None:  # fmt: skip
    """data/evaluation/, replaced as a whole."""
    columns = {
        "models": ("model", "slice", "metric", "mean", "low", "high", "n"),
        "recall_by_k": ("model", "k", "recall", "ndcg"),
        "knockout": ("modality", "slice", "loss", "low", "high", "full", "masked", "n", "p"),
        "popularity": ("model", "band", "share"),
    }
    parquet = io.BytesIO()
    users.write_parquet(parquet, compression="zstd")
    knockouts: dict[str, Any] = {}
    for row in drawn["knockout"]:
        knockouts.setdefault(row["modality"], {})[row["slice"]] = {
            key: row[key] for key in ("loss", "low", "high", "full", "masked", "n", "p")
        }
    with fresh_folder(folder) as target:
        for name, names in columns.items():
            write_bytes(target / "plots" / f"{name}.csv", plots.as_csv(drawn[name], names))
        write_bytes(target / "per_user.parquet", parquet.getvalue())
        write_bytes(target / "report.html", page)
        write_bytes(target / "knockout.json", to_json({"metric": metric, "modalities": knockouts}))
        write_bytes(target / "tests.json", to_json(tests))
        write_bytes(target / "table.json", to_json(rows))
        write_bytes(target / "headline.json", to_json(comparisons.headline(rows)))
        write_bytes(target / "metrics.json", to_json(comparisons.nested(rows)))


def notes(tests: Mapping[str, Any]) -> list[str]:
    """What the command line says below the table."""
    metric, out = tests["main_metric"], []
    if tests["n_users"] == 0:
        out.append("the test split is empty: every metric is undefined (n = 0)")
    best = tests["ceiling"].get("ratios", {}).get("all", {}).get(metric)
    if best is None:
        out.append(tests["ceiling"]["note"])
    else:
        out.append(f"{metric}: {best['ratio']:.3f} of the oracle's {best['oracle']:.3f}")
    for test in tests["comparisons"]:
        verdict = "better than" if test["p_holm"] < 0.05 else "not shown to be better than"
        size = f"difference {test['difference']:+.4f}, p {test['p_holm']:.4f} after Holm"
        out.append(f"{metric}: {verdict} {test['label']} ({size})")
    ratio = tests["cold_only"]["ratio"]
    if ratio is not None:
        out.append(
            f"cold-only Recall@{COLD_K}: {ratio['value']:.2f} times random, 95 % interval "
            f"{ratio['low']:.2f} to {ratio['high']:.2f}"
        )
    return [note for note in out if note]
