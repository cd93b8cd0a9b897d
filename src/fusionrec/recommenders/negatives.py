"""Negative sampling for pairwise losses: an epoch's worth in one vectorised draw."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from fusionrec.types import Int64

TRIES = 16  # then what a user has not touched is listed: it is little
SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: neighbouring keys land far apart


class Negatives:
    """Draws items that a user has no interaction with, uniformly from ``candidates`` (C,) (default: all columns).

    ``matrix`` (U, I) CSR holds the training pairs. A draw is looked up in a table of hashed pairs first; only what
    hits it, a sixteenth by chance, is searched for among the sorted pairs.
    """

    def __init__(self, matrix: sparse.csr_matrix, candidates: Int64 | None = None) -> None:
        users = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
        self._keys = np.sort(users * matrix.shape[1] + matrix.indices)
        self._n_items = matrix.shape[1]
        self._candidates = np.arange(matrix.shape[1]) if candidates is None else candidates
        bits = max(int(np.ceil(np.log2(16 * max(len(self._keys), 1)))), 1)
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, bool)
        self._table[self._slot(self._keys)] = True

    def draw(self, rng: np.random.Generator, users: np.ndarray) -> Int64:
        """One item per entry of ``users`` (N,) -> (N,) int64. Who has touched every candidate keeps a random one."""
        base = users.astype(np.int64) * self._n_items
        out = self._pick(rng, len(users))
        todo = np.arange(len(users))
        for _ in range(TRIES):
            todo = todo[self._touched(base[todo] + out[todo])]
            if len(todo) == 0:
                return out
            out[todo] = self._pick(rng, len(todo))
        for user in np.unique(users[todo]):
            free = self._candidates[~self._touched(user * np.int64(self._n_items) + self._candidates)]
            if len(free):
                mine = todo[users[todo] == user]
                out[mine] = free[rng.integers(0, len(free), len(mine))]
        return out

    def _pick(self, rng: np.random.Generator, n: int) -> Int64:
        return self._candidates[rng.integers(0, len(self._candidates), n)]

    def _slot(self, keys: Int64) -> Int64:
        return ((keys.astype(np.uint64) * SPREAD) >> self._shift).astype(np.int64)

    def _touched(self, keys: Int64) -> np.ndarray:
        """(N,) bool: which user-item keys are training pairs."""
        out = self._table[self._slot(keys)]
        maybe = np.flatnonzero(out)
        at = np.searchsorted(self._keys, keys[maybe])
        out[maybe] = self._keys[np.minimum(at, len(self._keys) - 1)] == keys[maybe]
        return out
