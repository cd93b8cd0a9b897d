"""A catalogue with one item a file of the corpus, and the stages that look at media.

Run as a program, it takes the folder and "broken" or "clean", and runs them all (for measuring memory).
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

from fusionrec import config
from fusionrec.paths import Paths
from fusionrec.stages import embed, ingest, validate

COLUMN = {"image": "image_path", "audio": "audio_path", "video": "video_path"}
FOLDER = {"image": "images", "audio": "audio", "video": "video"}
PARAMS: dict[str, Any] = {
    "source": {"kind": "folder", "root": "cat"},
    "gate": {"min_items": 1, "min_interactions": 1},
    "split": {"kind": "random_per_user"},
    "modalities": {kind: {"kind": kind} for kind in COLUMN},
    "train": {"retriever": {"kind": "popularity"}, "fusion": {"kind": "concat"}},
}


def item(kind: str, name: str) -> str:
    """The id of the item that a file belongs to."""
    return f"{kind}-{name}"


def write(folder: Path, files: list[Any]) -> Paths:
    """A project folder with the catalogue ``cat/``: every file at an item of its own, two events an item."""
    root = folder / "cat"
    rows = []
    for one in files:
        relative = f"{FOLDER[one.kind]}/{one.name}"
        (root / FOLDER[one.kind]).mkdir(parents=True, exist_ok=True)
        (root / relative).write_bytes(one.data)
        media = {COLUMN[kind]: relative if kind == one.kind else "" for kind in COLUMN}
        rows.append({"item_id": item(one.kind, one.name), "title": f"A thing with {one.name}", **media})
    table(root / "items.csv", rows)
    events = [
        {"user_id": f"u{n % 5}", "item_id": row["item_id"], "event": "click", "timestamp": f"2026-01-{1 + n % 27:02d}"}
        for n, row in enumerate(rows * 2)
    ]
    table(root / "interactions.csv", events)
    return Paths(folder, folder / ".fusionrec")


def table(file: Path, rows: list[dict[str, str]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def run(paths: Paths) -> dict[str, Any]:
    """ingest, validate and embed of all three modalities; -> the reports by stage."""
    params = config.parse(PARAMS)
    reports = {"ingest": ingest.run(params, paths), "validate": validate.run(params, paths)}
    return reports | {kind: embed.run(params, paths, kind) for kind in COLUMN}


if __name__ == "__main__":
    from tests.media import corpus

    run(write(Path(sys.argv[1]), corpus.files() if sys.argv[2] == "broken" else corpus.clean()))
