"""Recommenders on public sets by MMRec's protocol, where FUSIONREC_TIKTOK, _LFM2K, _ML1M, _GOWALLA say they lie.

    python benchmarks/recommenders.py [SET ...] [--parts main,missing30,missing60,cold] [--models a,b] [--jobs N]
                                      [--without a,b: main's table says it lacks them]
                                      [--test-selected: tell what choosing on the test would have given]

Hours; what is done is kept in benchmarks/results/units and not done again. Parameters are chosen on the set's main
part; the other parts and ml1m use them as they are. The parts beside main compare the house model and the two others
that main's validation likes best. With --models nothing is written: units are computed, which a call without it puts
into the table.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mmrec_folders import SETS, folders, variable
from workspace import ROOT, about

from fusionrec.data.files import write_json
from fusionrec.errors import ConfigError, FusionrecError
from fusionrec.studies import benchmark, contestants, protocol
from fusionrec.studies.benchmark import Effort
from fusionrec.studies.contestants import Contestant
from fusionrec.studies.protocol import Rules

RESULTS = ROOT / "benchmarks" / "results"
SPECS = ROOT / "benchmarks" / "recommenders.yaml"
SPECS_OF = {"gowalla": ROOT / "benchmarks" / "recommenders-gowalla.yaml"}
EFFORT = {
    "tiktok": Effort(trials=12, seeds=5, minutes=15),
    "lfm2k": Effort(trials=12, seeds=5, minutes=15),
    "ml1m": Effort(trials=0, seeds=3, minutes=30),  # parameters are carried over
    "gowalla": Effort(trials=0, seeds=1, minutes=80),
}
RULES = {"gowalla": Rules(join=True)}  # published results train on train and validation
CARRIED = {"ml1m": ("tiktok", "lfm2k")}
FEWER_MODELS = (
    5  # of a set whose parameters are carried over: the house model and the best others of where they come from
)
HOUSE_IS_MADE = ("tiktok", "lfm2k")
"""Where the house model is put together from what its parts' searches chose; elsewhere it is carried over or given."""
PARTS = {
    "main": Rules(),
    "missing30": Rules(missing=0.3),
    "missing60": Rules(missing=0.6),
    "cold": Rules(cold=0.2),
}
FEWER_SEEDS = 3  # of the parts beside main
HOUSE, BESIDE_HOUSE = "house", 2
HOUSE_PARTS = ("feature_ease", "spectral", "mgcn")
"""Two closed forms and the strongest trained model, weighted on validation. Each has the parameters that its own search
chose on the same set's validation; the blend itself is not searched."""


def models(name: str, names: list[str]) -> list[Contestant]:
    """The models of the specs file (``names`` of them); where a set carries parameters over, the house model and the
    best others, all with those of the set on which validation was best relative to that set's best model. Raises
    ConfigError where those sets have no main part, and for a name that no set knows."""
    best: dict[str, tuple[float, dict[str, Any]]] = {}
    for other in CARRIED.get(name, ()):
        entries = finished(other)["models"]
        top = max(valid(entry) for entry in entries)
        for entry in entries:
            share = valid(entry) / top
            best[entry["label"]] = max(
                best.get(entry["label"], (0.0, {})), (share, entry["chosen"]), key=lambda b: b[0]
            )
    if best:
        known(name, names, list(best))
        order = sorted(best, key=lambda label: (label != HOUSE, -best[label][0]))
        return [contestants.parse(label, best[label][1]) for label in last(names or order[:FEWER_MODELS])]
    made = name in HOUSE_IS_MADE
    return contestants.chosen([n for n in names if not (made and n == HOUSE)], SPECS_OF.get(name, SPECS))


def house(entries: list[dict[str, Any]]) -> Contestant:
    """The house model from the parts as a benchmark chose them. Raises ConfigError where one is missing."""
    chosen = {entry["label"]: entry["chosen"]["retriever"] for entry in entries}
    absent = [label for label in HOUSE_PARTS if label not in chosen]
    if absent:
        raise ConfigError(f"the house model needs {', '.join(absent)} in the same call")
    retriever = {"kind": "blend", "metric": protocol.CHOICE, "parts": [chosen[label] for label in HOUSE_PARTS]}
    return contestants.parse(HOUSE, {"retriever": retriever, "trials": 0})


