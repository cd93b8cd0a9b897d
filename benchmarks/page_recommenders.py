"""The part of docs/results.md about recommenders on public sets."""

from __future__ import annotations

import json
from typing import Any

from page_source import read, source
from workspace import RESULTS

from fusionrec.evaluation.table import markdown
from fusionrec.studies.benchmark import rows_for_people as rows_of_bench
from fusionrec.studies.benchmark import validated

SETS = {
    "tiktok": "TikTok features (MMSSL split, image and audio; text is absent)",
    "lfm2k": "Last.fm 2K (text, audio, speech)",
    "ml1m": "MovieLens-1M likes with posters and plots (random split of the protocol)",
    "gowalla": "Gowalla (no content)",
}


TARGETS = {
    "tiktok": {"recall@20": (0.108, 0.113), "ndcg@20": (0.0476, 0.0476)},
    "gowalla": {"recall@20": (0.185, 0.188), "ndcg@20": (0.154, 0.154)},
}


HOUSE = "house"
DEFAULT = (
    "The default of params.yaml has `two_tower` in the place of `mgcn`, which also ranks new items and trains in "
    "seconds; it was measured on the demo and on films with pictures, not on these sets."
)


PUBLISHED = {"gowalla": {"LightGCN": (0.1824, 0.1547), "EASE": (0.1765, 0.1467), "SimpleX": (0.1872, 0.1557)}}
"""Recall@20 and NDCG@20 of papers on the same train and test; theirs train on what is held for early stopping here."""


CARRIED = {
    "ml1m": "Given are those that TikTok's or Last.fm's search chose, of each model on the set where it came nearer to "
    "the best; compared are the house model and the four others with the best validation there."
}


UNSEARCHED = "No search here: the parameters are those of the table where nothing is hidden."
TRIED = {
    "tiktok": "Tried: the searches of the parts. The weights are chosen by Recall@20; chosen by NDCG@20 it would be "
    "another model."
}
PARTS = {
    "main": "nothing hidden",
    "missing30": "30 % of the (item, modality) cells hidden",
    "missing60": "60 % of the cells hidden",
    "cold": "20 % of the items out of train",
}


def held(join: bool | float | None) -> list[str]:
    """What a set's rules hold for choosing where train and validation are joined, in words."""
    if not join:
        return []
    what = "a pair of each user is" if join is True else f"{join:.0%} of the pairs are"
    return [f"Train and validation are joined, as in the papers; {what} held for choosing.\n"]


def recommenders() -> list[str]:
    """A table for every measured set and part; slices of cold items below."""
    out = []
    for name, title in SETS.items():
        found = read(f"recommenders-{name}")
        measured = (found or {"parts": {}})["parts"]
        for part, results in ((part, measured[part]) for part in PARTS if part in measured):
            data, effort = results["set"], results["effort"]
            out.append(f"### {title}: {PARTS[part]}\n")
            searched = trials(results["models"]) if part == "main" else UNSEARCHED
            sizes = " / ".join(f"{data[split]:,}" for split in ("train", "valid", "test"))
            out.append(
                f"{data['users']:,} users, {data['items']:,} items, {sizes} pairs in train, validation, test. "
                f"{searched} {effort['seeds']} seed{'s' * (effort['seeds'] > 1)}, at most "
                f"{effort['minutes']:g} minutes a fit.\n"
            )
            out += [f"{CARRIED[name]}\n"] if name in CARRIED else []
            out += held(results.get("rules", {}).get("join"))
            lacks = ", ".join(results.get("without", []))
            out += [f"Not measured yet in this table: {lacks}.\n"] if lacks else []
            out += chosen(
                results["models"], "as above" if part != "main" or name in CARRIED else "with the parameters given"
            )
            for piece in results["tests"]:
                out += [] if piece == "all" else [f"Slice `{piece}`:\n"]
                out += [markdown(rows_of_bench(results, piece)), *standing(results, piece)]
            out += [_target(name, results)] if part == "main" and name in TARGETS else []
            if part == "main":
                out += [*published(name), *cut_short(results["models"]), *(whole(results) if name in PUBLISHED else [])]
            out += habit(results["models"])
            own = {key: results[key] for key in ("commit", "command", "machine") if key in results}
            out.append(source({**(found or {}), **own}))
        out += by_share(measured)
    text = (
        "The protocol of the MMRec toolbox: all items ranked, train masked, plain means over users. Parameters are "
        "chosen by validation Recall@20; the test is asked once. Means over seeds, intervals over users. `first`: "
        "better than each other model with p < .05, paired over users, two-sided, Holm over all pairs. `tied`: not "
        "shown to differ from the best. A number: the place, by the mean, of a model that the best one beats. "
        "*Validation*: mean Recall@20 there; *epochs*: one number a seed; *seconds*: mean of a fit, of a blend with "
        "its parts. Every fit (curve, validation, ranks of its hits) is kept in `benchmarks/results/units`: "
        "with unchanged code a command makes its table from them; `python benchmarks/kept.py` makes all of them once "
        "more in seconds, whatever code has changed since, and says where one is not as it is written.\n\n"
        f"The house model here is a blend whose parts each set's heading names. {DEFAULT}\n"
    )
    return ["## Recommenders on public sets\n", text, *out] if out else []


