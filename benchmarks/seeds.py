"""The demo's claims on catalogues generated from other seeds than the one the model was developed on.

One project a seed, everything from nothing: `fusionrec demo-data --seed N`, `dvc repro`. Nothing is chosen by these
results.

    python benchmarks/seeds.py [--seeds 101 102 103]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from workspace import make, results, run, write


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103])
    rows = []
    for seed in parser.parse_args().seeds:
        with tempfile.TemporaryDirectory(prefix="fusionrec-seed-") as place:
            folder, home = Path(place) / "project", Path(place) / "home"
            environment = make(folder, home)
            run(folder, environment, "fusionrec", "demo-data", "--seed", str(seed))
            run(folder, environment, "dvc", "repro")
            rows.append(summary(seed, results(folder, home)))
        write("seeds", {"rows": rows})
        print(rows[-1], flush=True)


def summary(seed: int, found: dict[str, Any]) -> dict[str, Any]:
    """One row: means, paired differences with Holm-corrected p, the cold ratio, the share of the oracle."""
    tests = found["tests"]
    metric = tests["main_metric"]
    return {
        "case": f"seed {seed}",
        "metric": metric,
        "means": {r["model"]: r["mean"] for r in found["table"] if (r["slice"], r["metric"]) == ("all", metric)},
        "comparisons": {
            c["label"]: {"difference": c["difference"], "p_holm": c["p_holm"]} for c in tests["comparisons"]
        },
        "cold_only_ratio": tests["cold_only"]["ratio"],
        "share_of_oracle": tests["ceiling"]["ratios"]["all"][metric]["ratio"],
        "knockout": {m: {s: v["loss"] for s, v in parts.items()} for m, parts in found["knockout"].items()},
    }


if __name__ == "__main__":
    main()
