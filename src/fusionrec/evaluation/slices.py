"""Slices of the test set: the same requests, with some of the positives and perhaps fewer candidates.

A slice keeps the positives it is about; users without one of them are no part of its means. All items stay
candidates, but in ``cold_only``, where only cold items are: there a model without content has nothing to go by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from fusionrec.evaluation.metrics import Float64, canonical
from fusionrec.types import Bool, Requests

FEW = 3
"""A user with at most this many choices in the history is nearly as cold as one with none."""


@dataclass(frozen=True)
class Slice:
    """``positives`` (B, I) CSR of one slice; ``candidates`` (I,) bool, or None for the whole catalogue."""

    name: str
    positives: sparse.csr_matrix
    candidates: Bool | None = None


def build(requests: Requests, positives: sparse.spmatrix, cold: Bool, present: Mapping[str, Bool]) -> list[Slice]:
    """Every slice of a test set.

    ``positives`` (B, I); ``cold`` (I,) bool, items without a row in train; ``present`` modality -> (I,) bool. A user is
    cold where ``requests.user`` is -1 (no row in train). Activity splits the other users into terciles by the
    length of their history; users of equal length stay together. ``history_none`` and ``history_few`` are the users
    with nothing and with 1 to :data:`FEW` items in their history, known to train or not.
    """
    matrix = canonical(positives)
    if cold.shape != (matrix.shape[1],) or len(requests) != matrix.shape[0]:
        raise ValueError(
            f"positives {matrix.shape}, {len(requests)} requests, {cold.shape} cold flags; expected (B, I), B, (I,)"
        )
    new, length = requests.user < 0, np.diff(requests.history.indptr)
    slices = [
        Slice("all", matrix),
        Slice("warm", of_items(matrix, ~cold)),
        Slice("cold", of_items(matrix, cold)),
        Slice("cold_only", of_items(matrix, cold), cold),
        Slice("cold_users", of_users(matrix, new)),
        Slice("history_none", of_users(matrix, length == 0)),
        Slice("history_few", of_users(matrix, (length > 0) & (length <= FEW))),
    ]
    slices += [Slice(f"activity_{name}", of_users(matrix, users)) for name, users in terciles(requests, ~new).items()]
    slices += [Slice(f"missing_{name}", of_items(matrix, ~present[name])) for name in sorted(present)]
    return slices


def terciles(requests: Requests, among: Bool) -> dict[str, Bool]:
    """low, mid, high -> (B,) bool: thirds of the users ``among`` by history length, cut between different lengths."""
    length = np.diff(requests.history.indptr)
    low, high = np.quantile(length[among], [1 / 3, 2 / 3]) if among.any() else (0.0, 0.0)
    return {
        "low": among & (length <= low),
        "mid": among & (length > low) & (length <= high),
        "high": among & (length > high),
    }


def of_items(positives: sparse.csr_matrix, items: Bool) -> sparse.csr_matrix:
    """The positives that lie on ``items`` (I,) bool; same shape."""
    out = positives.copy()
    out.data = out.data * items[out.indices]
    out.eliminate_zeros()
    return out


def of_users(positives: sparse.csr_matrix, users: Bool) -> sparse.csr_matrix:
    """The positives of ``users`` (B,) bool; same shape."""
    out = positives.copy()
    out.data = out.data * np.repeat(users, np.diff(out.indptr))
    out.eliminate_zeros()
    return out


def random_recall(requests: Requests, part: Slice, k: int) -> Float64:
    """(B,) expected Recall@k of a uniformly random ranking of a slice's candidates; NaN without a positive.

    Each of the n candidates that the user has not seen is in the list with probability min(k, n) / n, and seen
    items never are: no simulation is needed.
    """
    n_items = part.positives.shape[1]
    candidates = np.ones(n_items, bool) if part.candidates is None else part.candidates
    seen = canonical(requests.history if requests.seen is None else requests.seen)
    n = candidates.sum() - np.diff(of_items(seen, candidates).indptr)
    seen.data[:] = 1.0
    reachable = of_items(part.positives, candidates)
    reachable.data[:] = 1.0
    found = np.diff(reachable.indptr) - np.asarray(reachable.multiply(seen).sum(axis=1)).ravel()
    m = np.diff(part.positives.indptr).astype(np.float64)
    return np.where(m > 0, found / np.maximum(m, 1) * np.minimum(k, n) / np.maximum(n, 1), np.nan)
