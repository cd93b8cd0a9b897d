"""One self-contained HTML page about an evaluation: no script, no request to anywhere, every text escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fusionrec.evaluation import charts, plots
from fusionrec.evaluation.table import MAIN, columns_for, order

SLICES = {
    "all": "all",
    "warm": "items with history",
    "cold": "new items, among all",
    "cold_only": "new items, among new",
    "cold_users": "new users",
    "activity_low": "users: short history",
    "activity_mid": "users: medium history",
    "activity_high": "users: long history",
}
METRICS = {"recall": "Recall", "ndcg": "NDCG"}
BOUNDS = ("oracle", "random")  # not trained: never the best of a column


@dataclass(frozen=True)
class Shown:
    """One item of a sample user. ``picture`` is a data: URI or None."""

    title: str
    category: str = ""
    picture: str | None = None
    hit: bool = False
    new: bool = False


@dataclass(frozen=True)
class Sample:
    """One user: what was liked before (latest first) and what is recommended now."""

    before: Sequence[Shown]
    now: Sequence[Shown]
    asked: int
    found: int


@dataclass(frozen=True)
class Story:
    """Everything the page shows. ``table`` are the rows of table.json, ``tests`` is tests.json."""

    label: str
    modalities: Sequence[str]
    main_metric: str
    facts: Mapping[str, Any]
    table: Sequence[Mapping[str, Any]]
    tests: Mapping[str, Any]
    by_k: Sequence[Mapping[str, Any]] = ()
    exposure: Sequence[Mapping[str, Any]] = ()
    knockouts: Sequence[Mapping[str, Any]] = ()
    curve: Sequence[Mapping[str, Any]] = ()
    samples: Sequence[Sample] = field(default_factory=tuple)


def render(story: Story) -> bytes:
    """The page as UTF-8 bytes; the same story gives the same bytes."""
    from jinja2 import PackageLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        loader=PackageLoader("fusionrec.evaluation", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["n3"] = lambda x: "–" if x is None else f"{x:.3f}"
    environment.filters["p"] = lambda x: "–" if x is None else ("< 0.001" if x < 0.001 else f"{x:.3f}")
    environment.filters["thousands"] = lambda x: f"{x:,}".replace(",", "\u202f")
    context = {
        "story": story,
        "headline": headline(story),
        "verdict": verdict(story),
        "rows": table_rows(story),
        "plots": pictures(story),
        "slice_names": slice_names(story.table),
        "pretty": pretty,
        "cold": cold_rows(story),
    }
    page = environment.get_template("report.html").render(context)
    # A lone surrogate in a title cannot be encoded; it becomes a visible replacement, not an error.
    return page.encode("utf-8", "replace")


def pretty(metric: str) -> str:
    """``ndcg@20`` -> ``NDCG@20``."""
    name, _, k = metric.partition("@")
    return f"{METRICS.get(name, name)}@{k}"


def at(story: Story, model: str, part: str, metric: str) -> Mapping[str, Any] | None:
    """The row of the table, or None without users."""
    for row in story.table:
        if (row["model"], row["slice"], row["metric"]) == (model, part, metric):
            return row if row["mean"] is not None else None
    return None


def headline(story: Story) -> dict[str, Any]:
    """The numbers at the top: the main metric, its share of the ceiling, its multiple of the floor, cold items."""
    main = at(story, MAIN, "all", story.main_metric)
    floor = at(story, "popularity", "all", story.main_metric)
    ratio = story.tests["ceiling"].get("ratios", {}).get("all", {}).get(story.main_metric)
    return {
        "main": main,
        "ratio": ratio,
        "note": story.tests["ceiling"]["note"],
        "times": main["mean"] / floor["mean"] if main and floor and floor["mean"] > 0 else None,
        "cold": story.tests["cold_only"].get("ratio"),
    }


def verdict(story: Story) -> dict[str, Any]:
    """Which models the main one beats at the 5 % level after Holm's correction, and which not."""
    labels = {r["model"]: r["label"] for r in story.table}
    beaten = [labels[c["against"]] for c in story.tests["comparisons"] if c["p_holm"] < 0.05]
    others = [labels[c["against"]] for c in story.tests["comparisons"] if c["p_holm"] >= 0.05]
    return {"beaten": beaten, "others": others}


