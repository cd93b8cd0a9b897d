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


def mean_states(ahead: nn.LSTM, back: nn.LSTM, x_BTW: Tensor, lengths_B: Tensor) -> Tensor:
    """(B, W + 2 H): the means over each row's own steps of the inputs, of the states of ``ahead``, and of the states of
    ``back``, which reads the row from its own last step to its first. ``lengths_B`` (B,) int64, at least 1.

    What stands behind a row's end comes after all of its steps in both directions, so it changes nothing.
    """
    import torch

    step_1T = torch.arange(x_BTW.shape[1], device=x_BTW.device)[None]
    length_B1 = lengths_B.to(x_BTW.device)[:, None]
    inside_BT = step_1T < length_B1
    turned_BT = torch.where(inside_BT, length_B1 - 1 - step_1T, step_1T)
    turned_BTW = x_BTW.gather(1, turned_BT[:, :, None].expand_as(x_BTW))
    parts = torch.cat([x_BTW, ahead(x_BTW)[0], back(turned_BTW)[0]], 2)
    return parts.masked_fill(~inside_BT[:, :, None], 0.0).sum(1) / length_B1
