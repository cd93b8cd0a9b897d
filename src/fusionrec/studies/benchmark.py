"""Models against each other on a folder in the MMRec format: search on validation, then seeds on the test.

1. Every model's hyper-parameters are chosen by validation Recall@20 (:mod:`fusionrec.studies.search`), the defaults
   first, at most ``trials`` points. Units of this phase have no test.
2. When all models have chosen, each chosen spec is fitted with ``seeds`` seeds and tested.
3. Only on request (``test_selected``): every trial is tested too, and what choosing on the test set would have given
   is told beside the honest number, under its own name. Nothing is chosen by it.

Each (model, trial) and each (model, seed) is a unit in a file of its own (:mod:`fusionrec.studies.runner`).
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusionrec.errors import ConfigError, DataRejected
from fusionrec.recommenders.base import RetrieverSpec
from fusionrec.studies import comparison, protocol
from fusionrec.studies.contestants import Contestant
from fusionrec.studies.file import exclusive
from fusionrec.studies.protocol import Bench, Rules
from fusionrec.studies.runner import GRACE, Runner
from fusionrec.studies.search import AllFailed, Found, Trial, Unfinished, search
from fusionrec.studies.space import digest, replaced, space_of

FORMAT_VERSION = 1
SEARCH_VERSION = 2  # of what is kept of a search; an older one is made anew, from the units that are there
CUT = ("ended ", "TimeoutError: not done")
"""How the reason begins of a unit that did not end by itself: the runner repeats it another time, so do searches."""


@dataclass(frozen=True)
class Effort:
    """``trials`` points a model, unless it brings its own number (0: every spec as it is), ``seeds`` fits for the test,
    ``minutes`` for a unit, ``jobs`` units side by side. ``any_code``: use stored units of other code too; ``compute``:
    else a unit that is not stored is refused."""

    trials: int = 0
    seeds: int = 5
    minutes: float = 15.0
    jobs: int = 1
    test_selected: bool = False
    any_code: bool = False
    compute: bool = True
    grace: float = GRACE


@dataclass(frozen=True)
class Choice:
    """What a model chose: ``model`` with the chosen spec, its search (None where there was none or all of it failed),
    and the trials of the search."""

    model: Contestant
    found: Found | None
    trials: tuple[Trial, ...] = ()


def run(
    folder: Path,
    models: Sequence[Contestant],
    effort: Effort,
    units: Path,
    rules: Rules = Rules(),  # noqa: B008  (frozen)
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """The results as JSON values. Units lie in ``units/<digest of the folder and the rules>/<model>``.

    A model whose units fail is told with its reason; the others go on. Raises DataRejected for a broken folder and one
    that has nobody to choose or to test by, ConfigError where no model came through, and Busy where another process
    works on the same units.
    """
    bench = protocol.load(folder, rules)
    if len(bench.test) == 0:
        raise DataRejected(
            f"{folder.name}: no user has a test positive: there is nothing to compare; found {len(bench.known.train)} "
            "pairs in train; mark pairs as test (x_label 2), or leave the column out and the split is drawn"
        )
    searched = [who.label for who in models if trials_of(who, effort.trials)]
    if searched and len(bench.known.valid) == 0:
        raise DataRejected(
            f"{folder.name}: no user has a validation positive (x_label 1), by which {searched[0]} would be chosen; "
            "mark some, leave the column out and the split is drawn, or ask for no trials"
        )
    state = units / bench.digest[:16]
    threads = max(len(os.sched_getaffinity(0)) // effort.jobs, 1)
    runner = Runner(folder, rules, state, effort.minutes, threads, effort.grace, effort.any_code, effort.compute, say)
    with alone(state), ThreadPoolExecutor(effort.jobs) as pool:
        try:
            choices = list(pool.map(lambda who: choose(runner, who, effort.trials, bench.known.digest), models))
            seeds = range(effort.seeds)
            tested = [[pool.submit(runner.run, c.model, "test", seed) for seed in seeds] for c in choices]
            fitted = [[future.result() for future in futures] for futures in tested]
            selected = [_test_selected(runner, pool, c) if effort.test_selected else None for c in choices]
        except BaseException:
            runner.stop()
            raise
    return _results(bench, rules, effort, choices, fitted, selected)


def alone(state: Path) -> AbstractContextManager[None]:
    """Hold the folder of the units; two processes there would overwrite each other's files. Raises Busy."""
    return exclusive(state / "units", "computes")