def table_rows(story: Story) -> dict[str, Any]:
    """Headings and one row a model; the best trained model of each column is marked."""
    columns = columns_for(story.table)
    labels = {r["model"]: r["label"] for r in story.table}
    found = {(r["model"], r["slice"], r["metric"]): r for r in story.table}
    best = {}
    for head, part, metric in columns:
        rows = (found.get((m, part, metric)) for m in labels if m not in BOUNDS)
        best[head] = max((r["mean"] for r in rows if r and r["mean"]), default=None)
    body = []
    for model in order(labels):
        cells = [found.get((model, part, metric)) for _, part, metric in columns]
        body.append(
            {
                "label": labels[model],
                "main": model == MAIN,
                "bound": model in BOUNDS,
                "cells": [
                    {
                        "row": c if c and c["mean"] is not None else None,
                        "best": bool(c and c["mean"] and model not in BOUNDS and c["mean"] == best[head]),
                    }
                    for c, (head, _, _) in zip(cells, columns, strict=True)
                ],
            }
        )
    return {"heads": [c[0] for c in columns], "body": body}


def slice_names(table: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """slice -> words, in the order of :data:`SLICES`, then by name."""
    known = list(SLICES)
    parts = sorted({r["slice"] for r in table}, key=lambda p: (known.index(p) if p in known else len(known), p))
    return {p: SLICES.get(p) or f"items without {p.removeprefix('missing_')}" for p in parts}


def cold_rows(story: Story) -> list[dict[str, Any]]:
    """Cold-only recall of each model against random, best first."""
    return sorted(story.tests["cold_only"].get("models", []), key=lambda r: (-r["mean"], r["label"]))


def bar(row: Mapping[str, Any], label: str) -> dict[str, Any]:
    """What a plot needs of a row; without an interval its ends are the mean."""
    low, high = row["low"], row["high"]
    mean = row["mean"]
    return {"label": label, "mean": mean, "low": mean if low is None else low, "high": mean if high is None else high}


def pictures(story: Story) -> dict[str, str]:
    """name -> data: URI of an SVG; a plot without rows is left out."""
    metric, name = story.main_metric, pretty(story.main_metric)
    out: dict[str, str] = {}

    def ranked(part: str, metric: str) -> list[dict[str, Any]]:
        models = order({r["model"] for r in story.table} - {"random"})
        rows = [at(story, m, part, metric) for m in models]
        return [bar(r, r["label"]) for r in rows if r]

    if rows := ranked("all", metric):
        out["models"] = charts.with_intervals(rows, f"{name}, all test users", f"{name} (95 % interval)", story.label)
    cold = story.tests["cold_only"]
    if cold.get("metric") and (rows := ranked("cold_only", cold["metric"])):
        out["cold"] = charts.with_intervals(
            rows,
            f"{pretty(cold['metric'])}, new items only (dashed: random)",
            pretty(cold["metric"]),
            story.label,
            cold["random"],
        )
    if story.by_k:
        labels = list(dict.fromkeys(r["label"] for r in story.by_k))
        labels = [story.label, *(n for n in labels if n != story.label)]
        out["by_k"] = charts.lines(
            [{"label": r["label"], "k": r["k"], "value": r["recall"]} for r in story.by_k],
            "Recall by list length",
            "Recall@K",
            labels,
        )
    if story.knockouts:
        out["knockout"] = charts.losses(
            [
                {**bar({**r, "mean": r["loss"]}, r["modality"]), "part": SLICES.get(r["slice"], r["slice"])}
                for r in story.knockouts
                if r["n"]
            ],
            f"{name} lost when a modality is masked",
            f"loss of {name} (95 % interval)",
        )
    if story.exposure:
        labels = list(dict.fromkeys(r["label"] for r in story.exposure))
        out["exposure"] = charts.shares(list(story.exposure), "Popularity of what is recommended", labels, plots.BANDS)
    parts = [
        bar(row, words)
        for part, words in slice_names(story.table).items()
        if part != "cold_only" and (row := at(story, MAIN, part, metric))
    ]
    if rows := parts:
        out["slices"] = charts.with_intervals(rows, f"{name} of {story.label}, by slice", name, "all")
    return {key: charts.data_uri(svg) for key, svg in out.items()}
