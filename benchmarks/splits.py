"""`fusionrec splits` on the demo, and on films with timestamps where FUSIONREC_MOVIES names a folder that has
interactions_latest_small.csv (stars and times; a private copy, never part of this repository).

    python benchmarks/splits.py [--only demo|films] [--items 80 --users 90: a small demo, printed and not written]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workspace import RESULTS, embedded, environment_of, run, write

LOG = "interactions_latest_small.csv"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=("demo", "films"))
    parser.add_argument("--items")
    parser.add_argument("--users")
    told = parser.parse_args()
    only = told.only
    if told.items and told.users:
        measured(None, "--items", told.items, "--users", told.users)
        return
    old = RESULTS / "splits.json"
    found: dict[str, Any] = json.loads(old.read_text())["catalogues"] if only and old.is_file() else {}
    movies = os.environ.get("FUSIONREC_MOVIES")
    if only != "films":
        found["demo"] = measured(None)
        write("splits", {"rows": [], "catalogues": found})
    if only != "demo" and movies and (Path(movies) / LOG).is_file():
        found["films"] = measured(films)
        write("splits", {"rows": [], "catalogues": found})
    elif only != "demo":
        print(f"films skipped: set FUSIONREC_MOVIES to a folder with items.csv, images/ and {LOG}")


def films(params: dict[str, Any]) -> None:
    """The recipe `movies` with the log that has stars and times; 4 stars and more are positives."""
    params["source"]["interactions"] = {"file": LOG, "columns": {"value": "rating"}, "constants": {"event": "rating"}}
    params["positives"] = {"events": {"rating": 4.0}}
    params["split"] = {"kind": "leave_last_out"}


def measured(change: Callable[[dict[str, Any]], None] | None, *sizes: str) -> dict[str, Any]:
    """One catalogue: the stages up to embed, then the three protocols. -> what the command wrote, and its seconds."""
    with tempfile.TemporaryDirectory(prefix="fusionrec-splits-") as place:
        folder, out = embedded(Path(place), change, *sizes), Path(place) / "splits.json"
        environment = environment_of(Path(place) / "home", folder)
        start = time.monotonic()
        print(run(folder, environment, "fusionrec", "splits", "--out", str(out)), flush=True)
        return {"seconds": round(time.monotonic() - start, 1), **json.loads(out.read_text())}


if __name__ == "__main__":
    main()
