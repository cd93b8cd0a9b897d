"""Which parts the house blend should have: candidates on the demo, judged on its validation split alone.

`python benchmarks/house.py` makes the demo, embeds it and fits each candidate once (a quarter of an hour, most of it
the one with a graph model). The test split is made by the split stage and read by nobody here.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from workspace import make, run, write

from fusionrec import config
from fusionrec.data import split
from fusionrec.embeddings import base as embeddings
from fusionrec.paths import Paths
from fusionrec.recommenders.blend import Blend
from fusionrec.recommenders.validation import validation_by_group, validation_metric

CANDIDATES: dict[str, tuple[str, ...]] = {
    "ease + two_tower": ("ease", "two_tower"),
    "feature_ease + spectral": ("feature_ease", "spectral"),
    "feature_ease + spectral + two_tower": ("feature_ease", "spectral", "two_tower"),
    "spectral + two_tower": ("spectral", "two_tower"),
    "feature_ease + spectral + two_tower + mgcn": ("feature_ease", "spectral", "two_tower", "mgcn"),
}


def one(name: str, data: split.SplitData, items: Any) -> dict[str, Any]:
    model = Blend.model_validate({"parts": [{"kind": kind} for kind in CANDIDATES[name]]}).build()
    start = time.monotonic()
    model.fit(data.train, data.valid, items)
    row = {
        "parts": name,
        "valid_ndcg@20": round(validation_metric(model, data.train, data.valid), 4),
        "valid_ndcg@20 known and new apart": round(validation_by_group(model, data.train, data.valid), 4),
        "seconds": round(time.monotonic() - start, 1),
    }
    print(row, flush=True)
    return row


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="fusionrec-house-") as place:
        folder = Path(place) / "project"
        environment = make(folder, Path(place) / "home")
        run(folder, environment, "fusionrec", "demo-data")
        params = config.load(folder / "params.yaml")
        run(folder, environment, "dvc", "repro", *(f"embed@{m}" for m in params.modalities), "split")
        paths = Paths(folder, Path(place) / "home")
        data = split.load(paths, ("train", "valid"))
        items = embeddings.load(paths, tuple(params.modalities))
        write("house", {"rows": [one(name, data, items) for name in CANDIDATES]})


if __name__ == "__main__":
    main()
