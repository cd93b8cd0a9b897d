"""Sequences of several lengths in one batch: shared ground of the encoders that read step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn


def padded(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Arrays (T_i, ...) of several lengths -> (n, max T_i, ...) with zeros behind, and the lengths (n,) int64."""
    lengths = np.array([len(r) for r in rows], np.int64)
    out = np.zeros((len(rows), int(lengths.max()), *rows[0].shape[1:]), rows[0].dtype)
    for at, row in enumerate(rows):
        out[at, : len(row)] = row
    return out, lengths


def mean_states(lstm: nn.LSTM, x_BTW: Tensor, lengths_B: Tensor) -> Tensor:
    """(B, W + 2 H): the means over each row's own steps of the inputs and of the states; ``lengths_B`` on the CPU.

    What stands behind a row's end is never read: the way back through the sequence begins at its own last step.
    """
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    packed = pack_padded_sequence(x_BTW, lengths_B, batch_first=True, enforce_sorted=False)
    states_BTH, _ = pad_packed_sequence(lstm(packed)[0], batch_first=True)
    count_B1 = lengths_B.to(x_BTW.device)[:, None]
    inside_BT1 = (torch.arange(x_BTW.shape[1], device=x_BTW.device) < count_B1)[:, :, None]
    both = torch.cat([x_BTW, states_BTH], 2).masked_fill(~inside_BT1, 0.0)
    return both.sum(1) / count_B1
