"""Evaluate the model, its single-modality versions and the baselines on the test split (docs/contracts.md)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fusionrec.config import Evaluate, Params
from fusionrec.data import split, tables
from fusionrec.embeddings import base as embeddings
from fusionrec.errors import DataRejected
from fusionrec.evaluation import (
    beyond,
    categories,
    ceiling,
    comparisons,
    missing,
    outcomes,
    outs,
    plots,
    report,
    samples,
    slices,
    table,
)
from fusionrec.evaluation.knockout import KnockOut, knock_out
from fusionrec.evaluation.protocol import Recommends, Result, evaluate
from fusionrec.evaluation.story import Story
from fusionrec.paths import Paths
from fusionrec.recommenders.recommender import Recommender
from fusionrec.registry.model import LoadedModel, load_model
from fusionrec.registry.ranker import MAIN, LoadedRanker, build_reranker, read_reranker, stands_behind, two_stage
from fusionrec.stages.ranked import load, need, ranked
from fusionrec.types import Columns, Int64, ItemSet, Report

COLD_K = 10
"""List length of the cold-only headline."""

KNOCKOUT_SLICES = ("all", "cold", "cold_only")


@dataclass(frozen=True)
class Given:
    """What is evaluated, on what: ``parts`` are the slices of ``asked``, ``train_count`` (I,) the items' train rows,
    ``category`` (I,) what the catalogue calls each item, or None; ``reranker``: the settings of what re-ranks."""

    spec: Evaluate
    data: split.SplitData
    asked: split.Asked
    items: ItemSet
    parts: list[slices.Slice]
    train_count: Int64
    models: dict[str, LoadedModel]
    rankers: dict[str, LoadedRanker]
    reranker: dict[str, Any] | None
    labels: dict[str, str]
    category: list[str | None]

    @property
    def metric(self) -> str:
        return f"{self.spec.main_metric}@{self.spec.main_k}"

    @property
    def main(self) -> LoadedModel:
        return self.models[table.MAIN]


@dataclass(frozen=True)
class Found:
    """What the models answered, and what the main one answers with less."""

    results: dict[str, Result]
    knocked: list[KnockOut]
    curve: list[missing.Point]


def run(params: Params, paths: Paths) -> Report:
    """Writes data/evaluation/. Raises DataRejected where model, embeddings and splits speak of different items."""
    told = Report("evaluate")
    clock = _Clock(told)
    given = read(params, paths)
    clock.lap("load")
    found = answers(given, clock)
    judged = ranked(paths, given.data, given.items, given.rankers, given.spec)
    clock.lap("rankers")
    written = replace(numbers(params, paths, given, found), ranking=judged)
    clock.lap("statistics")
    page = report.render(story(params, paths, given, found, written))
    clock.lap("report")
    outs.write(paths.evaluation, written, page)
    clock.lap("write")
    told.counts |= {
        "users": len(given.asked.users),
        "pairs": written.tests["n_pairs"],
        "items": len(given.items),
        "models": len(found.results),
        "cold_items": int((given.train_count == 0).sum()),
    }
    told.table = [dict(row) for row in table.rows_for_people(written.rows, written.tests)]
    told.links["report"] = (paths.evaluation / "report.html").relative_to(paths.project).as_posix()
    told.notes += notes(written.tests) + outcomes.lines(judged) + outcomes.verdicts(judged)
    return told


def read(params: Params, paths: Paths) -> Given:
    """Splits, embeddings and models of the project, attached to each other."""
    spec = params.evaluate
    data = split.load(paths, ("train", "valid", "test"))
    asked = split.requests(data, "test", ("train", "valid") if spec.history == "train+valid" else ("train",))
    items = embeddings.load(paths, tuple(params.modalities)) if params.modalities else ItemSet(ids=data.items)
    if items.ids != data.items:
        raise DataRejected("the embeddings and the splits speak of different items: run the stages from split on again")
    train_count = np.bincount(data.train.item, minlength=len(items))
    parts = slices.build(asked.requests, asked.positives, train_count == 0, items.present)
    models, rankers = load_models(paths, data, items), load(paths, data, items)
    labels = {name: table.label(name, model.label, model.modalities) for name, model in models.items()}
    labels |= {name: table.label(name) for name in ("oracle", "random")}
    about = about_items(paths)
    category = [about.get(item, {}).get(Columns.CATEGORY) for item in data.items]
    reranker = read_reranker(paths.rankers)
    behind = [rankers[MAIN].label] if MAIN in rankers and stands_behind(rankers[MAIN].manifest) else []
    labels[table.TWO_STAGE] = table.label(table.TWO_STAGE, *behind)
    labels[table.RERANKED] = table.label(
        table.RERANKED, ", then ".join([*behind, *([reranker["kind"]] if reranker else [])])
    )
    return Given(spec, data, asked, items, parts, train_count, models, rankers, reranker, labels, category)


def answers(given: Given, clock: _Clock) -> Found:
    """Every model's lists and scores; the main model's without each modality, and with fewer and fewer."""
    spec, requests, model = given.spec, given.asked.requests, given.main.retriever
    ks = sorted({*spec.k, spec.main_k, COLD_K})
    asked: dict[str, Recommends] = {name: one.retriever for name, one in given.models.items()}
    both = two_stage(model, given.rankers[MAIN]) if MAIN in given.rankers else None
    if both is not None:
        asked[table.TWO_STAGE] = both
    if given.reranker is not None:
        last = build_reranker(given.reranker)
        last.attach(given.items)
        asked[table.RERANKED] = replace(both or Recommender(model), reranker=last)
    results = {
        name: evaluate(asked[name], requests, given.parts, ks, name=name, depth=max(plots.CURVE))
        for name in table.order(asked)
    }
    clock.lap("rank")
    parts, full = [p for p in given.parts if p.name in KNOCKOUT_SLICES], results[table.MAIN]
    knocked = knock_out(model, requests, parts, full, given.metric, repeats=spec.bootstrap, seed=spec.seed)
    clock.lap("knock-out")
    curve = missing.degradation(
        model, requests, given.asked.positives, full, given.metric, repeats=spec.bootstrap, seed=spec.seed
    )
    clock.lap("missing")
    return Found(results, knocked, curve)


def numbers(params: Params, paths: Paths, given: Given, found: Found) -> outs.Outs:
    """Everything that is written but the page."""
    rows, tests = statistics(params, paths, given, found.results)
    results, positives, labels = list(found.results.values()), given.asked.positives, given.labels
    k, n_users = given.spec.main_k, len(given.data.users)
    drawn = {
        "models": rows,
        "recall_by_k": plots.by_k(results, positives, labels),
        "knockout": plots.knockouts(found.knocked),
        "missing": plots.degraded(found.curve),
        "popularity": plots.exposure(results, positives, given.train_count, labels, k),
        "beyond": beyond.beyond_accuracy(results, positives, given.train_count, n_users, labels, k, given.items),
        "categories": categories.by_category(
            results, positives, given.category, labels, given.metric, given.spec.bootstrap, given.spec.seed
        ),
    }
    return outs.Outs(given.metric, rows, tests, drawn, outs.per_user(results, given.asked.users))


def statistics(
    params: Params, paths: Paths, given: Given, results: Mapping[str, Result]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of table.json and the content of tests.json."""
    metric, repeats, seed, labels = given.metric, given.spec.bootstrap, given.spec.seed, given.labels
    cold = next(p for p in given.parts if p.name == "cold_only")
    ks = sorted({int(name.rpartition("@")[2]) for name in results[table.MAIN].values["all"]})
    chance = {f"recall@{k}": slices.random_recall(given.asked.requests, cold, k) for k in ks}
    _, item, when = given.data.rows(given.data.frames["test"])
    digest = ceiling.pairs_digest(given.data.items, item, when)
    oracle = ceiling.load(media_root(params, paths), digest, given.spec.history)
    others = comparisons.against_others(results, labels, metric, repeats, seed)
    rows = [
        *ceiling.rows(oracle, labels),
        *table.long_rows([Result("random", {"cold_only": chance}, {})], labels, repeats, seed),
        *table.long_rows(list(results.values()), labels, repeats, seed),
    ]
    return rows, {
        "main_metric": metric,
        "n_users": len(given.asked.users),
        "n_pairs": len(item),
        "pairs_digest": digest,
        "comparisons": others,
        "standing": comparisons.standing(others),
        "best_single": comparisons.best_single(results, metric),
        "cold_only": comparisons.cold_only(results, labels, chance[f"recall@{COLD_K}"], COLD_K, repeats, seed),
        "ceiling": ceiling.ratios(oracle, rows),
    }


