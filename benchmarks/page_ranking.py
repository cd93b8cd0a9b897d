"""The part of docs/results.md on rankers: how well clicks, purchases, likes and ratings are foreseen, by whom best."""

from __future__ import annotations

from typing import Any

from page_source import plain, source

from fusionrec.evaluation.outcomes import CHANCES, LESS, TASKS, VALUES, WORDS, cell
from fusionrec.evaluation.table import markdown

SETS = {
    "demo": "On the demo's impressions. Split by time; places of lists are known, and so is what a user chose before.",
    "likes": "On real films: who gave a film at least 4 stars of MovieLens-1M liked it, the others did not. No times, "
    "so the split is random by user and all other likes are known. Posters and plots of a private copy.",
    "stars": "On real films: the stars of MovieLens latest-small, each user's last ones asked.",
}
MOST_ECE = 0.02
"""What the calibration error on the demo is asked to stay within."""
SURE = 0.05
WITHOUT = " without content"


def ranking(found: dict[str, Any]) -> list[str]:
    """Tables by task with intervals, findings of the paired tests in words, and the speed of an epoch."""
    out = ["## Rankers\n"]
    for name, one in found["sets"].items():
        said = findings(one["tests"]) + (calibrated(one["rows"]) if name == "demo" else [])
        out += [f"{SETS[name]}\n", *tables(one["rows"]), *(f"- {line}" for line in said), ""]
    out.append(source(found))
    columns = ("case", "ours", "bound", "unit", "ratio_bound")
    return out + (plain("Speed of a ranker's epoch", found, columns) if found["rows"] else [])


def tables(rows: list[dict[str, Any]]) -> list[str]:
    """One table of chances and one of values, a line a task and ranker; the best of a task in bold."""
    out = []
    for heads in (CHANCES, VALUES):
        here = [row for row in rows if any(name in row["metrics"] for name in heads)]
        lines = []
        for row in here:
            mates = [other for other in here if other["task"] == row["task"]]
            cells = {head: bold(row, mates, name) for name, head in heads.items()}
            lines.append({"task": TASKS[row["task"]], "ranker": row["ranker"], **cells, "n": f"{row['n']:,}"})
        out += [markdown(lines), ""] if lines else []
    return out


def bold(row: dict[str, Any], mates: list[dict[str, Any]], name: str) -> str:
    """The cell of one metric, in bold where no mate is better."""
    values = [m["metrics"][name][0] for m in mates if m["metrics"].get(name, [None])[0] is not None]
    told = cell(row["metrics"].get(name, [None] * 3))
    if not values or row["metrics"][name][0] is None:
        return told
    best = min(values) if name in LESS else max(values)
    return f"**{told}**" if row["metrics"][name][0] == best else told


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
    """``all are better``, or each verdict with those it holds for."""
    if len(verdicts) == 1:
        return f"all are {next(iter(verdicts))}"
    return ", ".join(f"{how}: {' | '.join(who)}" for how, who in verdicts.items())


def calibrated(rows: list[dict[str, Any]]) -> list[str]:
    """Whose calibration error is above :data:`MOST_ECE`, or that nobody's is."""
    off = [f"{r['ranker']} ({TASKS[r['task']]} {r['metrics']['ece'][0]:.3f})" for r in rows
           if r["metrics"].get("ece", [None])[0] is not None and r["metrics"]["ece"][0] > MOST_ECE]  # fmt: skip
    aim = f"Calibration error, asked to be at most {MOST_ECE}"
    return [f"{aim}: missed by {', '.join(off)}." if off else f"{aim}: reached by all."]


def verdict(test: dict[str, Any]) -> str:
    """``better``, ``worse`` or ``tied`` by the corrected p."""
    if test["p_holm"] >= SURE or not test["better by"]:
        return "tied"
    return "better" if test["better by"] > 0 else "worse"
