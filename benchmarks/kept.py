"""Every written table of recommenders.py and parity.py once more, from the units that are kept: is it what is written?

    python benchmarks/kept.py [SET ...]

Units of older code count: nothing is computed and nothing is written, so it takes seconds. The validation units of a
search must say what its trials say and choose what was chosen; the table made of the test units must have the same
means, intervals and places. Where something differs it is told and the end is 3. The sets lie where FUSIONREC_TIKTOK,
_LFM2K, _ML1M and _GOWALLA say.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import page_source
import parity
from mmrec_folders import SETS, folders
from recommenders import RESULTS, read

from fusionrec.errors import ConfigError, DataRejected, FusionrecError
from fusionrec.studies import benchmark, contestants, protocol
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


def parity_once_more(place: Path, stored: Mapping[str, Any]) -> list[str]:
    """What of the comparison with the reference's code is not as it is written. Raises ConfigError as above, and where
    a run of the reference is not there."""
    state = RESULTS / "units" / protocol.load(place, Rules()).digest[:16]
    runner = Runner(place, Rules(), state, parity.MINUTES, any_code=True, compute=False)
    found: list[str] = []
    for row in stored["rows"]:
        kind, counts = row["model"], {side: len(row[side]["seeds"]) for side in ("ours", "reference")}
        mine = [parity.ours(runner, kind, seed) for seed in range(counts["ours"])]
        theirs = [sorted((state / "mmrec").glob(f"{kind}-{seed}-*.json")) for seed in range(counts["reference"])]
        if any(len(files) != 1 for files in theirs):
            raise ConfigError(f"{kind}: not one run of the reference a seed among the kept units in {state / 'mmrec'}")
        peer = [json.loads(path.read_text(encoding="utf-8")) for (path,) in theirs]
        found += [f"{kind}: {text}" for text in differences(row, parity.row(kind, mine, peer), "parity")]
    return found


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
    try:
        for name, place in folders(told.sets):
            for part, stored in read(name).get("parts", {}).items():
                made, found = once_more(place, stored)
                for row in benchmark.rows_for_people(made):
                    print(row)
                wrong += said(f"{name}, {part}", found)
            if name == parity.SET and (stored := page_source.read("parity")):
                wrong += said(f"{name}, parity", parity_once_more(place, stored))
    except FusionrecError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return DataRejected.exit_code if wrong else 0


def said(table: str, found: Sequence[str]) -> bool:
    """Tell what differs; whether anything does."""
    print(f"{table}: {f'{len(found)} values differ' if found else 'as written'}")
    print(*found[:10], sep="\n", end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
