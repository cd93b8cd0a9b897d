"""Batches of sequences: which rows lie together and how long they are made, worked by hand first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionrec.encoders.batches import by_length, filled


def test_batches_worked_by_hand():
    """Step 4: lengths 3, 5, 12, 4, 7 and 1 are padded to 4, 8, 12, 4, 8 and 4, 40 tokens in all. Half of what is left
    holds one row of 12, then (14 of 28) one of 8, (10 of 20) one of 8, (6 of 12, 6 at least) one of 4 each time. Of ten
    rows of 8 the first four fill the budget of 32; then 48 are left, 24 hold three; of 24, one; of 16 and of 8, one."""
    found = by_length([3, 5, 12, 4, 7, 1], step=4, budget=24)
    assert [(len(rows), length) for rows, length in found] == [(1, 12), (1, 8), (1, 8), (1, 4), (1, 4), (1, 4)]
    assert found[0][0] == [2] and {found[1][0][0], found[2][0][0]} == {1, 4}
    assert [len(rows) for rows, _ in by_length([8] * 10, step=4, budget=32)] == [4, 3, 1, 1, 1]


@pytest.mark.parametrize(
    ("lengths", "step", "budget", "wanted"),
    [
        ([], 4, 24, []),
        ([9], 4, 5, [([0], 12)]),  # longer than the budget: a batch of its own
        ([2, 30, 31], 16, 16, [([2], 32), ([1], 32), ([0], 16)]),
        ([1] * 8, 1, 12, [([7, 6, 5, 4], 1), ([3, 2, 1], 1), ([0], 1)]),  # half of it, then a quarter of the budget
    ],
)
def test_edges_worked_by_hand(lengths, step, budget, wanted):
    assert by_length(lengths, step, budget) == wanted


@given(
    lengths=st.lists(st.integers(1, 300), max_size=60), step=st.integers(1, 17), budget=st.integers(1, 900)
)  # fmt: skip
def test_every_row_is_in_one_batch_within_the_budget_and_the_longest_come_first(lengths, step, budget):
    found = by_length(lengths, step, budget)
    assert sorted(row for rows, _ in found for row in rows) == list(range(len(lengths)))
    for rows, length in found:
        assert len(rows) * length <= budget or len(rows) == 1
        longest = max(lengths[row] for row in rows)
        assert length % step == 0 and longest <= length < longest + step  # no more padding than the step
    order = [-(-lengths[row] // step) for rows, _ in found for row in rows]
    assert order == sorted(order, reverse=True)


@given(lengths=st.lists(st.integers(1, 90), min_size=2, max_size=200), budget=st.integers(1, 500))
def test_batches_are_full_until_little_is_left(lengths, budget):
    left = sum(-(-n // 4) * 4 for n in lengths)
    for rows, length in by_length(lengths, 4, budget)[:-1]:
        room = min(budget, max(left // 2, budget // 4))
        assert (len(rows) + 1) * length > room
        left -= sum(-(-lengths[row] // 4) * 4 for row in rows)


def test_filled_worked_by_hand():
    """Three sequences in five places, filled up with 9; the empty one has its first place counted."""
    tokens, mask = filled([[4, 5], [], [1, 2, 3, 6]], length=5, pad=9)
    assert tokens.tolist() == [[4, 5, 9, 9, 9], [9, 9, 9, 9, 9], [1, 2, 3, 6, 9]]
    assert mask.tolist() == [[1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 0]]
