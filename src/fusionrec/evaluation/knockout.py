"""Knock-out: what the trained model loses when one modality is masked, without retraining.

The loss mixes two things: what the modality told, and that the model was trained to expect it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fusionrec.evaluation.protocol import Recommends, Result, evaluate
from fusionrec.evaluation.significance import Paired, paired
from fusionrec.evaluation.slices import Slice
from fusionrec.types import ItemSet, Requests


class Attaches(Recommends, Protocol):
    """A model that can be bound to another catalogue without training."""

    items: ItemSet

    def attach(self, items: ItemSet) -> None: ...


@dataclass(frozen=True)
class KnockOut:
    """``loss``: full minus masked, per slice, over the same users (positive: the modality helped)."""

    modality: str
    full: dict[str, float]
    masked: dict[str, float]
    loss: dict[str, Paired]


def knock_out(
    model: Attaches,
    requests: Requests,
    slices: Sequence[Slice],
    full: Result,
    metric: str,
    *,
    repeats: int = 2000,
    seed: int = 0,
    block: int = 512,
) -> list[KnockOut]:
    """One :class:`KnockOut` for each modality of the attached catalogue; the catalogue is re-attached at the end.

    ``full``: the model's result with everything there, over the same ``requests`` and ``slices``; ``metric`` such as
    ``"ndcg@20"``. The modality is masked for every item, cold ones too.
    """
    items = model.items
    k = int(metric.rpartition("@")[2])
    out = []
    try:
        for name in items.modalities:
            model.attach(items.without(name))
            masked = evaluate(model, requests, slices, (k,), name=full.model, block=block)
            out.append(
                KnockOut(
                    name,
                    {part.name: full.mean(part.name, metric)[0] for part in slices},
                    {part.name: masked.mean(part.name, metric)[0] for part in slices},
                    {
                        part.name: paired(
                            full.values[part.name][metric], masked.values[part.name][metric], repeats, seed
                        )
                        for part in slices
                    },
                )
            )
    finally:
        model.attach(items)
    return out
