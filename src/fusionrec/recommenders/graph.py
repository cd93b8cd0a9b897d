"""The two graphs of multimodal recommenders, as SciPy matrices: users with items, and items with similar items.

Nothing here is cached: a graph is a function of the pairs or features it is given, so new features cannot meet an old
graph. ``propagation.py`` multiplies by these matrices.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from fusionrec.recommenders.base import top_k
from fusionrec.types import Bool, Float32, Int64

BLOCK_CELLS = 8_000_000  # similarities held at a time


def normalised(weights: sparse.csr_matrix) -> sparse.csr_matrix:
    """D^-1/2 A D^-1/2 with the row sums as degrees, float32 CSR; a row without edges stays empty. A is square, >= 0."""
    degree = np.asarray(weights.sum(1), np.float64).ravel()
    scale = np.divide(1.0, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)
    out = weights.tocsr().astype(np.float64)
    out.data *= np.repeat(scale, np.diff(out.indptr)) * scale[out.indices]
    out = out.astype(np.float32)
    out.sort_indices()
    return out


def bipartite(pairs: sparse.csr_matrix) -> sparse.csr_matrix:
    """The normalised, symmetric (U + I, U + I) adjacency of the binary (U, I) ``pairs``; users first."""
    n_users, n_items = pairs.shape
    pairs = pairs.tocsr()
    indptr = np.concatenate([pairs.indptr, pairs.indptr[-1] + pairs.T.tocsr().indptr[1:]])
    indices = np.concatenate([pairs.indices + n_users, pairs.T.tocsr().indices])
    n = n_users + n_items
    out = normalised(sparse.csr_matrix((np.ones(len(indices), np.float32), indices, indptr), shape=(n, n)))
    # Published code broke silently when a SciPy release changed how a matrix is filled: everything was zero.
    if out.nnz != 2 * pairs.nnz or not bool((out.data > 0).all()):
        raise AssertionError("the user-item graph lost its edges")
    return out


def nearest(vectors: Float32, k: int) -> tuple[Int64, Float32]:
    """The k rows most alike by cosine, the row itself among them. ``vectors`` (N, D) -> (N, K) rows and cosines.

    K = min(k, N), best first. Equal cosines (to six digits, which is what a float32 product is good for) go to the
    lower row. A row of zeros has cosine 0 with every other row. Memory: blocks of rows.
    """
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = (vectors / np.where(length > 0, length, 1)).astype(np.float32)
    n, width = len(unit), min(k, len(unit))
    rows, values = np.empty((n, width), np.int64), np.empty((n, width), np.float32)
    step = max(BLOCK_CELLS // max(n, 1), 1)
    for start in range(0, n, step):
        stop = min(start + step, n)
        cosine = np.round(unit[start:stop] @ unit.T, 6)
        cosine[np.arange(stop - start), np.arange(start, stop)] = 2.0  # a copy of the row never pushes it out
        rows[start:stop], values[start:stop] = top_k(cosine, width)
    values[:, :1] = 1.0
    return rows, values


def neighbours(features: Float32, present: Bool, k: int, *, weighted: bool = False) -> sparse.csr_matrix:
    """The normalised (I, I) graph from each item to its ``k`` nearest by cosine of ``features`` (I, D), and to itself.

    Items that are not ``present`` (I,), or whose vector is zero, have no edges and receive none. ``weighted``: edges
    weigh the cosine (those that are not positive are left out), else 1. The graph is directed, as in LATTICE
    (arXiv:2104.09036): degrees are row sums. Raises ValueError for values of present items that are not finite.
    """
    here = np.flatnonzero(present & (features != 0).any(1))  # a vector of zeros is like nothing
    if not np.isfinite(features[here]).all():
        raise ValueError(
            f"features of {int((~np.isfinite(features[here]).all(1)).sum())} present items are not finite; "
            "expected numbers: mark such items as absent"
        )
    rows, cosine = nearest(features[here], k)
    weight = np.maximum(cosine, 0) if weighted else np.ones_like(cosine)
    source, target = np.repeat(here, rows.shape[1]), here[rows.ravel()]
    graph = sparse.csr_matrix((weight.ravel(), (source, target)), shape=(len(features), len(features)))
    graph.eliminate_zeros()
    return normalised(graph)