def story(params: Params, paths: Paths, given: Given, found: Found, written: outs.Outs) -> Story:
    """What the page tells, with the sample users and their pictures."""
    asked, reads = given.asked, given.items.only(*given.main.modalities)
    shown = samples.draw(
        asked.requests,
        asked.positives,
        found.results[table.MAIN].lists["all"],
        given.train_count == 0,
        reads,
        found.knocked,
        about_items(paths),
        media_root(params, paths),
        given.spec.samples,
        given.spec.seed,
    )
    drawn = written.drawn
    return Story(
        given.labels[table.MAIN],
        given.main.modalities,
        given.metric,
        facts(params, given),
        written.rows,
        written.tests,
        by_k=drawn["recall_by_k"],
        exposure=drawn["popularity"],
        beyond=drawn["beyond"],
        categories=drawn["categories"],
        knockouts=drawn["knockout"],
        missing=drawn["missing"],
        ranking=written.ranking,
        carried={m: float(reads.present[m].mean()) for m in reads.modalities},
        samples=shown,
    )


class _Clock:
    """Seconds since the last lap, into a report."""

    def __init__(self, told: Report) -> None:
        self.told, self.start = told, time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.told.seconds[name], self.start = now - self.start, now


def load_models(paths: Paths, data: split.SplitData, items: ItemSet) -> dict[str, LoadedModel]:
    """The main model and every baseline by folder name, attached; popularity is made here where no folder holds it."""
    from fusionrec.recommenders.popularity import Popularity

    models = {table.MAIN: load_model(paths.model)}
    folders = sorted(f for f in paths.baselines.iterdir() if f.is_dir()) if paths.baselines.is_dir() else []
    models |= {folder.name: load_model(folder) for folder in folders if not folder.name.startswith(".")}
    for model in models.values():
        need(f"the model {model.label!r}", model.modalities, items, "train")
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


