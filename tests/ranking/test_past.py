"""What a user chose before: strictly before, the own item never, the last ones first to count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionrec.ranking.past import Past, of_requests, ranges
from fusionrec.types import Interactions, Requests
from tests.contracts import world as w


def history(rows: list[tuple[int, int, int]], timed: bool = True) -> Interactions:
    user, item, time = (np.array(column, np.int64) for column in zip(*rows, strict=True)) if rows else [np.zeros(0)] * 3
    return Interactions(user.astype(np.int32), item.astype(np.int32), time.astype(np.int64) if timed else None, 9, 50)


def bags(past: Past, user: list[int], time: list[int] | None, item: list[int]) -> list[list[int]]:
    spans = past.spans(np.array(user, np.int32), None if time is None else np.array(time, np.int64))
    found = past.bags(spans, np.array(item, np.int64))
    ends = np.append(found.offsets, len(found.items))
    return [found.items[a:b].tolist() for a, b in zip(ends, ends[1:], strict=False)]


def test_strictly_before_and_nobody_elses() -> None:
    past = Past(history([(1, 7, 10), (1, 8, 20), (1, 9, 30), (2, 5, 15)]), last=2)
    asked = bags(past, [1, 1, 1, 1, 2, -1, 3], [10, 20, 31, 99, 15, 99, 99], [0] * 7)
    assert asked == [[], [7], [8, 9], [8, 9], [], [], []]


def test_without_times_all_but_the_own_item() -> None:
    past = Past(history([(1, 7, 0), (1, 8, 0), (1, 9, 0), (2, 5, 0)], timed=False), last=2)
    assert bags(past, [1, 1, 2, -1], None, [8, 4, 5, 7]) == [[7, 9], [7, 9], [], []]
    sizes = [len(bag) for bag in bags(past, [1] * 20, None, list(range(20)))]
    assert set(sizes) == {2}, "the size of a past does not tell which item is among the user's own"
    assert bags(past, [1], [5], [8]) == [[7, 9]], "times of impressions say nothing where positives have none"
    timed = Past(history([(1, 7, 10), (1, 8, 20), (1, 9, 30)]), last=2)
    assert bags(timed, [1], None, [8]) == [[7, 9]], "and those of positives nothing where impressions have none"


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(0, 6)), max_size=40),
    st.lists(st.tuples(st.integers(-1, 5), st.integers(0, 7)), min_size=1, max_size=12),
    st.integers(1, 5),
)
def test_it_is_the_plain_definition(rows: list[tuple[int, int, int]], asked: list[tuple[int, int]], last: int) -> None:
    found = bags(Past(history(rows), last), [u for u, _ in asked], [t for _, t in asked], [0] * len(asked))
    first: dict[tuple[int, int], int] = {}
    for u, i, t in rows:
        first[u, i] = min(t, first.get((u, i), t))
    for (user, time), bag in zip(asked, found, strict=True):
        before = sorted((t, i) for (u, i), t in first.items() if u == user and t < time)
        assert bag == [i for _, i in before][-last:]


def test_a_choice_that_was_repeated_counts_when_it_was_first_made() -> None:
    past = Past(history([(1, 7, 10), (1, 9, 20), (1, 7, 30)]), last=5)
    assert bags(past, [1, 1], [15, 99], [0, 0]) == [[7], [7, 9]]


@pytest.mark.parametrize("timed", [True, False])
def test_a_request_counts_what_training_counts(timed: bool) -> None:
    """Eight choices at two moments, of which three count: ties in time, and no times, are cut at the same end."""
    rows = [(0, item, 5 + item % 2) for item in range(8)]
    known = history(rows, timed)
    mine = bags(Past(known, last=3), [0], [9] if timed else None, [40])
    times = known.times()
    assert (times is None) != timed
    request = Requests(np.zeros(1, np.int64), known.matrix()[:1], history_time=None if times is None else times[:1])
    found = of_requests(request, last=3)
    assert sorted(found.items.tolist()) == sorted(mine[0] if timed else [0, 1, 2]) and len(mine[0]) == 3


def test_requests_give_the_latest_of_their_history() -> None:
    request = w.strangers([[4, 2, 9], [], [7]], 12)
    found = of_requests(request, last=2)
    assert found.counts.tolist() == [2, 0, 1] and found.items[2] == 7
    assert sorted(found.items[:2].tolist()) == [2, 9] and found.counts.tolist() == [2, 0, 1]
    assert ranges(np.array([3, 5, 9]), np.array([5, 5, 10])).tolist() == [3, 4, 9]
