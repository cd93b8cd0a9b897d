"""split: the accepted positives, and what was shown and came of it, become data/splits."""

from __future__ import annotations

import time
from datetime import datetime

from fusionrec.config import Params
from fusionrec.data import outcomes, split, tables
from fusionrec.data.files import write_bytes
from fusionrec.data.positives import positive_pairs
from fusionrec.paths import Paths
from fusionrec.types import Columns as C
from fusionrec.types import Report


def run(params: Params, paths: Paths) -> Report:
    """Raises ConfigError for a temporal split without timestamps, DataRejected where nothing is left to train on."""
    started = time.monotonic()
    interactions = tables.accepted(paths, "interactions")
    pairs = positive_pairs(interactions, params.positives.events)
    first = interactions[C.TIME].min() if C.TIME in interactions.columns else None
    first_day = first.date() if isinstance(first, datetime) else None
    result = split.make(params.split, tables.accepted(paths, "items"), pairs, params.positives.k_core, first_day)
    shown = outcomes.divided(params.split, interactions, result.pairs, result.place, first_day)
    for name, part in shown.items():
        write_bytes(outcomes.file_of(paths, name), tables.parquet(part))
    write_bytes(paths.splits / "users.parquet", tables.parquet(tables.accepted(paths, "users")))
    split.write(paths, result)
    rows = [{"split": name, **result.summary[name], "shown": shown[name].height} for name in split.NAMES]
    counts: dict[str, int | float] = {name: part.height for name, part in result.parts.items()}
    counts["shown"] = sum(part.height for part in shown.values())
    notes = [f"the split {name} holds no pair" for name, part in result.parts.items() if part.height == 0]
    return Report(
        "split",
        {"items": len(result.items), **counts},
        {"total": time.monotonic() - started},
        {"splits": "data/splits"},
        rows,
        notes,
    )
