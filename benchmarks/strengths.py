"""Does the knock-out tell the truth? The demo with a modality's taste turned off must show no loss without it.

Six catalogues: default strengths, each modality's strength 0 in turn, all content 0. For each the same pipeline, then
the loss in NDCG@20 when a modality is masked in evaluation, and the paired tests of the fused model. Conditions: at
default strengths hiding a modality costs something on the items that have it (lower 95 % bound above 0); with its
strength 0 the upper bound of its loss is below a fifth of its loss at default strength; with all at 0 the fused model
does not beat EASE (one-sided p >= .05). About 25 minutes.

    python benchmarks/strengths.py [--cases audio=0 video=0]    # some cases are printed, not written
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from workspace import make, run, write

CASES: dict[str, tuple[str, ...]] = {
    "default": (),
    "text=0": ("text=0",),
    "image=0": ("image=0",),
    "audio=0": ("audio=0",),
    "video=0": ("video=0",),
    "all=0": ("text=0", "image=0", "audio=0", "video=0", "attributes=0"),
}
MODALITIES = ("text", "image", "audio", "video")


def one(case: str, place: Path) -> dict[str, Any]:
    folder = place / case.replace("=", "-")
    environment = make(folder, place / "home")
    options = [part for strength in CASES[case] for part in ("--strength", strength)]
    run(folder, environment, "fusionrec", "demo-data", *options)
    run(folder, environment, "dvc", "repro", "evaluate")
    read = folder / "data" / "evaluation"
    knockout = json.loads((read / "knockout.json").read_text())["modalities"]
    tests = json.loads((read / "tests.json").read_text())
    print(f"{case}: done", flush=True)
    return {
        "case": case,
        "knockout": {m: _numbers(v["all"]) for m, v in sorted(knockout.items())},
        "knockout_has_it": {m: _numbers(v["all_has_it"]) for m, v in sorted(knockout.items())},
        "against": {
            c["against"]: {k: c[k] for k in ("difference", "low", "high", "p", "p_holm")} for c in tests["comparisons"]
        },
        "cold_only_ratio": tests["cold_only"]["ratio"],
    }


def _numbers(found: dict[str, float]) -> dict[str, float]:
    return {k: found[k] for k in ("loss", "low", "high", "n")}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    cases = parser.parse_args().cases
    with tempfile.TemporaryDirectory(prefix="fusionrec-strengths-") as place:
        rows = [one(case, Path(place)) for case in cases]
    if cases != list(CASES):
        sys.stdout.write(json.dumps(rows, indent=1, sort_keys=True) + "\n")
        return
    by_case = {r["case"]: r for r in rows}
    checks = []
    for modality in MODALITIES:
        low = by_case["default"]["knockout_has_it"][modality]["low"]
        name = f"default: {modality}'s loss on items that have it, more than"
        checks.append({"check": name, "found": low, "bound": 0.0, "pass": low > 0})
    for modality in MODALITIES:
        bound = 0.2 * by_case["default"]["knockout"][modality]["loss"]
        high = by_case[f"{modality}=0"]["knockout"].get(modality, {"high": 0.0})["high"]
        name = f"{modality}=0: loss less than"
        checks.append({"check": name, "found": high, "bound": bound, "pass": high < bound})
    p = by_case["all=0"]["against"]["ease"]["p"]
    checks.append({"check": "all=0: fused against EASE, p at least", "found": p, "bound": 0.05, "pass": p >= 0.05})
    write("strengths", {"rows": rows, "checks": checks})
    for check in checks:
        verdict = "pass" if check["pass"] else "MISS"
        print(f"{verdict}  {check['check']}: {check['found']:.5f} (bound {check['bound']:.5f})")


if __name__ == "__main__":
    main()