def standing(results: dict[str, Any], piece: str) -> list[str]:
    """Where the house model stands in this piece, in words: it was to be first, or tied with none ahead."""
    told = []
    for test in results["tests"][piece]:
        places = test["places"]
        if HOUSE not in places or not places[HOUSE]:
            return []
        best = min(places, key=lambda name: (places[name] not in ("first", "1"), -mean_of(results, name, piece, test)))
        where = {"first": "first", "tied": "tied with none shown to be ahead"}.get(str(places[HOUSE]))
        told.append(f"{test['metric']} {where or f'missed, beaten by {best}'}")
    return [f"House model, asked to be first or tied: {'; '.join(told)}.\n"]


def mean_of(results: dict[str, Any], name: str, piece: str, test: dict[str, Any]) -> float:
    entry = next(entry for entry in results["models"] if entry["label"] == name)
    return float(entry["metrics"][piece][test["metric"]]["mean"] or 0)


def by_share(measured: dict[str, Any]) -> list[str]:
    """Recall@20 of the models that every share of hidden cells was measured with, a line a model."""
    parts = {"0 %": "main", "30 %": "missing30", "60 %": "missing60"}
    if not {*parts.values()} <= {*measured}:
        return []
    at = {share: {e["label"]: e["metrics"]["all"] for e in measured[part]["models"]} for share, part in parts.items()}
    names = [name for name in at["60 %"] if all(name in models for models in at.values())]
    rows = [
        {"model": name, **{f"{share} hidden": f"{at[share][name]['recall@20']['mean']:.4f}" for share in parts}}
        for name in names
    ]
    text = (
        "Recall@20 by the share of (item, modality) cells that are hidden, from training too, each share trained anew "
        f"(0 % with {measured['main']['effort']['seeds']} seeds, the others with fewer):\n"
    )
    return [text, markdown(rows)]


def habit(models: list[dict[str, Any]]) -> list[str]:
    """What the column of test-selected numbers is, where there is one."""
    if not any("test_selected" in entry for entry in models):
        return []
    return [
        "`CHOSEN ON TEST` is the field's habit (Recall@20 / NDCG@20 of the trial that is best on the test set) and is "
        "there for comparison only.\n"
    ]


def _target(name: str, results: dict[str, Any]) -> str:
    """Whether the house model reached what was set before it was measured."""
    at = {entry["label"]: entry["metrics"] for entry in results["models"]}
    if not at.get("house"):
        return "The house model was not measured.\n"
    lines = []
    for metric, (least, aim) in TARGETS[name].items():
        mean = at["house"]["all"][metric]["mean"]
        word = "missed" if mean < least else "reached" if mean < aim else "passed"
        asked = f"aim {aim:g}" if least == aim else f"at least {least:g}, aim {aim:g}"
        lines.append(f"{metric} {mean:.4f} ({asked}): {word}")
    why = f" {TRIED[name]}" if name in TRIED and any(line.endswith("missed") for line in lines) else ""
    return f"House model against its targets: {'; '.join(lines)}.{why}\n"


