"""The recipe `movies` on real films (posters, plots, likes): the same table as the demo's. Needs FUSIONREC_MOVIES.

A fifth of the films is kept out of train by hash, half of it for the test: the cold items. Content must beat random
there.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from workspace import make, results, run, write


def main() -> None:
    if not os.environ.get("FUSIONREC_MOVIES"):
        print(
            "skipped: FUSIONREC_MOVIES is not set; set it to a folder with items.csv, interactions.parquet and images/"
        )
        sys.exit(0)
    with tempfile.TemporaryDirectory(prefix="fusionrec-movies-") as place:
        folder, home = Path(place) / "project", Path(place) / "home"
        environment = make(folder, home)
        run(folder, environment, "fusionrec", "use", "movies")
        run(folder, environment, "dvc", "repro")
        found = results(folder, home)
        write("movies", {"rows": [], **found})
        ratio = found["tests"]["cold_only"]["ratio"]
        print(f"cold-only Recall@10 over random: {ratio['value']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]")


if __name__ == "__main__":
    main()
