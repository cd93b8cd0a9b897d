"""What the current model makes of the batch: how sure it is of its best items, and how high it ranked what users chose.

Like is compared with like. Only items of both sides that were in training count, with each side's own vectors; the
model is asked as for strangers, with histories of one length, and scores are standardised per request. Only choices
that training did not see count: of the reference the valid and test windows, of the batch (which may be an export of
everything) all others. Where too little is shared, nothing is computed: a model is less sure of new items by nature,
which is no drift.
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
from fusionrec.registry.model import LoadedModel
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
    model: LoadedModel | None, why: str, reference: Asked, current: Asked, trained: pl.DataFrame, spec: Monitor
) -> list[Measure]:
    """Both comparisons; ``model`` None for the reason ``why``; ``trained``: ``user_id, item_id`` that training saw."""
    why = why or _problem(model, reference, current)
    shared = sorted(set(reference.items.ids) & set(current.items.ids) & set(trained[C.ITEM]))
    if not why and len(shared) < MIN_ITEMS:
        why = f"the batch shares {len(shared)} trained items with the reference, needed are {MIN_ITEMS}"
    if why or model is None:
        return [Measure(PREDICTIONS, name, PREDICTIONS, why=why) for name in (SURE, FORESEEN)]
    unseen = [replace(s, pairs=s.pairs.join(trained, on=[C.USER, C.ITEM], how="anti")) for s in (reference, current)]
    sides = [answers(model, side, shared) for side in unseen]
    out = []
    for name, before, after in zip((SURE, FORESEEN), *sides, strict=True):
        found = drift.compare(drift.pair(Column(PREDICTIONS, name, before), Column(PREDICTIONS, name, after), spec))
        if found.computed:
            found = replace(found, words=_sentence(name, before[np.isfinite(before)], after[np.isfinite(after)]))
        # A choice that the model no longer foresees is first of all another choice.
        out.append(replace(found, subject="behaviour" if name == FORESEEN else PREDICTIONS))
    return out


def _sentence(name: str, before: NDArray[np.float64], after: NDArray[np.float64]) -> str:
    """What an alarm says; a mean that moved by less than a tenth of the spread is not called a direction."""
    change = float(after.mean() - before.mean())
    way = "less" if change < 0 else "more"
    moved = f"{words.number(float(before.mean()))} -> {words.number(float(after.mean()))}"
    if abs(change) < 0.1 * float(before.std()):
        way, moved = "about as", f"{moved} (the mean stays, the spread changed)"
    if name == SURE:
        return f"the model is {way} sure of its first ten items: standardised score {moved}"
    return f"what users choose is {way} foreseeable from their past: mean rank (1 is best) {moved}"


def _problem(model: LoadedModel | None, reference: Asked, current: Asked) -> str:
    if model is None:
        return "there is no model"
    if not model.retriever.folds_in:
        return f"{model.label} gives every stranger one answer, whatever they chose"
    lacking = [m for m in model.modalities if m not in reference.items.features or m not in current.items.features]
    if lacking:
        return f"the model reads {', '.join(lacking)}, of which one side has no vectors"
    for m in model.modalities:
        before, after = (side.items.features[m].shape[1] for side in (reference, current))
        if before != after:  # of one encoder all the same: a file of vectors may have any width
            return f"the model reads {m}, whose vectors of {before} and of {after} numbers do not compare"
    return ""


def answers(model: LoadedModel, side: Asked, shared: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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
    z = _standardised(scores)
    top = -np.sort(-np.nan_to_num(z, nan=-np.inf), axis=1)[:, :DEPTH]
    sure = np.where(np.isfinite(top).all(axis=1), top.mean(axis=1), np.nan)
    rank = np.full(len(lists), np.nan)
    for n, rows in enumerate(lists):
        if len(rows) > HISTORY and np.isfinite(z[n, rows[HISTORY]]):
            chosen = z[n, rows[HISTORY]]
            others = z[n][np.isfinite(z[n])]
            rank[n] = ((others < chosen).sum() + 0.5 * ((others == chosen).sum() - 1)) / max(len(others) - 1, 1)
    return sure, rank


def _standardised(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(B, I) scores, each row with mean 0 and standard deviation 1 over its finite ones; NaN for the others and for a
    row whose scores are all the same or none."""
    finite = np.isfinite(scores)
    n = np.maximum(finite.sum(axis=1, keepdims=True), 1)
    off = np.where(finite, scores, 0.0)
    off = np.where(finite, off - off.sum(axis=1, keepdims=True) / n, 0.0)
    spread = np.sqrt((off**2).sum(axis=1, keepdims=True) / n)
    return np.where(finite, off / np.where(spread > 1e-9, spread, np.nan), np.nan)


def _reduced(items: ItemSet, ids: Sequence[str]) -> ItemSet:
    at = {item: n for n, item in enumerate(items.ids)}
    rows = np.array([at[i] for i in ids], np.int64)
    return ItemSet(
        tuple(ids),
        {m: np.asarray(x[rows]) for m, x in items.features.items()},
        {m: p[rows] for m, p in items.present.items()},
        {m: g[rows] for m, g in items.group.items()},
    )
