"""Batches of sequences: by length, with little padding, a function of the sequences alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def by_length(lengths: Sequence[int], step: int, budget: int) -> list[tuple[list[int], int]]:
    """(rows, padded length) per batch, the longest first: rows of similar length, padded to a multiple of ``step``;
    rows times padded length is at most ``budget``, and there is always at least one row. The last batches are small
    (half of what is left, from a quarter of the budget on), so that no thread waits long for another."""
    padded = -(-np.asarray(lengths, np.int64) // step) * step
    order = np.argsort(padded, kind="stable")[::-1].tolist()
    out: list[tuple[list[int], int]] = []
    while order:
        length = int(padded[order[0]])
        left = int(padded[order].sum())
        size = max(min(budget, max(left // 2, budget // 4)) // length, 1)
        out.append((order[:size], length))
        del order[:size]
    return out


def filled(ids: Sequence[Sequence[int]], length: int, pad: int) -> tuple[Tensor, Tensor]:
    """n sequences of token ids -> (n, length) int64 filled up with ``pad``, and the mask of what is no filling, int64.

    The first place of a row counts always: one without any would have nothing to attend to.
    """
    import torch

    tokens = torch.full((len(ids), length), pad, dtype=torch.long)
    mask = torch.zeros((len(ids), length), dtype=torch.long)
    mask[:, 0] = 1
    for row, sequence in enumerate(ids):
        tokens[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    return tokens, mask
