"""The demo from nothing to a registered model, again with nothing changed, and again with one item and ten events more.

`demo-cold` is `fusionrec demo-data` + `dvc repro` + `fusionrec register`, packages installed, the store empty. The last
run adds one item and ten events of ten days: one item is encoded, at most 11 table partitions change; the files that
are written as a whole are listed with their sizes.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
from workspace import make, results, run, timed, write

WHOLE = (
    "data/splits",
    "data/embeddings",
    "data/model",
    "data/baselines",
    "data/rankers",
    "data/evaluation",
    "data/bundle",
)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="fusionrec-demo-") as place:
        folder, home = Path(place) / "project", Path(place) / "home"
        environment = make(folder, home)
        steps = (("fusionrec", "demo-data"), ("dvc", "repro"), ("fusionrec", "register"))
        cold = {" ".join(step): timed(folder, environment, *step) for step in steps}
        again = {" ".join(step): timed(folder, environment, *step) for step in steps[1:]}
        first = results(folder, home)
        grown = grow(folder, environment, home)
    seconds, noop = sum(s for s, _ in cold.values()), sum(s for s, _ in again.values())
    memory = max(m for _, m in cold.values())
    rows = [
        row("demo-cold", seconds, 300, "s"),
        row("demo-cold memory", memory, 4, "GiB"),
        row("demo-noop", noop, 30, "s"),
    ]
    parts = {step: round(s, 1) for step, (s, _) in cold.items()}
    write("demo", {"rows": rows, "steps": parts, "one_item_ten_events": grown, **first})
    for r in rows:
        print(f"{r['case']}: {r['ours']} {r['unit']} (bound {r['bound']})")
    print(f"one item, ten events: {grown['encoded']} encoded, {grown['partitions']} partitions, {grown['seconds']} s")


def row(case: str, ours: float, bound: float, unit: str) -> dict[str, Any]:
    ratio = round(bound / ours, 2)
    return {
        **{"case": case, "ours": round(ours, 2), "bound": bound, "unit": unit, "ratio_bound": ratio},
        **{"peer": None, "peer_name": None, "ratio_peer": None},
    }


def grow(folder: Path, environment: dict[str, str], home: Path) -> dict[str, Any]:
    """Add the rows, run everything; what was encoded, which partitions changed, what was written as a whole."""
    root = folder / "data" / "raw" / "atelier"
    items = pl.read_csv(root / "items.csv", infer_schema=False)
    empty = [pl.lit(None, pl.String).alias(f"{m}_path") for m in ("image", "audio", "video")]
    text = pl.lit("A lamp that was not there before.").alias("description")
    new = items.head(1).with_columns(pl.lit("brand-new").alias("item_id"), text, *empty)
    pl.concat([items, new]).write_csv(root / "items.csv")
    log = pl.read_parquet(root / "interactions.parquet")
    clicks = log.filter(pl.col("event") == "click").with_columns(day=pl.col("timestamp").dt.date())
    ten = clicks.sort("day", "timestamp").group_by("day", maintain_order=True).first().tail(10)
    nothing = pl.lit(None, log.schema["impression_id"]).alias("impression_id")
    ten = ten.with_columns(pl.lit("brand-new").alias("item_id"), nothing).select(log.columns)
    pl.concat([log, ten]).write_parquet(root / "interactions.parquet")
    before = digests(folder / "data" / "tables")
    run(folder, environment, "dvc", "add", "-q", "data/raw/atelier")
    seconds, _ = timed(folder, environment, "dvc", "repro")
    after = digests(folder / "data" / "tables")
    reports = home / "reports"
    encoded = {m: json.loads((reports / f"embed@{m}.json").read_text())["counts"]["encoded"] for m in ("text", "image")}
    files = sorted(p for w in WHOLE for p in (folder / w).rglob("*") if p.is_file() and p.name != ".gitkeep")
    return {
        "seconds": round(seconds, 1),
        "encoded": encoded,
        "partitions": sum(before.get(name) != digest for name, digest in after.items() if name.count("/") == 1),
        "whole_files": {p.relative_to(folder).as_posix(): p.stat().st_size for p in files},
    }


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*.parquet"))
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


if __name__ == "__main__":
    main()
