"""Impressions as a ranking network takes them, batch by batch. Legend as in :mod:`fusionrec.ranking.deep`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fusionrec.ranking.base import POSITION, Impressions
from fusionrec.ranking.past import Bags, Past
from fusionrec.ranking.words import Said
from fusionrec.types import Int64

if TYPE_CHECKING:
    from fusionrec.ranking.deep import DeepRanker


@dataclass(frozen=True)
class Batch:
    """B rows: their codes ``ids`` (B, F), ``item`` (B,) rows of the catalogue, pasts, places (B,) and times (B,); where
    there are none they are asked about after all of training; ``said``: their users' words, None where no one hears."""

    ids: Int64
    item: Int64
    bags: Bags
    position: Int64
    time: Int64 | None
    said: Said | None = None


class Rows:
    """Impressions with what belongs to each, ready to be taken by row."""

    def __init__(self, ranker: DeepRanker, rows: Impressions, past: Past) -> None:
        self.ranker, self.rows, self.past = ranker, rows, past
        self.spans = past.spans(rows.user, rows.time)
        self.hearing = ranker.hearing
        timed = rows.time is not None
        self.said = None if self.hearing is None else self.hearing.spans(rows.user, rows.time, timed)
        nothing = np.full(len(rows), np.nan, np.float32)
        self.labels = {task: rows.labels.get(task, nothing) for task in ranker.tasks}
        for task, (mean, spread, *_) in ranker.scale.items():
            self.labels[task] = ((self.labels[task] - mean) / spread).astype(np.float32)

    def at(self, rows: Int64) -> Batch:
        part = self.rows
        item = part.item[rows].astype(np.int64)
        context = {name: codes[rows] for name, codes in part.context.items()}
        ids = self.ranker.fields.codes(part.user[rows].astype(np.int64), item, context)
        position = context.get(POSITION, np.ones(len(rows), np.int64)).astype(np.int64)
        time = None if part.time is None else part.time[rows]
        said = None if self.hearing is None or self.said is None else self.hearing.at(self.said.at(rows), item)
        return Batch(ids, item, self.past.bags(self.spans.at(rows), item), position, time, said)


def met(rows: Impressions, tasks: Sequence[str], places: int) -> Int64:
    """(at least ``places`` + 1,): how many rows with a label of any of ``tasks`` stood at each place; the first number:
    where nobody knows it."""
    known = np.any([~np.isnan(rows.labels[task]) for task in tasks], axis=0) if tasks else np.zeros(len(rows), bool)
    position = rows.context.get(POSITION, np.ones(len(rows), np.int16))
    return np.bincount(np.maximum(position[known], 0), minlength=places + 1).astype(np.int64)
