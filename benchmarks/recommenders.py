"""Recommenders on public sets by MMRec's protocol, where FUSIONREC_TIKTOK, _LFM2K, _ML1M, _GOWALLA say they lie.

`python benchmarks/recommenders.py [SET ...] [--parts main,missing,cold] [--models a,b] [--jobs N]`. Hours; what is done
is kept and not done again. Parameters are chosen on the set's main part; the other parts and ml1m use them as they are.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmrec_folders import SETS, folder, variable
from workspace import ROOT, about

from fusionrec.data.files import write_json
from fusionrec.studies import benchmark, contestants
from fusionrec.studies.benchmark import Effort
from fusionrec.studies.contestants import Contestant
from fusionrec.studies.protocol import Rules

RESULTS = ROOT / "benchmarks" / "results"
SPECS = ROOT / "benchmarks" / "recommenders.yaml"
EFFORT = {
    "tiktok": Effort(trials=12, seeds=5, minutes=15, test_selected=True),
    "lfm2k": Effort(trials=12, seeds=5, minutes=15, test_selected=True),
    "ml1m": Effort(trials=0, seeds=3, minutes=30),  # parameters are carried over
    "gowalla": Effort(trials=0, seeds=1, minutes=120),
}
RULES = {"gowalla": Rules(join=0.02)}  # published results train on train and validation
CARRIED = {"ml1m": ("tiktok", "lfm2k")}
PARTS = {
    "main": Rules(),
    "missing30": Rules(missing=0.3),
    "missing60": Rules(missing=0.6),
    "cold": Rules(cold=0.2),
}
FEWER_SEEDS = 3  # of the parts beside main


def models(name: str, names: list[str]) -> list[Contestant]:
    """The models of the specs file; where a set carries parameters over, those of the set on which validation was
    best relative to that set's best model."""
    found = contestants.chosen(names, SPECS)
    best: dict[str, tuple[float, dict[str, Any]]] = {}
    for other in CARRIED.get(name, ()):
        earlier = read(other).get("parts", {}).get("main")
        if not earlier:
            continue
        top = max(sum(e["valid_seeds"]) / len(e["valid_seeds"]) for e in earlier["models"] if e["valid_seeds"])
        for entry in earlier["models"]:
            if entry["valid_seeds"]:
                share = sum(entry["valid_seeds"]) / len(entry["valid_seeds"]) / top
                best[entry["label"]] = max(
                    best.get(entry["label"], (0.0, {})), (share, entry["chosen"]), key=lambda b: b[0]
                )
    return [contestants.parse(c.label, best[c.label][1]) if c.label in best else c for c in found]


def read(name: str) -> dict[str, Any]:
    path = RESULTS / f"recommenders-{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def measure(name: str, place: Path, parts: list[str], names: list[str], jobs: int) -> None:
    """Run the parts of one set and put them into its results file; what was there of other parts stays."""
    found = read(name).get("parts", {})
    home = Path(os.environ.get("FUSIONREC_HOME") or ROOT / ".fusionrec")
    for part in parts:
        effort, rules = replace(EFFORT[name], jobs=jobs), PARTS[part]
        wanted = models(name, names)
        if part == "main":
            rules = RULES.get(name, rules)
        else:
            effort = replace(effort, trials=0, seeds=min(FEWER_SEEDS, effort.seeds), test_selected=False)
            chosen = {entry["label"]: entry["chosen"] for entry in found.get("main", {"models": []})["models"]}
            wanted = [contestants.parse(c.label, chosen[c.label]) if c.label in chosen else c for c in wanted]
        found[part] = benchmark.run(place, wanted, effort, home, rules, say=lambda text: print(text, flush=True))
        head = about() | {"command": f"{variable(name)}=FOLDER python benchmarks/recommenders.py {name}"}
        write_json(RESULTS / f"recommenders-{name}.json", {**head, "rows": [], "parts": found})
        for row in benchmark.rows_for_people(found[part]):
            print(row)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", default=[])
    parser.add_argument("--parts", default="main")
    parser.add_argument("--models", default="")
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    unknown = [s for s in asked.sets if s not in SETS] + [p for p in asked.parts.split(",") if p not in PARTS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; sets {', '.join(SETS)}; parts {', '.join(PARTS)}")
    for name in asked.sets or SETS:
        if not os.environ.get(variable(name)):
            print(f"{name}: skipped, {variable(name)} is not set")
            continue
        place = folder(name)
        assert place is not None
        measure(name, place, asked.parts.split(","), [m for m in asked.models.split(",") if m], asked.jobs)


if __name__ == "__main__":
    main()
