"""What the current model makes of the batch: how sure it is of its best items, and how high it ranked what users chose.

Like is compared with like. Only items of both sides that were in training count, with each side's own vectors; the
model is asked as for strangers, with histories of one length, and scores are standardised per request. The reference's
choices are those that training did not see (the valid and test windows). Where too little is shared, nothing is
computed: a model is less sure of new items by nature, which is no drift.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from fusionrec.monitoring import drift, words
from fusionrec.monitoring.descriptors import Column
from fusionrec.monitoring.spec import Monitor
from fusionrec.monitoring.verdict import PREDICTIONS, Measure
from fusionrec.registry.bundle import LoadedModel
from fusionrec.types import Columns as C
from fusionrec.types import ItemSet, Requests

HISTORY, DEPTH = 3, 10
MIN_ITEMS = 50
MAX_USERS = 2000
SURE, FORESEEN = "confidence of the first ten", "rank of what was chosen"


@dataclass(frozen=True)
class Asked:
    """One side: its pairs ``user_id, item_id, timestamp`` and its items with vectors."""

    pairs: pl.DataFrame
    items: ItemSet


def measures(
    model: LoadedModel | None, why: str, reference: Asked, current: Asked, warm: Sequence[str], spec: Monitor
) -> list[Measure]:
    """Both comparisons; ``model`` None for the reason ``why``; ``warm``: items that training saw chosen."""
    why = why or _problem(model, reference, current)
    shared = sorted(set(reference.items.ids) & set(current.items.ids) & set(warm))
    if not why and len(shared) < MIN_ITEMS:
        why = f"the batch shares {len(shared)} trained items with the reference, needed are {MIN_ITEMS}"
    if why or model is None:
        return [Measure(PREDICTIONS, name, PREDICTIONS, why=why) for name in (SURE, FORESEEN)]
    sides = [answers(model, side, shared, spec) for side in (reference, current)]
    out = []
    for at, name in enumerate((SURE, FORESEEN)):
        before_after = [Column(PREDICTIONS, name, s[at]) for s in sides]
        found = drift.compare(drift.pair(before_after[0], before_after[1], spec))
        before, after = (words.number(float(np.nanmean(s[at]))) if np.isfinite(s[at]).any() else "-" for s in sides)
        way = (
            "less"
            if float(np.nanmean(sides[1][at])) < float(np.nanmean(sides[0][at]))
            else "more"
            if found.computed
            else ""
        )
        said = {
            SURE: f"the model is {way} sure of its first ten items: standardised score {before} -> {after}",
            FORESEEN: f"what users choose is {way} foreseeable from their past: mean rank {before} -> {after}",
        }[name]
        # A choice that the model no longer foresees is first of all another choice.
        blamed = "behaviour" if name == FORESEEN else PREDICTIONS
        out.append(replace(found, words=said, subject=blamed))
    return out


def _problem(model: LoadedModel | None, reference: Asked, current: Asked) -> str:
    if model is None:
        return "there is no model"
    if not model.retriever.folds_in:
        return f"{model.label} answers by user id only"
    lacking = [m for m in model.modalities if m not in reference.items.features or m not in current.items.features]
    return f"the model reads {', '.join(lacking)}, of which one side has no vectors" if lacking else ""


def answers(
    model: LoadedModel, side: Asked, shared: Sequence[str], spec: Monitor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each user with enough choices among ``shared``: mean standardised score of the first ten unseen items, and
    the rank in [0, 1] (1 is best) of the first choice after the history, NaN without one."""
    items = _reduced(side.items, shared).only(*model.modalities)
    row = {item: n for n, item in enumerate(shared)}
    order = [C.USER, C.TIME, C.ITEM]
    kept = side.pairs.filter(pl.col(C.ITEM).is_in(pl.Series(shared).implode())).sort(order, nulls_last=True)
    users = kept.group_by(C.USER, maintain_order=True).agg(pl.col(C.ITEM)).filter(pl.col(C.ITEM).list.len() >= HISTORY)
    lists = [[row[i] for i in ids] for ids in users.sort(C.USER)[C.ITEM].head(MAX_USERS).to_list()]
    if not lists:
        return np.zeros(0), np.zeros(0)
    first = np.array([rows[:HISTORY] for rows in lists])
    ones = np.ones(first.size, np.float32)
    where = (np.repeat(np.arange(len(first)), HISTORY), first.ravel())
    history = sparse.csr_matrix((ones, where), shape=(len(first), len(shared)))
    model.retriever.attach(items)
    scores = model.retriever.score(Requests(np.full(len(first), -1, np.int64), history)).astype(np.float64)
    scores[where] = np.nan
    scores[~np.isfinite(scores)] = np.nan
    centre, spread = np.nanmean(scores, axis=1, keepdims=True), np.nanstd(scores, axis=1, keepdims=True)
    z = (scores - centre) / np.where(spread > 1e-9, spread, np.nan)
    top = -np.sort(-np.nan_to_num(z, nan=-np.inf), axis=1)[:, :DEPTH]
    sure = np.where(np.isfinite(top).all(axis=1), top.mean(axis=1), np.nan)
    rank = np.full(len(lists), np.nan)
    for n, rows in enumerate(lists):
        if len(rows) > HISTORY and np.isfinite(z[n, rows[HISTORY]]):
            chosen = z[n, rows[HISTORY]]
            others = z[n][np.isfinite(z[n])]
            rank[n] = ((others < chosen).sum() + 0.5 * ((others == chosen).sum() - 1)) / max(len(others) - 1, 1)
    return sure, rank


def _reduced(items: ItemSet, ids: Sequence[str]) -> ItemSet:
    at = {item: n for n, item in enumerate(items.ids)}
    rows = np.array([at[i] for i in ids], np.int64)
    return ItemSet(
        tuple(ids),
        {m: np.asarray(x[rows]) for m, x in items.features.items()},
        {m: p[rows] for m, p in items.present.items()},
        {m: g[rows] for m, g in items.group.items()},
    )
