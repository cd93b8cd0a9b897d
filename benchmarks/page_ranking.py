"""The part of docs/results.md on rankers: how well clicks, purchases, likes and ratings are foreseen, by whom best."""

from __future__ import annotations

from typing import Any

from page_source import plain, source

from fusionrec.evaluation import outcomes
from fusionrec.evaluation.comparisons import LEVEL
from fusionrec.evaluation.outcomes import TASKS, WORDS
from fusionrec.evaluation.table import markdown

SETS = {
    "demo": "On the demo's impressions. Split by time; places of lists are known, and so is what a user chose before.",
    "likes": "On real films: who gave a film at least 4 stars of MovieLens-1M liked it, the others did not. No times, "
    "so the split is random by user and all other likes are known. Posters and plots of a private copy.",
    "stars": "On real films: the stars of MovieLens latest-small, each user's last ones asked.",
}
MOST_ECE = 0.02
"""What the calibration error on the demo is asked to stay within."""
WITHOUT = " without content"


def ranking(found: dict[str, Any]) -> list[str]:
    """Tables by task with intervals, findings of the paired tests in words, and the speed of an epoch."""
    out = ["## Rankers\n"]
    for name, one in found["sets"].items():
        said = findings(one["tests"]) + (calibrated(one["rows"]) if name == "demo" else [])
        seeds = max(row["seeds"] for row in one["rows"])
        how = f"Means of {seeds} seeds." if seeds > 1 else "One seed."
        out += [f"{SETS[name]} {how}\n", *tables(one["rows"]), *(f"- {line}" for line in said), ""]
        out.append(source({**found, "command": f"{found['command']} --only {name}", "commit": one["commit"]}))
    columns = ("case", "ours", "bound", "unit", "ratio_bound")
    if found["rows"]:
        speed = {**found, "command": f"{found['command']} --only speed", "commit": found["rows"][0]["commit"]}
        out += plain("Speed of a ranker's epoch", speed, columns)
    return out


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
