"""Every written table of recommenders.py once more, from the units that are kept, in seconds: is it what is written?

    python benchmarks/kept.py [SET ...]

Units of older code count: nothing is computed and nothing is written. The validation units of a search must say what
its trials say and choose what was chosen; the table made of the test units must have the same means, intervals and
places. Where something differs it is told and the end is 3. The sets lie where FUSIONREC_TIKTOK, _LFM2K, _ML1M and
_GOWALLA say.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmrec_folders import SETS, folders
from recommenders import RESULTS, read

from fusionrec.errors import DataRejected, FusionrecError
from fusionrec.studies import benchmark, contestants
from fusionrec.studies.benchmark import Effort
from fusionrec.studies.contestants import Contestant
from fusionrec.studies.protocol import Rules
from fusionrec.studies.runner import Runner
from fusionrec.studies.space import replaced

TOLD = ("label", "chosen", "seeds", "failed", "capped", "epochs", "valid_seeds", "metrics")
"""What of a model's entry must come out again; how long it took is of its units too, but of a search's own clock."""


def once_more(place: Path, stored: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The part of a results file made of its units again, and what is not as it is written. Raises ConfigError where a
    unit is not there."""
    rules = Rules(**stored["rules"])
    seeds, minutes = (stored["effort"][key] for key in ("seeds", "minutes"))
    effort = Effort(seeds=seeds, minutes=minutes, any_code=True, compute=False)
    wanted = [contestants.parse(entry["label"], entry["chosen"]) for entry in stored["models"]]
    made = benchmark.run(place, models=wanted, effort=effort, rules=rules, units=RESULTS / "units")
    state = RESULTS / "units" / made["set"]["digest"][:16]
    runner = Runner(place, rules, state, minutes, any_code=True, compute=False)
    found = []
    for who, entry, new in zip(wanted, stored["models"], made["models"], strict=True):
        found += [f"{who.label}: {text}" for text in chosen_otherwise(runner, who, entry)]
        found += [f"{who.label}: {text}" for key in TOLD for text in differences(entry[key], new[key], key)]
    return made, found + list(differences(stored["tests"], made["tests"], "tests"))


def chosen_otherwise(runner: Runner, who: Contestant, entry: Mapping[str, Any]) -> Iterator[str]:
    """Where the validation units of a search do not say what its trials say, or would choose another."""
    done = [trial for trial in entry["trials"] if trial["state"] == "done"]
    values = []
    for trial in done:
        one = Contestant(who.label, replaced(who.spec, trial["point"]), who.fusion)
        values.append(runner.run(one, "valid", 0)["valid"])
        yield from differences(trial["value"], values[-1], f"validation of {trial['point']}")
    if done:
        best = replaced(who.spec, done[values.index(max(values))]["point"])
        yield from differences(entry["chosen"], Contestant(who.label, best, who.fusion).sections(), "chosen")


def differences(old: Any, new: Any, where: str) -> Iterator[str]:
    """A line for every value that is another one. JSON has lists for tuples."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from differences(old.get(key), new.get(key), f"{where}.{key}")
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        for n, pair in enumerate(zip(old, new, strict=True)):
            yield from differences(*pair, f"{where}.{n}")
    elif old != new:
        yield f"{where}: written {old}, made {new}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=[])
    told = parser.parse_args(arguments)
    if unknown := [name for name in told.sets if name not in SETS]:
        parser.error(f"unknown: {', '.join(unknown)}; sets {', '.join(SETS)}")
    wrong = 0
    for name, place in folders(told.sets):
        for part, stored in read(name).get("parts", {}).items():
            try:
                made, found = once_more(place, stored)
            except FusionrecError as error:
                print(f"error: {name}, {part}: {error}", file=sys.stderr)
                return error.exit_code
            for row in benchmark.rows_for_people(made):
                print(row)
            print(f"{name}, {part}: {'as written' if not found else f'{len(found)} values differ'}")
            print(*found[:10], sep="\n", end="\n" if found else "")
            wrong += bool(found)
    return DataRejected.exit_code if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
