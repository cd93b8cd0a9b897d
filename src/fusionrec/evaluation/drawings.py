"""Which charts a story has, and what they are given: rows in, data: URIs of SVG pictures out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fusionrec.evaluation import charts, outcomes, plots, words
from fusionrec.evaluation.knockout import EVERY, HAS_IT
from fusionrec.evaluation.story import Story
from fusionrec.evaluation.table import MAIN, order

THIS = "this model"
"""The main model in every chart: its full name is long, and at the top of the page."""

KNOCKED = {
    "all": "all choices",
    f"all{HAS_IT}": "of items that have it",
    "cold_only": "new items",
    f"cold_only{HAS_IT}": "new items that have it",
}


def draw(story: Story) -> dict[str, str]:
    """name -> data: URI of an SVG; a chart without rows is left out."""
    drawn: dict[str, Callable[[Story], str | None]] = {
        "models": models,
        "by_k": by_k,
        "knockout": knockout,
        "missing": missing,
        "cold": cold,
        "users": users,
        "slices": slices,
        "exposure": exposure,
        "calibration": calibration,
    }
    found = {name: chart(story) for name, chart in drawn.items()}
    return {name: charts.data_uri(svg) for name, svg in found.items() if svg}


def bar(row: Mapping[str, Any], label: str) -> dict[str, Any]:
    """What a chart needs of a row; without an interval its ends are the mean."""
    low, high, mean = row["low"], row["high"], row["mean"]
    return {"label": label, "mean": mean, "low": mean if low is None else low, "high": mean if high is None else high}


def short(row: Mapping[str, Any]) -> str:
    return THIS if row["model"] == MAIN else str(row["label"])


def _ranked(story: Story, part: str, metric: str) -> list[dict[str, Any]]:
    """Every model's row of one slice, random left out, in the order of tables."""
    rows = [story.row(m, part, metric) for m in order({r["model"] for r in story.table} - {"random"})]
    return [bar(r, short(r)) for r in rows if r]


def models(story: Story) -> str | None:
    """Every model on all users."""
    rows, name = _ranked(story, "all", story.main_metric), words.metric(story.main_metric)
    return charts.with_intervals(rows, "Every model, all test users", f"{name} (95 % interval)", THIS) if rows else None


def cold(story: Story) -> str | None:
    """Every model among new items only, with chance as a line."""
    found = story.tests["cold_only"]
    rows = _ranked(story, "cold_only", found["metric"]) if found.get("metric") else []
    if not rows:
        return None
    title = "Choosing among new items (dashed: chance)"
    return charts.with_intervals(rows, title, words.metric(found["metric"]), THIS, found["random"])


def users(story: Story) -> str | None:
    """The main model, the best single modality and the most popular items, by how much is known of a user."""
    groups = {"history_none": "no history", "history_few": "1 to 3 choices", "all": "everyone"}
    models = dict.fromkeys((MAIN, story.tests.get("best_single"), story.best_baseline(), "popularity"))
    rows = [
        {**bar(row, who), "part": short(row)}
        for part, who in groups.items()
        for model in models
        if model and (row := story.row(model, part, story.main_metric))
    ]
    if len({r["label"] for r in rows}) < 2:
        return None
    name = words.metric(story.main_metric)
    return charts.grouped(rows, "By what is known of a user", name, (charts.ACCENT, "#2563a8", "#9cc0e4", "#9aa5b1"))


def slices(story: Story) -> str | None:
    """The main model on every slice of all candidates."""
    name = words.metric(story.main_metric)
    rows = [
        bar(row, words.slice_name(part))
        for part in words.in_order(r["slice"] for r in story.table)
        if part != "cold_only" and (row := story.main(part))
    ]
    return charts.with_intervals(rows, "This model by kind of item and user", name, "all") if rows else None


def by_k(story: Story) -> str | None:
    rows = [{"label": short(r), "k": r["k"], "value": r["recall"]} for r in story.by_k]
    if not rows:
        return None
    return charts.lines(rows, "Recall by list length", "Recall@K", _main_first(r["label"] for r in rows))


def knockout(story: Story) -> str | None:
    """Loss of each masked modality, over all choices and where the item has it, for all and for new items."""
    metric = words.metric(story.main_metric)
    rows = [
        {**bar({**r, "mean": r["loss"]}, r["modality"]), "part": KNOCKED[r["slice"]]}
        for r in sorted(story.knockouts, key=lambda r: list(KNOCKED).index(r["slice"]) if r["slice"] in KNOCKED else -1)
        if r["n"] and r["slice"] in KNOCKED and not (r["modality"] == EVERY and r["slice"].endswith(HAS_IT))
    ]
    if not rows:
        return None
    rows.sort(key=lambda r: (r["label"] == EVERY, r["label"]))
    title = f"{metric} lost when a modality is hidden"
    return charts.grouped(rows, title, f"loss of {metric} (95 % interval)", charts.PAIRED)


def missing(story: Story) -> str | None:
    """The missing-modality curve, with intervals on the curve of all modalities together."""
    rows = [
        {"label": r["hidden"], "share": r["share"], "value": r["score"], "low": r["low"], "high": r["high"]}
        for r in story.missing
        if r["score"] is not None
    ]
    if not rows:
        return None
    names = list(dict.fromkeys(r["label"] for r in rows))
    name, other = words.metric(story.main_metric), story.best_baseline()
    level = story.row(other, "all", story.main_metric) if other else None
    title = f"{name} when items lose modalities at random"
    if level is None or level["n"] != story.missing[0]["n"]:  # the curve of a large catalogue is over fewer users
        return charts.falling(rows, title, name, names)
    return charts.falling(rows, title, name, names, (level["label"], level["mean"]))


def exposure(story: Story) -> str | None:
    if not story.exposure:
        return None
    rows = [{**r, "label": short(r)} for r in story.exposure]
    labels = list(dict.fromkeys(r["label"] for r in rows))
    return charts.shares(rows, "Popularity of what is recommended", labels, plots.BANDS)


def calibration(story: Story) -> str | None:
    """Of the chosen ranker: the chance it gave and the share that happened, in equally filled bins."""
    rows = [
        {"label": outcomes.TASKS[task], "x": one["predicted"], "value": one["happened"]}
        for task, found in story.ranking.get("bins", {}).items()
        for one in found
    ]
    if not rows:
        return None
    names = list(dict.fromkeys(row["label"] for row in rows))
    return charts.against_diagonal(rows, "What was predicted and what happened", "chance given", "share taken", names)


def _main_first(labels: Any) -> list[str]:
    names: Sequence[str] = list(dict.fromkeys(labels))
    return [*(n for n in names if n == THIS), *(n for n in names if n != THIS)]
