"""The head contract: from what a ranking network has made of an impression to a prediction for every task.

``head(z)``: ``z`` (B, W) float32 -> task -> (B,), the log of a probability, or for a task of values the standardised
value. Logs of probabilities multiply by adding, which a chain of events (seen, clicked, bought) needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fusionrec.types import Spec

if TYPE_CHECKING:
    from torch import nn


class HeadSpec(Spec):
    """Base of the head sections of params.yaml. Importing a head file must not import torch."""

    kind: Any

    def build(self, width: int, tasks: tuple[str, ...], values: frozenset[str]) -> nn.Module:
        """The module for inputs of ``width``; ``values``: the tasks that are no probabilities."""
        raise NotImplementedError
