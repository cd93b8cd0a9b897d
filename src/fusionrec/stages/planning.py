"""``fusionrec plan``: what a run would do, and about how long it takes, before it starts."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionrec.paths import Paths
from fusionrec.stages import split_address
from fusionrec.stages.stale import Step, steps

if TYPE_CHECKING:
    from fusionrec.config import Params

# Seconds on 2 cores where no earlier run tells: fixed part and per thousand of the unit. Measured on the demo, order
# of magnitude.
_RATES = {
    "ingest": (2.0, 5.0, "items"), "validate": (12.0, 0.2, "interactions"), "split": (1.5, 0.05, "interactions"),
    "learn": (2.0, 0.0, "items"), "words": (2.0, 0.0, "queries"),
    "text": (6.0, 20.0, "items"), "image": (6.0, 90.0, "items"), "vector": (2.0, 0.1, "items"),
    "attributes": (2.0, 0.1, "items"),
    "train": (10.0, 0.6, "interactions"), "rank": (10.0, 0.5, "interactions"), "evaluate": (10.0, 5.0, "items"),
    "bundle": (2.0, 0.5, "items"),
}  # fmt: skip
_BYTES_PER_VECTOR = 1280 * 4 * 3  # store, matrix and DVC cache each hold one float32 row


@dataclass(frozen=True)
class Planned:
    """One line of the plan: ``minutes`` is None where nothing is known, ``basis`` says where it comes from."""

    address: str
    reason: str | None
    minutes: float | None
    basis: str


@dataclass(frozen=True)
class Plan:
    """``rows`` per source table, the stages, the disk it may take and the disk that is free, in MiB."""

    rows: dict[str, int]
    stages: tuple[Planned, ...]
    disk_mib: float
    free_mib: float

    @property
    def minutes(self) -> float:
        return sum(s.minutes or 0.0 for s in self.stages if s.reason)


def plan(params: Params, paths: Paths) -> Plan:
    """Counts the source's rows, asks DVC what is stale, and estimates from the last reports.

    Raises DataRejected where the source cannot be read, ConfigError where the pipeline cannot be resolved.
    """
    rows = source_rows(params, paths)
    found = [
        _estimate(step, params, rows, _last(paths.reports / f"{step.address}.json"))
        for step in steps(paths.project, paths.home) if not step.source
    ]  # fmt: skip
    to_encode = sum(1 for p in found if p.reason and p.address.startswith("embed@"))
    disk = rows.get("items", 0) * to_encode * _BYTES_PER_VECTOR / 2**20 + sum(rows.values()) * 3e-4
    return Plan(rows, tuple(found), round(disk, 1), round(shutil.disk_usage(paths.project).free / 2**20))


def source_rows(params: Params, paths: Paths) -> dict[str, int]:
    """Rows per raw table."""
    raw = params.source.build(paths.project).read()
    tables = {"items": raw.items, "interactions": raw.interactions, "users": raw.users, "queries": raw.queries}
    return {name: table.height for name, table in tables.items() if table is not None}


def _last(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _estimate(step: Step, params: Params, rows: dict[str, int], last: dict[str, Any] | None) -> Planned:
    if last is not None and "total" in last.get("seconds", {}):
        return Planned(step.address, step.reason, last["seconds"]["total"] / 60, "last run")
    name, modality = split_address(step.address)
    kind = params.modalities[modality].encoder.accepts if modality in params.modalities else name
    learns = name == "learn" and any(m.encoder.learnt for m in params.modalities.values())
    hears = name == "words" and params.rank.ranker.hears
    if kind not in _RATES or learns or hears:  # how many epochs, or reviews and spoken queries, nobody knows before
        return Planned(step.address, step.reason, None, "unknown")
    fixed, each, unit = _RATES[kind]
    return Planned(
        step.address, step.reason, (fixed + each * rows.get(unit, 0) / 1000) / 60, f"{rows.get(unit, 0):,} {unit}"
    )