def facts(params: Params, given: Given) -> dict[str, Any]:
    """The sizes and the protocol, for the report."""
    spec, data = given.spec, given.data
    return {
        "train": len(data.train),
        "users": len(data.users),
        "n_items": len(data.items),
        "pairs": data.frames["test"].height,
        "asked": len(given.asked.users),
        "cold_items": int((given.train_count == 0).sum()),
        "cold_pairs": next(p for p in given.parts if p.name == "cold").positives.nnz,
        "protocol": {
            "split": params.split.kind.replace("_", " "),
            "ranking": "every item is scored for every user; no sampled negatives",
            "never recommended": f"what the user chose before ({spec.history.replace('+', ' and ')})",
            "intervals": f"{spec.bootstrap} bootstrap resamples of users, 95 %",
            "tests": "sign-flip permutation over the same users, one-sided, Holm-corrected",
            "chance": "the exact expectation, not a simulation",
            "missing content": "each modality of each item is lost by a fixed lottery; what is lost early stays lost",
        },
    }


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
        verdict = "tied with" if test["verdict"] == "tied" else f"{test['verdict']} than"
        p = test["p_worse_holm" if test["verdict"] == "worse" else "p_holm"]
        out.append(f"{metric}: {verdict} {test['label']} (difference {test['difference']:+.4f}, p {p:.4f} after Holm)")
    ratio = tests["cold_only"]["ratio"]
    if ratio is not None:
        out.append(
            f"cold-only Recall@{COLD_K}: {ratio['value']:.2f} times random, 95 % interval "
            f"{ratio['low']:.2f} to {ratio['high']:.2f}"
        )
    return [note for note in out if note]
