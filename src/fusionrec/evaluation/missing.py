"""The missing-modality curve: how good the trained model still is when items lose modalities at random.

Each modality of each item is lost independently; the model answers from what is left, nothing is retrained. Whether an
item loses a modality depends on the seed, the modality and the item's id alone: what is lost at a small
share is also lost at every larger one, and a new item in the catalogue changes nothing for the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from fusionrec.evaluation.knockout import EVERY, Attaches
from fusionrec.evaluation.metrics import Float64
from fusionrec.evaluation.protocol import Result, evaluate, take
from fusionrec.evaluation.significance import intervals
from fusionrec.evaluation.slices import Slice
from fusionrec.types import Int64, ItemSet, Requests

SHARES = (0.0, 0.15, 0.3, 0.45, 0.6)
CELLS = 10_000_000  # users x items ranked for one point: a curve of 20 points stays cheap on any catalogue
MIN_USERS = 500


@dataclass(frozen=True)
class Point:
    """The metric over ``n`` users where ``share`` of the entries of ``hidden`` (a modality or EVERY) are lost."""

    hidden: str
    share: float
    mean: float
    low: float
    high: float
    n: int


def degradation(
    model: Attaches,
    requests: Requests,
    positives: sparse.csr_matrix,
    full: Result,
    metric: str,
    *,
    shares: Sequence[float] = SHARES,
    repeats: int = 2000,
    seed: int = 0,
    block: int | None = None,
    cells: int = CELLS,
) -> list[Point]:
    """The curve of all modalities together and, where there are more than one, of each; [] without modalities or users.

    ``positives`` (B, I) of the slice ``all``; ``full``: the model's result with everything there over the same
    ``requests``; it is the point at share 0. Where users x items exceed ``cells``, users are drawn by the seed, the
    same for all points. The catalogue is re-attached at the end. All points share users and resamples.
    """
    items, k = model.items, int(metric.rpartition("@")[2])
    rows = drawn(positives, max(MIN_USERS, cells // max(len(items), 1)), seed)
    if not items.modalities or len(rows) == 0:
        return []
    asked, part = take(requests, rows), Slice("all", positives[rows])
    curves = {EVERY: items.modalities} | ({m: (m,) for m in items.modalities} if len(items.modalities) > 1 else {})
    luck = {name: lottery(items.ids, name, seed) for name in items.modalities}
    points, values = [], []
    try:
        for hidden, names in curves.items():
            for share in shares:
                points.append((hidden, share))
                if share == 0:
                    values.append(full.values["all"][metric][rows])
                    continue
                model.attach(thinned(items, names, share, luck))
                values.append(evaluate(model, asked, [part], (k,), block=block).values["all"][metric])
    finally:
        model.attach(items)
    columns = np.stack(values, axis=1)
    low, high = intervals(columns, repeats, seed)
    return [
        Point(hidden, share, float(columns[:, at].mean()), float(low[at]), float(high[at]), len(rows))
        for at, (hidden, share) in enumerate(points)
    ]


def drawn(positives: sparse.csr_matrix, most: int, seed: int) -> Int64:
    """Rows of the users with a positive, in order; ``most`` of them, drawn by ``seed``, where there are more."""
    rows = np.flatnonzero(np.diff(positives.indptr) > 0)
    if len(rows) > most:
        rows = np.sort(np.random.default_rng([seed, len(rows)]).choice(rows, most, replace=False))
    return rows


def lottery(ids: Sequence[str], modality: str, seed: int) -> Float64:
    """(I,) in [0, 1): an item's modality is lost at every share above its number."""
    joined = b"".join(
        hashlib.blake2b(f"{seed}\0{modality}\0{item}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for item in ids
    )
    return np.frombuffer(joined, "<u8").astype(np.float64) / 2.0**64


def thinned(items: ItemSet, names: Sequence[str], share: float, luck: dict[str, Float64]) -> ItemSet:
    """The catalogue where each of the modalities ``names`` is masked for the items whose lot is below ``share``."""
    present = {m: (p & (luck[m] >= share) if m in names else p) for m, p in items.present.items()}
    return replace(items, present=present)
