"""Rank metrics over top-K lists, per user. Pure numpy: no model, no table, no torch.

Definitions (binary relevance; ``m`` is the number of a user's positives, ``h_r`` 1 where rank r is a hit):
Recall@K = sum h / m; Precision@K = sum h / K; HitRate@K = [sum h > 0]; MRR@K = 1 / rank of the first hit, else 0;
NDCG@K = sum h_r / log2(r + 1), divided by the same sum for the min(m, K) best ranks;
MAP@K = sum h_r (hits up to r) / r, divided by min(m, K). K divides Precision even where the list is shorter.
Legend: B users, I items, K list length.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fusionrec.types import Bool, Int64

Float64 = NDArray[np.float64]

NAMES = ("recall", "precision", "ndcg", "map", "mrr", "hitrate")
"""The metrics of :func:`per_user`, in its order."""


def hits(items_BK: Int64, positives: sparse.spmatrix) -> Bool:
    """(B, K) bool: which entries of the lists are positives.

    ``items_BK`` (B, K) int64 item rows, best first, -1 for no item; ``positives`` (B, I), any non-zero is a positive.
    An item that a list repeats counts at its first place only. Raises ValueError where shapes do not fit.
    """
    matrix = canonical(positives)
    n_users, n_items = matrix.shape
    if items_BK.ndim != 2 or len(items_BK) != n_users:
        raise ValueError(f"lists have shape {items_BK.shape}, expected ({n_users}, K) as there are {n_users} users")
    if items_BK.size and (items_BK.max() >= n_items or items_BK.min() < -1):
        raise ValueError(
            f"lists hold item rows in [{items_BK.min()}, {items_BK.max()}], expected -1 or a row below {n_items}"
        )
    found = np.zeros(items_BK.shape, bool)
    if matrix.nnz == 0 or items_BK.size == 0:
        return found
    # One sorted key per (user, item) makes membership a binary search over all users at once.
    row_of = np.repeat(np.arange(n_users, dtype=np.int64), np.diff(matrix.indptr))
    relevant = row_of * n_items + matrix.indices
    asked = np.arange(n_users, dtype=np.int64)[:, None] * n_items + items_BK
    at = np.minimum(np.searchsorted(relevant, asked), len(relevant) - 1)
    found = (relevant[at] == asked) & (items_BK >= 0)
    flat = np.flatnonzero(found)
    _, first = np.unique(asked.ravel()[flat], return_index=True)
    if len(first) < len(flat):
        found[:] = False
        found.ravel()[flat[first]] = True
    return found


def canonical(positives: sparse.spmatrix) -> sparse.csr_matrix:
    """The matrix as CSR without explicit zeros and repeats, indices sorted; the argument is left alone."""
    matrix = sparse.csr_matrix(positives, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def per_user(items_BK: Int64, positives: sparse.spmatrix, ks: Iterable[int]) -> dict[str, Float64]:
    """Every metric of :data:`NAMES` at every k, per user: ``{"recall@20": (B,) float64, ...}`` in [0, 1].

    NaN for users without a positive (they are not part of any mean). Lists as in :func:`hits`; they must be at
    least ``max(ks)`` wide, or as wide as the catalogue (what is missing is padded with -1): a shorter list would
    silently count as a worse one. Raises ValueError otherwise.
    """
    ks = tuple(dict.fromkeys(int(k) for k in ks))
    if not ks or min(ks) < 1:
        raise ValueError(f"k must be positive, found {list(ks)}")
    matrix = canonical(positives)
    if items_BK.ndim == 2 and items_BK.shape[1] < max(ks):
        if items_BK.shape[1] < matrix.shape[1]:
            raise ValueError(f"lists hold {items_BK.shape[1]} places, expected at least {max(ks)}; pad them with -1")
        items_BK = np.pad(items_BK, ((0, 0), (0, max(ks) - items_BK.shape[1])), constant_values=-1)
    n_positives = np.diff(matrix.indptr).astype(np.float64)
    return from_hits(hits(items_BK[:, : max(ks)], matrix), n_positives, ks)


def from_hits(hits_BK: Bool, n_positives: Float64, ks: Sequence[int]) -> dict[str, Float64]:
    """:func:`per_user` from a hits matrix (B, K) and the number of positives of each user (B,)."""
    width = hits_BK.shape[1]
    rank = np.arange(1, width + 1, dtype=np.float64)
    discount = 1.0 / np.log2(rank + 1)
    ideal_of = np.concatenate([[np.nan], np.cumsum(discount)])  # by number of positives; none gives NaN
    h = hits_BK.astype(np.float64)
    count = np.cumsum(h, axis=1)
    gain = np.cumsum(h * discount, axis=1)
    precision_sum = np.cumsum(h * count / rank, axis=1)
    first = np.where(hits_BK.any(axis=1), hits_BK.argmax(axis=1) + 1, np.inf) if width else np.full(len(h), np.inf)
    m = np.where(n_positives > 0, n_positives, np.nan)  # NaN flows into every metric of a user without a positive
    out: dict[str, Float64] = {}
    for k in ks:
        best = np.minimum(m, k)
        hit = count[:, k - 1]
        values = (
            hit / m,
            np.where(np.isnan(m), np.nan, hit / k),
            gain[:, k - 1] / ideal_of[np.nan_to_num(best).astype(np.int64)],
            precision_sum[:, k - 1] / best,
            np.where(np.isnan(m), np.nan, np.where(first <= k, 1.0 / first, 0.0)),
            np.where(np.isnan(m), np.nan, (first <= k).astype(np.float64)),
        )
        out |= {f"{name}@{k}": value for name, value in zip(NAMES, values, strict=True)}
    return out


def mean(values: Float64) -> tuple[float, int]:
    """(mean over the users that have a value, their number); (0.0, 0) where there is none, so never NaN."""
    kept = values[~np.isnan(values)]
    return (float(kept.mean()), len(kept)) if len(kept) else (0.0, 0)


def means(values: Mapping[str, Float64]) -> dict[str, float]:
    """Plain mean of every metric over the users with a positive; 0.0 where there is none."""
    return {name: mean(v)[0] for name, v in values.items()}
