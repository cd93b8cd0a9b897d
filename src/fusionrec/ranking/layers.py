"""What ranking networks share: towers, log probabilities, the loss over tasks, and how much a place in a list is seen.

Imports torch: rankers import this file inside functions.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from fusionrec.types import Int64

NEVER = -1e-6
"""The largest log probability a loss sees: log(1 - p) stays finite."""


class Towers(nn.Module):
    """One hidden layer a task: task -> (B, width) becomes task -> (B,), see :mod:`fusionrec.ranking.heads.base`."""

    def __init__(self, width: int, size: int, tasks: tuple[str, ...], values: frozenset[str]) -> None:
        super().__init__()
        self.towers = nn.ModuleDict(
            {task: nn.Sequential(nn.Linear(width, size), nn.ReLU(), nn.Linear(size, 1)) for task in tasks}
        )
        self.values = values

    def forward(self, z: Mapping[str, Tensor]) -> dict[str, Tensor]:
        out = {task: tower(z[task]).squeeze(1) for task, tower in self.towers.items()}
        return {task: x if task in self.values else log_probability(x) for task, x in out.items()}


def dense(width: int, sizes: tuple[int, ...], dropout: float) -> nn.Module:
    """(B, width) -> (B, sizes[-1]): linear maps, each with ReLU and dropout."""
    layers: list[nn.Module] = []
    for size in sizes:
        layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout)]
        width = size
    return nn.Sequential(*layers)


def log_probability(logit: Tensor) -> Tensor:
    """log sigmoid."""
    return nn.functional.logsigmoid(logit)


def log_not(log_p: Tensor) -> Tensor:
    """log(1 - p) of log p < 0, exact at both ends (Maechler, "Accurately computing log(1 - exp(-|a|))", 2012)."""
    return torch.where(log_p > -0.6931, torch.log(-torch.expm1(log_p)), torch.log1p(-torch.exp(log_p)))


def task_losses(out: Mapping[str, Tensor], labels: Mapping[str, Tensor], values: frozenset[str]) -> dict[str, Tensor]:
    """Task -> the loss of the rows (B,) that have a label, summed and divided by B: cross-entropy of probabilities,
    half the squared error of (standardised) values.

    So tasks weigh as they have labels. One of few rows that weighed as much as one of many would be learnt by heart,
    and its users and items with it."""
    found = {}
    for task, prediction in out.items():
        y = labels[task]
        here = ~torch.isnan(y)
        y = torch.where(here, y, y.new_zeros(()))
        if task in values:
            loss = 0.5 * (prediction - y) ** 2
        else:
            log_p = prediction.clamp(max=NEVER)
            loss = -(y * log_p + (1 - y) * log_not(log_p))
        found[task] = torch.where(here, loss, loss.new_zeros(())).mean()
    return found


class Examination(nn.Module):
    """How likely a place is looked at, relative to the first (the position-based model; Richardson et al., "Predicting
    clicks", WWW 2007): log of it (B,), 0 for place 1 where that was met. A click needs that and a wish, so the two
    multiply."""

    PACE = 10.0
    """A dozen numbers that every row informs may move faster than a vector that a few rows do."""
    reads: Tensor
    share: Tensor | None

    def __init__(self, met: Int64) -> None:
        """``met`` (P + 1,): how many rows of training stood at each place and say whether it was looked at; the first
        number is that of unknown places. Nothing is learnt of a place without such a row: it reads as the nearest met
        one before it, else after it, and an unknown place as the mean chance of the training rows' places."""
        super().__init__()
        count = np.pad(met, (0, max(2 - len(met), 0)))
        self.seen = nn.Parameter(torch.full((len(count),), 0.05))  # row 0: place unknown
        places = np.arange(len(count))
        there, share = np.flatnonzero(count[1:]) + 1, None
        if len(there):
            places[1:] = there[np.maximum(np.searchsorted(there, places[1:], side="right") - 1, 0)]
            if count[0] == 0:
                share = torch.from_numpy((count / count.sum()).astype(np.float32))
        self.register_buffer("reads", torch.from_numpy(places), persistent=False)
        self.register_buffer("share", share, persistent=False)

    def log_seen(self) -> Tensor:
        """(P + 1,): the log of how likely each place is looked at; row 0 is an unknown place."""
        found = nn.functional.logsigmoid(self.PACE * self.seen)
        found = torch.cat([found[:1], found.new_zeros(1), found[2:]])[self.reads]
        if self.share is None:
            return found
        return torch.cat([(self.share[1:] @ found[1:].exp()).log()[None], found[1:]])

    def forward(self, position: Tensor) -> Tensor:
        return self.log_seen()[position.clamp(0, len(self.seen) - 1)]
