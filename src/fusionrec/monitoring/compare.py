"""All comparisons of two sides, in one list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fusionrec.monitoring import behaviour, drift
from fusionrec.monitoring.drift import Pair
from fusionrec.monitoring.sides import Side
from fusionrec.monitoring.spec import Monitor
from fusionrec.monitoring.verdict import EMBEDDING, Measure, Verdict, judge


@dataclass(frozen=True)
class Comparison:
    """The verdict and the cleaned descriptors it rests on (for the pages)."""

    verdict: Verdict
    pairs: tuple[Pair, ...]


def compare(reference: Side, current: Side, spec: Monitor, more: Sequence[Measure] = ()) -> Comparison:
    """Descriptors, vectors, behaviour and data quality of two sides; ``more``: comparisons made elsewhere
    (predictions)."""
    theirs = {(c.part, c.name): c for c in current.columns}
    pairs = tuple(drift.pair(c, theirs.pop((c.part, c.name), None), spec) for c in reference.columns)
    found = [drift.compare(p) for p in pairs]
    found += [Measure(c.part, c.name, why="the reference has no such column") for c in theirs.values()]
    for name in sorted({*reference.reads, *current.reads}):
        why = reference.lacking.get(name) or current.lacking.get(name)
        if why or name not in reference.vectors or name not in current.vectors:
            found.append(Measure(name, EMBEDDING, why=why or "no vectors on one side"))
        else:
            found.append(
                drift.vectors(name, reference.reads[name], reference.vectors[name], current.vectors[name], spec)
            )
    found += behaviour.measures(reference, current, spec)
    found += [behaviour.quarantined(table, reference, current, spec) for table in ("items", "interactions")]
    return Comparison(judge([*found, *more], spec.alpha, spec.min_effect), pairs)
