"""What was learnt from earlier queries, kept in the private home, so that the next search starts at once."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from fusionrec.data.files import fresh_folder, to_json, write_bytes
from fusionrec.encoders.weights import sha256_file
from fusionrec.search.clicks import ClickMap
from fusionrec.search.learning import Learnt
from fusionrec.search.weights import Weights

VERSION = 2  # of the files and of how things are learnt: another one is learnt anew
FILE, MANIFEST = "learnt.safetensors", "manifest.json"
KEPT = 2  # the latest, and the one before (a switch of params back and forth)


def name(**facts: object) -> str:
    """The folder of what is learnt from these facts."""
    lines = [f"version={VERSION}", *(f"{key}={value}" for key, value in sorted(facts.items()))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def write(home: Path, folder: str, learnt: Learnt) -> None:
    """Keep it below ``home``/search; older ones go."""
    from safetensors.numpy import save

    place = home / "search"
    arrays = {f"mean/{language}": mean for language, mean in learnt.means.items()}
    arrays |= learnt.map.arrays() if learnt.map else {}
    with fresh_folder(place / folder) as building:
        write_bytes(building / FILE, save({k: np.ascontiguousarray(v, np.float32) for k, v in arrays.items()}))
        told: dict[str, Any] = {
            "format_version": VERSION,
            "weights": vars(learnt.weights),
            "words": sorted(learnt.words),
            "told": dict(learnt.told),
            "sha256": sha256_file(building / FILE),
        }
        write_bytes(building / MANIFEST, to_json(told))
    others = sorted((p for p in place.iterdir() if p.is_dir() and p.name != folder), key=lambda p: -p.stat().st_mtime)
    for old in others[KEPT - 1 :]:
        shutil.rmtree(old, ignore_errors=True)


def read(home: Path, folder: str, n_items: int) -> Learnt | None:
    """None where it was not kept, or is damaged: then it is learnt again."""
    from safetensors.numpy import load

    place = home / "search" / folder
    try:
        told = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        data = (place / FILE).read_bytes()
        if told["format_version"] != VERSION or hashlib.sha256(data).hexdigest() != told["sha256"]:
            return None
        arrays = load(data)
        clicks = ClickMap.restore(arrays) if "map/items" in arrays else None
        if clicks is not None and len(clicks.items) != n_items:
            return None
        means = {key.removeprefix("mean/"): value for key, value in arrays.items() if key.startswith("mean/")}
        return Learnt(Weights(**told["weights"]), means, frozenset(told["words"]), clicks, told["told"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
