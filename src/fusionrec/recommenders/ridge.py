"""The closed form behind the item-item models: the inverse of a ridge-regularised item Gram matrix, in place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

DOUBLE_UP_TO = 12_000  # items; a larger inverse is kept in single precision, which halves its memory


def inverse(gram: NDArray[Any], l2: float) -> NDArray[Any]:
    """(gram + l2 I)^-1, (I, I) in the dtype of ``gram``, symmetric; ``gram`` is overwritten.

    One matrix is all the memory it takes (LAPACK potrf and potri). Raises ValueError where the matrix is not
    positive definite or not finite: ``l2`` is too small for it.
    """
    from scipy.linalg.lapack import get_lapack_funcs

    gram[np.diag_indices_from(gram)] += l2
    factor, invert = get_lapack_funcs(("potrf", "potri"), (gram,))
    # LAPACK reads columns: the transpose of a symmetric C-ordered matrix is itself, without a copy
    cholesky, failed = factor(gram.T, lower=0, overwrite_a=1, clean=0)
    if not failed:
        upper, failed = invert(cholesky, lower=0, overwrite_c=1)
    if failed:
        raise ValueError(f"the item matrix is not positive definite with l2 = {l2:g}: raise l2")
    return _mirrored(upper.T)


def _mirrored(lower: NDArray[Any], block: int = 1024) -> NDArray[Any]:
    """The lower triangle copied onto the upper one, in place, block by block."""
    n = len(lower)
    for start in range(0, n, block):
        stop = min(start + block, n)
        lower[start:stop, stop:] = lower[stop:, start:stop].T
        square = lower[start:stop, start:stop]
        square[:] = np.tril(square) + np.tril(square, -1).T
    return lower


def weights(inverse_gram: NDArray[Any]) -> NDArray[np.float32]:
    """EASE's item-item weights B = -P / diag(P) with a zero diagonal, (I, I) float32; the argument is overwritten."""
    inverse_gram /= -np.diag(inverse_gram).copy()[None, :]
    np.fill_diagonal(inverse_gram, 0.0)
    return inverse_gram.astype(np.float32, copy=False)


def gram_dtype(n_items: int) -> type[np.float32] | type[np.float64]:
    """The precision in which an inverse of this many items is computed."""
    return np.float64 if n_items <= DOUBLE_UP_TO else np.float32
