"""The part of docs/results.md on rankers: how well clicks, purchases, likes and ratings are foreseen, by whom best."""

from __future__ import annotations

from typing import Any

from page_source import plain, source

from fusionrec.evaluation import outcomes
from fusionrec.evaluation.comparisons import LEVEL
from fusionrec.evaluation.outcomes import TASKS, WORDS
from fusionrec.evaluation.table import markdown

WORDS_OF_IT = (
    "*AUC within a user* (GAUC): mean over users with both outcomes. *Calibration error* (ECE): how far probabilities "
    "are from what happens. Bold: the best of a task. *Without content*: the same model, without the modalities. "
    "Accuracy, precision and recall answer yes from a probability of .5 on; where a yes is rare they say little.\n"
)
DECISIONS = {"accuracy": "accuracy", "precision": "precision", "recall": "recall"}
FILMS, COMMAND = "FUSIONREC_MOVIES=FOLDER ", "python benchmarks/ranking.py"
SETS = {
    "demo": "On the demo's impressions. Split by time; places of lists are known, and so is what a user chose before.",
    "few": "On the demo where conversions are few: of a tenth of the impressions of train and valid it is known "
    "whether they were bought, of all whether they were clicked. ESMM learns from both.",
    "likes": "On real films: who gave a film at least 4 stars of MovieLens-1M liked it, the others did not. No times, "
    "so the split is random by user and the others of the user's likes are known, fifty at most. Posters and plots of "
    "a private copy.",
    "stars": "On real films: the stars of MovieLens latest-small, each user's last ones asked.",
}
MOST_SECONDS = 90
MOST_ECE = 0.02
"""What the calibration error on the demo is asked to stay within."""
WITHOUT = " without content"


def ranking(found: dict[str, Any]) -> list[str]:
    """Tables by task with intervals, findings of the paired tests in words, and the speed of an epoch."""
    out = ["## Rankers\n", WORDS_OF_IT]
    for name, one in ((name, found["sets"][name]) for name in SETS if name in found["sets"]):
        said = findings(one["tests"]) + (calibrated(one["rows"]) if name == "demo" else [])
        seeds = max(row["seeds"] for row in one["rows"])
        how = f"Means of {seeds} seeds." if seeds > 1 else "One seed."
        out += [f"{SETS[name]} {how}\n", *tables(one["rows"]), *(f"- {line}" for line in said), ""]
        command = f"{FILMS if name in ('likes', 'stars') else ''}{COMMAND} --only {name}"
        out += [*decisions(one["rows"]), source({**found, "command": command, "commit": one["commit"]})]
    columns = ("case", "ours", "bound", "unit", "ratio_bound")
    if found["rows"]:
        speed = {**found, "command": f"{COMMAND} --only speed", "commit": found["rows"][0]["commit"]}
        title, *rest = plain("Speed of a ranker's epoch", speed, columns)
        out += [title, f"{spent(found['rows'])}\n", *rest]
    return out


def spent(rows: list[dict[str, Any]]) -> str:
    """The epoch of a million made-up impressions against what it may take, in words."""
    at = {row["case"]: row for row in rows}
    seconds, memory = at["deepfm-epoch"], at["deepfm-epoch memory"]
    kept = seconds["ours"] <= MOST_SECONDS and memory["ours"] <= memory["bound"]
    return (
        f"DeepFM over 1,000,000 made-up impressions, asked to be within {MOST_SECONDS} s and {memory['bound']:g} GiB: "
        f"{seconds['ours']} s and {memory['ours']} GiB, {'reached' if kept else 'missed'}. `bound` of the epoch: its "
        "matrix products alone."
    )


def decisions(rows: list[dict[str, Any]]) -> list[str]:
    """Accuracy, precision and recall of the chances, folded away."""
    lines = [
        {"task": TASKS[row["task"]], "ranker": row["ranker"], **cells}
        for row in rows
        if "accuracy" in row["metrics"]
        for cells in [{head: outcomes.cell(row["metrics"][name]) for name, head in DECISIONS.items()}]
    ]
    if not lines:
        return []
    return ["<details><summary>Accuracy, precision, recall</summary>\n", markdown(lines), "</details>\n"]


def tables(rows: list[dict[str, Any]]) -> list[str]:
    """One table of chances and one of values, as the report has them: a line a task and ranker, a task's best bold."""
    told = {"rows": rows, "labels": {row["ranker"]: row["ranker"] for row in rows}, "chosen": None}
    out = []
    for one in outcomes.tables(told):
        lines = []
        for row in one["rows"]:
            cells = [f"**{text}**" if c["best"] else text for c in row["cells"] for text in [outcomes.cell(c["value"])]]
            named = dict(zip(one["heads"], cells, strict=True))
            lines.append({"task": row["task"], "ranker": row["label"], **named, "n": f"{row['n']:,}"})
        out += [markdown(lines), ""]
    return out


def findings(tests: list[dict[str, Any]]) -> list[str]:
    """A sentence for each task and opponent: by metric, who is better, tied or worse."""
    said: dict[tuple[str, str], dict[str, dict[str, list[str]]]] = {}
    for test in tests:
        other = "the same without content" if test["against"].endswith(WITHOUT) else test["against"]
        by_metric = said.setdefault((test["task"], other), {})
        by_metric.setdefault(WORDS[test["metric"]], {}).setdefault(verdict(test), []).append(test["ranker"])
    return [
        f"{TASKS[task].capitalize()}, against {other}: "
        + "; ".join(f"in {metric} {_who(verdicts)}" for metric, verdicts in by_metric.items())
        + "."
        for (task, other), by_metric in said.items()
    ]


def _who(verdicts: dict[str, list[str]]) -> str:
    """``all are better``, or each verdict with those it holds for; one alone is named."""
    if len(verdicts) == 1:
        ((how, who),) = verdicts.items()
        return f"all are {how}" if len(who) > 1 else f"{who[0]} is {how}"
    return ", ".join(f"{how}: {' | '.join(who)}" for how, who in verdicts.items())


def calibrated(rows: list[dict[str, Any]]) -> list[str]:
    """Whose calibration error is above :data:`MOST_ECE`, or that nobody's is."""
    off = [f"{r['ranker']} ({TASKS[r['task']]} {r['metrics']['ece'][0]:.3f})" for r in rows
           if r["metrics"].get("ece", [None])[0] is not None and r["metrics"]["ece"][0] > MOST_ECE]  # fmt: skip
    aim = f"Calibration error, asked to be at most {MOST_ECE}"
    return [f"{aim}: missed by {', '.join(off)}." if off else f"{aim}: reached by all."]


def verdict(test: dict[str, Any]) -> str:
    """``better``, ``worse`` or ``tied`` by the corrected p."""
    if test["p_holm"] >= LEVEL or not test["better by"]:
        return "tied"
    return "better" if test["better by"] > 0 else "worse"