def beside(name: str, names: list[str]) -> list[Contestant]:
    """The models of a part beside main, with the parameters that main chose: ``names``, else the house model and the
    two others with the best validation there. Raises ConfigError where main is not finished or lacks one."""
    entries = {entry["label"]: entry for entry in finished(name)["models"]}
    others = sorted((label for label in entries if label != HOUSE), key=lambda label: -valid(entries[label]))
    wanted = names or [HOUSE, *others[:BESIDE_HOUSE]]
    known(f"{name}, main part", wanted, list(entries))
    return [contestants.parse(label, entries[label]["chosen"]) for label in last(wanted)]


def last(labels: list[str]) -> list[str]:
    """The house model after the others: its parts need not be fitted again where they are contestants too."""
    return sorted(labels, key=lambda label: label == HOUSE)


def known(where: str, names: list[str], labels: list[str]) -> None:
    """Raises ConfigError where one of ``names`` is none of ``labels``."""
    absent = [name for name in names if name not in labels]
    if absent:
        raise ConfigError(f"{where}: no model {', '.join(absent)}; there are {', '.join(labels)}")


def finished(name: str) -> dict[str, Any]:
    """A set's main part as it was written."""
    found: dict[str, Any] | None = read(name).get("parts", {}).get("main")
    if not found:
        raise ConfigError(
            f"{name} has no finished main part, which chooses the parameters: run first "
            f"python benchmarks/recommenders.py {name}"
        )
    return found


def valid(entry: dict[str, Any]) -> float:
    """A model's mean validation over its seeds; below every other's where it failed."""
    return sum(entry["valid_seeds"]) / len(entry["valid_seeds"]) if entry["valid_seeds"] else -1.0


def read(name: str) -> dict[str, Any]:
    path = RESULTS / f"recommenders-{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def measure(name: str, place: Path, part: str, told: argparse.Namespace) -> None:
    """Run a part of one set and put it into its results file; what was there of other parts stays.

    With ``told.models`` only units are computed. Raises ConfigError where a part needs a main part that is not there.
    """
    effort, rules = replace(EFFORT[name], jobs=told.jobs, test_selected=told.test_selected), PARTS[part]
    run = partial(benchmark.run, place, say=lambda text: print(text, flush=True), units=RESULTS / "units")
    if part == "main":
        rules = RULES.get(name, rules)
        wanted = models(name, told.models)
        known(f"{name}, --without", told.without, [who.label for who in wanted])
        wanted = [who for who in wanted if who.label not in told.without]
        if name in HOUSE_IS_MADE and (not told.models or HOUSE in told.models):
            wanted.append(house(run(models=wanted, effort=effort, rules=rules)["models"]))
    else:
        wanted = beside(name, told.models)
        effort = replace(effort, trials=0, seeds=min(FEWER_SEEDS, effort.seeds), test_selected=False)
    result = run(models=wanted, effort=effort, rules=rules)
    for row in benchmark.rows_for_people(result):
        print(row)
    if told.models:
        print(f"{name}, {part}: the units are kept; with --models no table is written, run it without")
        return
    command = f"{variable(name)}=FOLDER python benchmarks/recommenders.py {name} --parts {part}"
    without = told.without if part == "main" else []
    command += f" --without {','.join(without)}" if without else ""
    found = {**read(name).get("parts", {}), part: {**result, "command": command, "without": without}}
    head = {**about(), "command": command}
    write_json(RESULTS / f"recommenders-{name}.json", {**head, "rows": [], "parts": found})


def main(arguments: list[str] | None = None) -> int:
    def words(text: str) -> list[str]:
        return [word for word in text.split(",") if word]

    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", default=[])
    parser.add_argument("--parts", type=words, default=["main"])
    parser.add_argument("--models", type=words, default=[])
    parser.add_argument("--without", type=words, default=[])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--test-selected", action="store_true")
    told = parser.parse_args(arguments)
    unknown = [s for s in told.sets if s not in SETS] + [p for p in told.parts if p not in PARTS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; sets {', '.join(SETS)}; parts {', '.join(PARTS)}")
    for name, place in folders(told.sets):
        try:
            for part in (part for part in PARTS if part in told.parts):  # main first
                measure(name, place, part, told)
        except FusionrecError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
