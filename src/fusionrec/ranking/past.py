"""Behaviour before the event: which items a user had chosen strictly before each impression (B6).

At most the ``last`` ones count, of those at one moment the higher rows, in training and in requests alike. Where
impressions or positives have no timestamps, the others of the user's positives count, of more than ``last`` the lower
rows (rows are in the order of a hash, so that is a draw), the impression's own item never: what is asked is not part of
the answer. An impression of another item loses one of them in its place, so that the size of a past does not tell
whether something was left out of it. A choice that was repeated counts when it was first made.
Legend: P positives, N impressions, B rows of a batch, L entries of their bags.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fusionrec.fusion.space import FeatureSpace
from fusionrec.ranking.base import Known
from fusionrec.types import Bool, Int32, Int64, Interactions, Requests

COMPONENTS = 128
"""Whitened components of each modality among which directions of taste are looked for."""


def content_space(known: Known, shown: Bool, width: int, seed: int) -> FeatureSpace:
    """Where an item's content and a user's past are compared: learnt on the items that were ``shown`` (I,), turned to
    the at most ``width`` directions of each modality along which what one user chose resembles itself."""
    space = FeatureSpace(COMPONENTS).fit(known.items, shown)
    if len(known.history) == 0 or not space.modalities:
        return space
    return space.focus(known.items, known.history, width, seed)


@dataclass(frozen=True)
class Bags:
    """``items`` (L,) int64 item rows, one bag after the other; ``offsets`` (B,) int64 where each bag starts."""

    items: Int64
    offsets: Int64

    @property
    def counts(self) -> Int64:
        """(B,) the sizes of the bags."""
        return np.diff(np.append(self.offsets, len(self.items)))


@dataclass(frozen=True)
class Spans:
    """N impressions: the positives [``start``, ``stop``) of each one's user, (N,) int64 both; ``timed``: they are those
    before it, else all of them."""

    start: Int64
    stop: Int64
    timed: bool

    def at(self, rows: Int64 | slice) -> Spans:
        """The spans of these impressions."""
        return Spans(self.start[rows], self.stop[rows], self.timed)


class Past:
    """The positives of every user in the order of time; at most the ``last`` ones before an impression count."""

    def __init__(self, history: Interactions, last: int) -> None:
        self.last = last
        first = history.first()
        self.timed = first.time is not None
        time = np.zeros(len(first), np.int64) if first.time is None else first.time
        order = np.lexsort((first.item, time, first.user))
        self.item: Int64 = first.item[order].astype(np.int64)
        self.time: Int64 = time[order]
        self.moments = np.unique(time)
        self._key = self._keys(first.user[order].astype(np.int64), np.searchsorted(self.moments, self.time))

    def _keys(self, user: Int64, moment: Int64) -> Int64:
        return user * (len(self.moments) + 1) + moment

    def spans(self, user: Int32, time: Int64 | None) -> Spans:
        """Of impressions by ``user`` (N,), -1 for a user without positives, at ``time`` (N,)."""
        who = user.astype(np.int64)
        start = np.searchsorted(self._key, self._keys(who, np.zeros_like(who)))
        timed = self.timed and time is not None
        if self.timed and time is not None:
            stop = np.searchsorted(self._key, self._keys(who, np.searchsorted(self.moments, time)))
            start = np.maximum(start, stop - self.last)
        else:
            stop = np.searchsorted(self._key, self._keys(who + 1, np.zeros_like(who)))
        stop = np.where(who < 0, start, np.maximum(stop, start))
        return Spans(start.astype(np.int64), stop.astype(np.int64), timed)

    def bags(self, spans: Spans, own: Int64) -> Bags:
        """The items of the spans (B,); of those that are not timed the impression's ``own`` (B,) item is left out, or
        another one in its place, and of more than ``last`` the first ones are taken."""
        size = spans.stop - spans.start
        items, row = self.item[ranges(spans.start, spans.stop)], np.repeat(np.arange(len(size)), size)
        if not spans.timed:
            kept = items != own[row]
            untouched = np.flatnonzero((np.bincount(row, ~kept, minlength=len(size)) == 0) & (size > 0))
            kept[(np.cumsum(size) - size + own % np.maximum(size, 1))[untouched]] = False
            items, row = items[kept], row[kept]
            place = np.arange(len(row)) - np.searchsorted(row, row)
            items, row = items[place < self.last], row[place < self.last]
        return Bags(items, np.searchsorted(row, np.arange(len(size))).astype(np.int64))


def ranges(start: Int64, stop: Int64) -> Int64:
    """start[0], ..., stop[0] - 1, start[1], ... as one array."""
    size = stop - start
    first = np.cumsum(size) - size
    return np.repeat(start - first, size) + np.arange(int(size.sum()), dtype=np.int64)


def of_requests(requests: Requests, last: int) -> Bags:
    """At most ``last`` items of the histories of B requests: the latest where their times are known, else the lower
    rows; as :class:`Past` takes them."""
    h = requests.history if requests.history_time is None else requests.history_time
    h = h.tocsr()
    row = np.repeat(np.arange(len(requests)), np.diff(h.indptr))
    if requests.history_time is None:
        order = np.lexsort((h.indices, row))
    else:
        order = np.lexsort((-h.indices.astype(np.int64), -h.data, row))
    kept = order[np.arange(len(order)) - h.indptr[row[order]] < last]
    return Bags(h.indices[kept].astype(np.int64), np.searchsorted(row[kept], np.arange(len(requests))).astype(np.int64))


def candidate_blocks(
    requests: Requests, candidates: Int64, last: int, block: int
) -> Iterator[tuple[Int64, Int64, Bags]]:
    """The candidates (B, K), -1 for none, at most ``block`` at a time: their rows, columns and requests' pasts."""
    row, column = np.nonzero(candidates >= 0)
    bags = of_requests(requests, last)
    ends = np.append(bags.offsets, len(bags.items))
    for start in range(0, len(row), block):
        r, c = row[start : start + block], column[start : start + block]
        size = ends[r + 1] - ends[r]
        yield r, c, Bags(bags.items[ranges(ends[r], ends[r + 1])], np.cumsum(size) - size)
