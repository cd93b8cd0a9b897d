"""Batches of sequences whose shapes do not depend on who else is in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def shapes(lengths: Sequence[int], step: int, budget: int) -> Iterator[tuple[list[int], int]]:
    """(rows, padded length) per batch: rows of one padded length, a multiple of ``step``; at most ``budget`` // length
    of them, and always at least one."""
    padded = [-(-n // step) * step for n in lengths]
    for length in sorted(set(padded)):
        rows = [r for r, n in enumerate(padded) if n == length]
        size = max(budget // length, 1)
        for start in range(0, len(rows), size):
            yield rows[start : start + size], length
