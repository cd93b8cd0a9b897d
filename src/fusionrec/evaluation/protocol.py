"""Exact full ranking: every item is scored for every request, in blocks; no sampled negatives.

(Sampled metrics are not consistent with the full ones: Krichene and Rendle, KDD 2020.)
The result keeps a value per user, so that means, intervals and tests are all computed from the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fusionrec.evaluation import metrics
from fusionrec.evaluation.metrics import Float64
from fusionrec.evaluation.slices import Slice
from fusionrec.types import Bool, Float32, Int64, Requests


class Recommends(Protocol):
    """What is evaluated: anything that fills top-K lists (a Retriever, or a re-ranked one)."""

    def recommend(
        self, requests: Requests, k: int, candidates: Bool | None = None, block: int | None = ...
    ) -> tuple[Int64, Float32]:
        """Items (B, K) int64, -1 for none, and scores (B, K) float32, best first."""


@dataclass(frozen=True)
class Result:
    """One model on one test set of B users.

    ``values`` slice -> metric -> (B,) float64, NaN where the slice holds no positive of the user; ``lists`` slice
    -> (B, K) int64 item rows, -1 for none (shared between slices that have the same candidates).
    """

    model: str
    values: dict[str, dict[str, Float64]]
    lists: dict[str, Int64]

    def mean(self, part: str, metric: str) -> tuple[float, int]:
        """(mean, number of users) of one metric on one slice."""
        return metrics.mean(self.values[part][metric])


def evaluate(
    model: Recommends,
    requests: Requests,
    slices: Sequence[Slice],
    ks: Iterable[int] = (10, 20),
    *,
    name: str = "model",
    depth: int = 0,
    block: int | None = None,
) -> Result:
    """Rank the whole catalogue once for each set of candidates and score every slice.

    ``block`` bounds memory: never more than block x I scores exist at once; by default the model chooses it from the
    size of the catalogue. Only users with a positive in one of the slices are ranked. ``depth``: keep lists of this
    length where it exceeds every k. Raises ValueError where two slices share a name.
    """
    ks = tuple(ks)
    width = max(*ks, depth)
    if len({part.name for part in slices}) != len(slices):
        raise ValueError(f"slices must have different names, found {[part.name for part in slices]}")
    lists: dict[str, Int64] = {}
    for group in _same_candidates(slices):
        asked = np.zeros(len(requests), bool)
        for part in group:
            asked |= np.diff(part.positives.indptr) > 0
        rows = np.flatnonzero(asked)
        items = np.full((len(requests), width), -1, np.int64)
        if len(rows):
            items[rows] = model.recommend(take(requests, rows), width, group[0].candidates, block=block)[0]
        lists |= {part.name: items for part in group}
    values = {part.name: metrics.per_user(lists[part.name], part.positives, ks) for part in slices}
    return Result(name, values, {part.name: lists[part.name] for part in slices})


def take(requests: Requests, rows: Int64) -> Requests:
    """The requests at ``rows``."""

    def pick(x: Any) -> Any:
        return None if x is None else x[rows]

    return Requests(
        requests.user[rows],
        requests.history[rows],
        pick(requests.seen),
        pick(requests.time),
        pick(requests.history_time),
    )


def _same_candidates(slices: Sequence[Slice]) -> list[list[Slice]]:
    groups: list[list[Slice]] = []
    for part in slices:
        for group in groups:
            a, b = part.candidates, group[0].candidates
            if (a is None and b is None) or (a is not None and b is not None and np.array_equal(a, b)):
                group.append(part)
                break
        else:
            groups.append([part])
    return groups
