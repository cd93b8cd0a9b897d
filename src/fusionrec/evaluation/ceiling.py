"""The demo's ceiling: aggregate scores of the true preference, valid for one set of test pairs only.

The generator writes ``ceiling.json`` beside the raw catalogue. It holds aggregates and a digest of the pairs they were
computed on; where the digest differs from this run's pairs the numbers mean nothing and are not shown.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusionrec.evaluation.table import MAIN, number, row
from fusionrec.types import Int32, Int64

ABSENT = "no ceiling for this data"


@dataclass(frozen=True)
class Ceiling:
    """``scores`` slice -> metric -> {"mean", "low", "high"}; None with the reason in ``note``."""

    scores: Mapping[str, Mapping[str, Mapping[str, float]]] | None
    users: Mapping[str, int]
    note: str = ""


def pairs_digest(ids: Sequence[str], item: Int32, time: Int64 | None) -> str | None:
    """sha256 over the sorted lines ``item_id|timestamp in microseconds`` of the pairs; None without timestamps."""
    if time is None:
        return None
    lines = sorted(f"{ids[i]}|{t}" for i, t in zip(item.tolist(), time.tolist(), strict=True))
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


def load(root: Path, digest: str | None, history: str) -> Ceiling:
    """The ceiling in the catalogue folder ``root`` if it is about the pairs with this digest and the same masking."""
    path = root / "ceiling.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        scores, users = found["scores"], {part: int(n["users"]) for part, n in found["n"].items()}
        for metrics in scores.values():
            for value in metrics.values():
                float(value["mean"]), float(value["low"]), float(value["high"])
        expected, masked = found["pairs_digest"], found["protocol"]["history"]
    except FileNotFoundError:
        return Ceiling(None, {}, ABSENT)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Ceiling(None, {}, f"{ABSENT}: ceiling.json is not readable ({type(error).__name__})")
    if digest is None or expected != digest:
        return Ceiling(None, {}, f"{ABSENT}: ceiling.json is about other test pairs")
    if masked != history:
        return Ceiling(None, {}, f"{ABSENT}: ceiling.json masks {masked!r}, this run {history!r}")
    return Ceiling(scores, users)


def rows(ceiling: Ceiling, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """The oracle's rows of table.json."""
    return [
        row("oracle", labels, part, metric, v["mean"], v["low"], v["high"], ceiling.users.get(part, 0))
        for part, metrics in (ceiling.scores or {}).items()
        for metric, v in metrics.items()
    ]


def ratios(ceiling: Ceiling, table: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The main model's share of the ceiling: slice -> metric -> value and bounds.

    The bounds carry the model's uncertainty only: the ceiling comes as an aggregate and is taken as exact.
    """
    if ceiling.scores is None:
        return {"note": ceiling.note}
    out: dict[str, Any] = {}
    for found in table:
        best = ceiling.scores.get(found["slice"], {}).get(found["metric"], {}).get("mean", 0.0)
        if found["model"] == MAIN and best > 0 and found["mean"] is not None:
            out.setdefault(found["slice"], {})[found["metric"]] = {
                "ratio": number(found["mean"] / best),
                "oracle": number(best),
                "low": None if found["low"] is None else number(found["low"] / best),
                "high": None if found["high"] is None else number(found["high"] / best),
            }
    return {"note": "", "ratios": out}
