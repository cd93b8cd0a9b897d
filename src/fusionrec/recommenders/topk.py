"""The k best of each row, exactly and always the same: ``torch.topk`` for speed, repaired where it leaves ties open.

Legend: B rows, I columns, K list length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fusionrec.types import Float32, Int64

if TYPE_CHECKING:
    from torch import Tensor

GROUP = 8
WIDE = 4096
"""From this many columns on the maxima of groups of :data:`GROUP` columns are looked at first."""

BLOCK_BYTES = 16 * 2**20  # a block of this size stays near the processor's cache
FEWEST = 32  # rows that make one pass over all item vectors worth it ...
MOST_BYTES = 128 * 2**20  # ... as long as a block is no larger than this


def block_rows(n_items: int) -> int:
    """How many requests are scored at once, so that a block of float32 scores stays within a memory budget.

    16 MiB a block and at most 1024 rows; at least 32 rows while these take no more than 128 MiB (a million items); at
    least 1.
    """
    row = 4 * max(n_items, 1)
    return max(1, min(1024, max(BLOCK_BYTES // row, min(FEWEST, MOST_BYTES // row))))


def top_k(scores: Float32, k: int, *, empty_ties: bool = True) -> tuple[Int64, Float32]:
    """The k highest of each row of (B, I), best first; ties to the lower column. -> (B, K) int64, (B, K) float32.

    K is min(k, I). ``scores`` holds no NaN and is left alone. ``empty_ties=False``: which columns stand where the value
    is -inf does not matter (the caller drops them), and is not settled.
    """
    import torch

    rows, n = scores.shape
    width = min(k, n)
    if rows == 0 or width < 1:
        return np.zeros((rows, max(width, 0)), np.int64), np.zeros((rows, max(width, 0)), scores.dtype)
    own = scores if scores.flags.writeable and scores.flags.c_contiguous else scores.copy()
    found, at = _largest(torch.from_numpy(own), min(width + 1, n))  # one more tells whether the edge is tied
    value, column = found.numpy()[:, :width], at.numpy()[:, :width]
    if n > width:
        edge, beyond = found.numpy()[:, width - 1], found.numpy()[:, width]
        tied = edge == beyond
        for row in np.flatnonzero(tied if empty_ties else tied & (edge > -np.inf)):
            above = value[row] > edge[row]
            room = width - int(above.sum())
            column[row, width - room :] = np.flatnonzero(own[row] == edge[row])[:room]  # the values stay the same
    again = np.flatnonzero((value[:, 1:] == value[:, :-1]).any(axis=1))
    if len(again):  # equals among the chosen stand in any order
        order = np.lexsort((column[again], -value[again]), axis=1)
        column[again] = np.take_along_axis(column[again], order, 1)
    return np.ascontiguousarray(column), np.ascontiguousarray(value)


def _largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and columns of the k largest of each row, values sorted; of equal values any columns.

    In wide rows the k largest lie in the k groups with the largest maxima, and a maximum over groups of columns that
    are I / 8 apart is one vectorised pass: far less is left to sort.
    """
    import torch

    rows, n = scores.shape
    size = n // GROUP
    if n < WIDE or 2 * k > size:
        return torch.topk(scores, k, dim=1)
    whole = size * GROUP
    highest = scores[:, :whole].unflatten(1, (GROUP, size)).amax(dim=1)
    group = torch.topk(highest, k, dim=1, sorted=False).indices
    column = (group[:, None, :] + torch.arange(0, whole, size)[None, :, None]).reshape(rows, -1)
    if whole < n:
        rest = torch.arange(whole, n).expand(rows, -1)
        column = torch.cat([column, rest], dim=1)
    value, place = torch.topk(torch.gather(scores, 1, column), k, dim=1)
    return value, torch.gather(column, 1, place)