def trials_of(who: Contestant, trials: int) -> int:
    """How many points of a model are tried where everybody gets ``trials``: its own number, 0 where there is nothing to
    choose between."""
    if trials and who.trials is not None:
        trials = who.trials
    return trials if space_of(who.spec).size > 1 else 0


def choose(runner: Runner, who: Contestant, trials: int, data: str) -> Choice:
    """The model with the spec that validation likes best. Where every trial fails: its spec as it is."""
    trials = trials_of(who, trials)
    if trials == 0:
        return Choice(who, None)

    def evaluate(spec: RetrieverSpec, report: Any) -> float:
        result = runner.run(Contestant(who.label, spec, who.fusion), "valid", 0)
        if result["status"] != "done" and result["reason"].startswith(CUT):
            raise Unfinished(result["reason"])
        if result["status"] != "done":
            raise ValueError(result["reason"].removeprefix("ValueError: "))  # the search tells the kind again
        return float(result["valid"])

    name = digest([who.sections(), runner.code(who), runner.minutes, SEARCH_VERSION])[:16]
    storage = runner.state / who.label / f"search-{name}.db"
    try:
        found = search(who.spec, evaluate, trials=trials, seed=0, storage=storage, name=name, data=data)
    except AllFailed as error:
        runner.say(f"{who.label}: {str(error).splitlines()[0]}; it goes on with its parameters as given")
        return Choice(who, None, error.trials)
    return Choice(Contestant(who.label, found.spec, who.fusion), found, found.trials)


def _test_selected(runner: Runner, pool: ThreadPoolExecutor, choice: Choice) -> dict[str, Any] | None:
    """What the field's habit would have reported: the trial with the best TEST Recall@20 (seed 0)."""
    if choice.found is None:
        return None
    done = [trial for trial in choice.found.trials if trial.state == "done"]
    who = [
        Contestant(choice.model.label, replaced(choice.found.spec, trial.point), choice.model.fusion) for trial in done
    ]
    units = pool.map(lambda one: runner.run(one, "test", 0), who)
    scored = [
        (comparison.summary(comparison.values([unit], "all"), repeats=1), trial, one)
        for unit, trial, one in zip(units, done, who, strict=True)
        if unit["status"] == "done"
    ]
    if not scored:
        return None
    means, trial, one = max(scored, key=lambda s: (s[0]["recall@20"]["mean"], -s[1].number))
    return {
        "trial": trial.number,
        "parameters": one.sections(),
        "seed": 0,
        **{name: means[name]["mean"] for name in comparison.TESTED},
    }


def _results(
    bench: Bench,
    rules: Rules,
    effort: Effort,
    choices: Sequence[Choice],
    units: Sequence[Sequence[Mapping[str, Any]]],
    selected: Sequence[dict[str, Any] | None],
) -> dict[str, Any]:
    parts = list(protocol.test_slices(bench))
    models, users = [], {part: {} for part in parts}  # type: ignore[var-annotated]
    for choice, tested, habit in zip(choices, units, selected, strict=True):
        entry = _entry(choice, tested, effort)
        good = [unit for unit in tested if unit["status"] == "done"]
        for part in parts if good else []:
            per_user = comparison.values(good, part)
            entry["metrics"][part] = comparison.summary(per_user)
            users[part][choice.model.label] = {name: per_user[name].mean(axis=0) for name in comparison.TESTED}
        if habit:
            entry["test_selected"] = habit
        models.append(entry)
    if not users["all"]:
        reasons = "\n".join(f"  {entry['label']}: {entry['failed'][0]}" for entry in models)
        raise ConfigError(f"no model came through:\n{reasons}")
    known = bench.known
    return {
        "format_version": FORMAT_VERSION,
        "set": {
            "name": bench.name,
            "digest": bench.digest,
            "users": known.train.n_users,
            "items": known.train.n_items,
            "modalities": {
                m: [known.items.features[m].shape[1], int(known.items.present[m].sum())] for m in known.items.modalities
            },
            "train": len(known.train),
            "valid": len(known.valid),
            "test": len(bench.test),
            "cold_items": int(bench.cold.sum()),
        },
        "rules": rules.model_dump(mode="json"),
        "effort": {"trials": effort.trials, "seeds": effort.seeds, "minutes": effort.minutes, "jobs": effort.jobs},
        "models": models,
        "tests": {
            part: [
                comparison.against_best({label: v[metric] for label, v in users[part].items()}, metric)
                for metric in comparison.TESTED
            ]
            for part in parts
        },
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        "commit": _commit(),
    }