def published(name: str) -> list[str]:
    """The end points of papers, where the set's split is theirs."""
    told = [f"{model} {recall:.4f} / {ndcg:.4f}" for model, (recall, ndcg) in PUBLISHED.get(name, {}).items()]
    return [f"Published (Recall@20 / NDCG@20): {', '.join(told)}.\n"] if told else []


def cut_short(models: list[dict[str, Any]]) -> list[str]:
    """How validation went in trainings that ran out of time: at most ten epochs of each."""
    told = [(entry["label"], steps(entry.get("curve", []))) for entry in models]
    return [f"`{label}` was cut short; validation Recall@20 after epoch {curve}.\n" for label, curve in told if curve]


def whole(results: dict[str, Any]) -> list[str]:
    """How validation went in trainings that ended by themselves, from the units that the table was made of."""
    out = []
    for entry in results["models"]:
        if entry["capped"] or not any(entry["epochs"]):
            continue
        units = RESULTS / "units" / results["set"]["digest"][:16] / entry["label"]
        for file in sorted(units.glob("test-0-*.json")):
            unit = json.loads(file.read_text(encoding="utf-8"))
            curve = validated(unit["curve"])
            if unit["epochs"] == entry["epochs"][0] and curve:
                best = max(curve, key=lambda step: step[1])[0] + 1
                out.append(
                    f"`{entry['label']}` ended by itself after {unit['epochs']} epochs in "
                    f"{unit['seconds']['fit']:.0f} s (epoch {best} was best); "
                    f"validation Recall@20 after epoch {steps(curve)}.\n"
                )
                break
    return out


def steps(curve: list[Any]) -> str:
    """At most ten (epoch, value) of a curve, as text."""
    kept = [curve[round(at * (len(curve) - 1) / 9)] for at in range(10)] if len(curve) > 10 else curve
    return ", ".join(f"{epoch + 1}: {value:.4f}" for epoch, value in kept)


def trials(models: list[dict[str, Any]]) -> str:
    """How many points of its space each model's search tried, in a sentence."""
    by_number: dict[int, list[str]] = {}
    for entry in models:
        by_number.setdefault(len(entry["trials"]), []).append(entry["label"])
    if set(by_number) <= {0}:
        return "No search here: each model has the parameters that were given."
    told = [f"{number or 'none'} for {', '.join(by_number[number])}" for number in sorted(by_number, reverse=True)]
    return f"Trials of the search on validation: {'; '.join(told)} (a space with fewer points is tried whole)."


def chosen(models: list[dict[str, Any]], unsearched: str = "with the parameters given") -> list[str]:
    """What the searches chose, and what the house model is made of; ``unsearched``: with which parameters where there
    was no search."""
    told = []
    for entry in models:
        done = [trial for trial in entry["trials"] if trial["state"] == "done"]
        point = max(done, key=lambda trial: trial["value"])["point"] if done else {}
        values = ", ".join(f"{field} {_plain(value)}" for field, value in sorted(point.items()))
        told += [f"{entry['label']} ({values})"] if values else []
    out = [f"Chosen on validation: {'; '.join(told)}.\n"] if told else []
    house = next((e["chosen"]["retriever"] for e in models if e["label"] == "house"), {})
    parts = [part["kind"] for part in house.get("parts", [])]
    how = "as their own searches chose them" if told else unsearched
    if parts:
        out.append(f"House model: a blend of {', '.join(parts)}, {how}, weighted on validation.\n")
    rows = next((e["chosen"]["retriever"].get("contrast_rows") for e in models if e["label"] == "mgcn"), None)
    if rows:
        out.append(
            f"The contrast of `mgcn` looks at {rows} users and {rows} items of a batch instead of all, to save time "
            "([models](models.md#trained-recommenders)).\n"
        )
    return out


def _plain(value: Any) -> str:
    return " or ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
