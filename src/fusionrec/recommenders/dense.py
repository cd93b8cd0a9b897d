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

    # One row goes another way through the library than many and rounds differently: what is asked alone would be
    # ordered differently from what is asked in company. So one row is two.
    alone = len(left) == 1
    a, b = (torch.from_numpy(_own(x)) for x in (np.concatenate([left, left]) if alone else left, right))
    found: Float32 = torch.mm(a, b.T).numpy()
    return found[:1] if alone else found


def _own(x: Float32) -> Float32:
    """As torch takes it: rows one after the other, in memory that may be written to."""
    x = np.ascontiguousarray(x, np.float32)
    return x if x.flags.writeable else x.copy()
