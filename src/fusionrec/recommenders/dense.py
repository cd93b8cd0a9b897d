"""Scores of vectors by vectors, in the threads that :mod:`fusionrec.recommenders.topk` sorts them with.

NumPy multiplies in its BLAS's own threads, which wait actively for the next product while torch's threads look for the
best k: the two stand in each other's way, and a full ranking takes twice as long as with either alone.

Legend: B requests, I items, D numbers of a vector.
"""

from __future__ import annotations

import numpy as np

from fusionrec.types import Float32


def dot_products(left: Float32, right: Float32) -> Float32:
    """``left`` (B, D) @ ``right`` (I, D)' -> (B, I) float32, new and writeable.

    Raises RuntimeError where the widths differ.
    """
    import torch

    a, b = (torch.from_numpy(_own(x)) for x in (left, right))
    return torch.mm(a, b.T).numpy()


def _own(x: Float32) -> Float32:
    """As torch takes it: it warns of memory that may not be written to."""
    x = np.asarray(x, np.float32)
    return x if x.flags.writeable else x.copy()