def _entry(choice: Choice, tested: Sequence[Mapping[str, Any]], effort: Effort) -> dict[str, Any]:
    good = [unit for unit in tested if unit["status"] == "done"]
    failed = [str(unit["reason"]) for unit in tested if unit["status"] != "done"]
    capped = next((unit for unit in good if unit["capped"]), None)
    curve = {"curve": validated(capped["curve"])} if capped else {}
    return {
        "label": choice.model.label,
        "chosen": choice.model.sections(),
        "valid": round(choice.found.value, 6) if choice.found else None,
        "trials": [
            {"point": dict(t.point), "state": t.state, "value": t.value, "reason": t.reason, "seconds": t.seconds}
            for t in choice.trials
        ],
        "seeds": len(good),
        "failed": failed,
        "capped": sum(bool(unit["capped"]) for unit in good),
        "epochs": [unit["epochs"] for unit in good],
        "seconds": [unit["seconds"]["fit"] for unit in good],
        "valid_seeds": [round(unit["valid"], 6) for unit in good],
        "metrics": {},
        **curve,
    }


def validated(curve: Sequence[Mapping[str, float]]) -> list[tuple[int, float]]:
    """(epoch, validation) of a training that was cut short: how far it came, and whether it still rose."""
    value = f"valid_{protocol.CHOICE}"
    return [(int(step["epoch"]), round(step[value], 6)) for step in curve if value in step]


def _commit() -> str:
    git = shutil.which("git")
    if git is None:
        return "unknown"
    here = Path(__file__).resolve().parent
    done = subprocess.run([git, "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _mean(found: Mapping[str, Any]) -> str:
    return "n = 0" if found["mean"] is None else f"{found['mean']:.4f}"


def _shown(found: Mapping[str, Any]) -> str:
    low, high = found["low"], found["high"]
    return _mean(found) + ("" if low is None else f" [{low:.4f}, {high:.4f}]")


def rows_for_people(results: Mapping[str, Any], part: str = "all") -> list[dict[str, str]]:
    """One row a model, best first."""
    places = {t["metric"]: t["places"] for t in results["tests"][part]}
    rows = []
    done = [entry for entry in results["models"] if entry["metrics"]]
    habit = any("test_selected" in entry for entry in done)
    habit &= part == "all"  # chosen and told on all users
    for entry in sorted(done, key=lambda e: -(e["metrics"][part]["recall@20"]["mean"] or 0)):
        m = entry["metrics"][part]
        row = {"model": entry["label"]}
        for name in ("recall@20", "ndcg@20"):
            row[name.replace("recall", "Recall").replace("ndcg", "NDCG")] = _shown(m[name])
            place = places[name][entry["label"]] if m[name]["n"] else ""
            row["place" if name == "recall@20" else "place (NDCG)"] = place
        row |= {"Recall@10": _mean(m["recall@10"]), "NDCG@10": _mean(m["ndcg@10"])}
        if part == "all":
            valid = sum(entry["valid_seeds"]) / len(entry["valid_seeds"])
            row["validation"] = f"{valid:.4f}" if results["set"]["valid"] else "–"
        lost = sum(trial["state"] != "done" for trial in entry["trials"])
        told = f"{len(entry['trials'])}" + (
            f" ({'all' if lost == len(entry['trials']) else lost} failed)" if lost else ""
        )
        row["trials, seeds"] = f"{told}, {entry['seeds']}"
        row["seconds"] = f"{sum(entry['seconds']) / len(entry['seconds']):.0f}"
        row["epochs"] = "/".join(str(e) for e in entry["epochs"]) if any(entry["epochs"]) else "–"
        row["epochs"] += f" ({entry['capped']} cut short)" if entry["capped"] else ""
        if habit:
            chosen = entry.get("test_selected")
            row["CHOSEN ON TEST (seed 0)"] = f"{chosen['recall@20']:.4f} / {chosen['ndcg@20']:.4f}" if chosen else "–"
        rows.append(row)
    rows += [
        {"model": entry["label"], "Recall@20": f"failed: {entry['failed'][0]}"}
        for entry in results["models"]
        if not entry["metrics"]
    ]
    return [{key: row.get(key, "") for key in rows[0]} for row in rows]
