"""Knock-out: what the trained model loses when a modality is masked, without retraining.

The loss mixes two things: what the modality told, and that the model was trained to expect it. A modality that few
items have can change little over all choices, however much it tells where it is there; so each one is also
measured on the choices of items that have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from fusionrec.evaluation import metrics
from fusionrec.evaluation.protocol import Recommends, Result, evaluate
from fusionrec.evaluation.significance import Paired, paired
from fusionrec.evaluation.slices import Slice, of_items
from fusionrec.types import Bool, Int64, ItemSet, Requests

EVERY = "every modality"
"""The name under which all modalities are masked at once (no modality's name holds a space)."""

HAS_IT = "_has_it"
"""Ends the name of a slice that keeps only the choices of items that have the masked modality."""


class Attaches(Recommends, Protocol):
    """A model that can be bound to another catalogue without training."""

    items: ItemSet

    def attach(self, items: ItemSet) -> None: ...


@dataclass(frozen=True)
class KnockOut:
    """``loss``: full minus masked, per slice, over the same users (positive: the modality helped).

    ``lists`` (B, K) int64: what the masked model recommends out of the whole catalogue, -1 for none.
    """

    modality: str
    full: dict[str, float]
    masked: dict[str, float]
    loss: dict[str, Paired]
    lists: Int64


def knock_out(
    model: Attaches,
    requests: Requests,
    slices: Sequence[Slice],
    full: Result,
    metric: str,
    *,
    repeats: int = 2000,
    seed: int = 0,
    block: int | None = None,
) -> list[KnockOut]:
    """One :class:`KnockOut` for each modality of the attached catalogue, and one for all of them where there are more.

    ``slices`` must hold ``all``; ``full``: the model's result with everything there, over the same ``requests`` and
    ``slices``; ``metric`` such as ``"ndcg@20"``. A modality is masked for every item, cold ones too. The catalogue is
    re-attached at the end.
    """
    items, k = model.items, int(metric.rpartition("@")[2])
    masks: dict[str, tuple[str, ...]] = {name: (name,) for name in items.modalities}
    if len(masks) > 1:
        masks[EVERY] = items.modalities
    out = []
    try:
        for name, hidden in masks.items():
            has: Bool = np.logical_or.reduce([items.present[m] for m in hidden])
            parts = [*slices, *having(slices, has)]
            model.attach(items.without(*hidden))
            masked = evaluate(model, requests, parts, (k,), name=full.model, block=block)
            before = {part.name: _values(full, part, metric, k) for part in parts}
            after = {part.name: masked.values[part.name][metric] for part in parts}
            out.append(
                KnockOut(
                    name,
                    {part: metrics.mean(values)[0] for part, values in before.items()},
                    {part: metrics.mean(values)[0] for part, values in after.items()},
                    {part: paired(before[part], after[part], repeats, seed) for part in before},
                    masked.lists["all"],
                )
            )
    finally:
        model.attach(items)
    return out


def having(slices: Sequence[Slice], has: Bool) -> list[Slice]:
    """The slices ``all`` and ``cold_only``, where given, reduced to the choices of items that ``has`` (I,) marks."""
    return [
        replace(part, name=f"{part.name}{HAS_IT}", positives=of_items(part.positives, has))
        for part in slices
        if part.name in ("all", "cold_only")
    ]


def _values(full: Result, part: Slice, metric: str, k: int) -> metrics.Float64:
    """(B,) the metric of the unmasked lists; a slice of items that have the modality reuses the lists of its whole."""
    if part.name in full.values:
        return full.values[part.name][metric]
    lists = full.lists[part.name.removesuffix(HAS_IT)]
    return metrics.per_user(lists, part.positives, (k,))[metric]


def reasons(full: Int64, knocked: Sequence[KnockOut], shown: int) -> list[list[str]]:
    """Why each of the first ``shown`` items of every list is there: "history", one modality, or "several".

    A modality is the reason where the item leaves the first ``shown`` places without it (of several, the one whose
    absence moves it furthest down); "history" where it stays there with every modality masked; else any
    of several would have been enough. ``full`` (B, K) int64, the lists with everything there.
    """
    alone = [k for k in knocked if k.modality != EVERY]
    nothing = next((k.lists for k in knocked if k.modality == EVERY), alone[0].lists if alone else full)
    out = []
    for user, row in enumerate(full[:, :shown]):
        places = [{int(i): at for at, i in enumerate(k.lists[user]) if i >= 0} for k in alone]
        stays = set(nothing[user, :shown].tolist())
        words = []
        for item in row.tolist():
            now = np.array([place.get(item, full.shape[1]) for place in places], np.int64)
            if len(now) and now.max() >= shown:
                words.append(alone[int(now.argmax())].modality)
            else:
                words.append("history" if item in stays else "several")
        out.append(words)
    return out
