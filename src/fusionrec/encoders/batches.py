"""Batches of sequences whose shapes do not depend on who else is in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def shapes(lengths: Sequence[int], step: int, budget: int) -> Iterator[tuple[list[int], int]]:
    """(rows, padded length) per batch: rows of one padded length, a multiple of ``step``; at most ``budget`` // length
    of them, and always at least one."""
    padded = [-(-n // step) * step for n in lengths]
    for length in sorted(set(padded)):
        rows = [r for r, n in enumerate(padded) if n == length]
        size = max(budget // length, 1)
        for start in range(0, len(rows), size):
            yield rows[start : start + size], length


def filled(ids: Sequence[Sequence[int]], rows: int, length: int, pad: int) -> tuple[Tensor, Tensor]:
    """Token ids -> (rows, length) int64 filled up with ``pad``, and the mask of what is no filling, int64.

    The first place of a row counts always: one without any would have nothing to attend to.
    """
    import torch

    tokens = torch.full((rows, length), pad, dtype=torch.long)
    mask = torch.zeros((rows, length), dtype=torch.long)
    mask[:, 0] = 1
    for row, sequence in enumerate(ids):
        tokens[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    return tokens, mask
