"""The exact top-k: against sorting in full, with ties everywhere, narrow and wide, and its memory bound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from fusionrec.recommenders.popularity import Popularity
from fusionrec.recommenders.topk import BLOCK_BYTES, FEWEST, GROUP, MOST_BYTES, WIDE, block_rows, top_k
from fusionrec.types import Interactions, ItemSet, Requests


def sorted_in_full(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Every row by (-value, column)."""
    order = np.lexsort((np.broadcast_to(np.arange(scores.shape[1]), scores.shape), -scores), axis=1)[:, :k]
    return order, np.take_along_axis(scores, order, 1)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 40), st.integers(1, 45), st.integers(1, 7))
def test_equals_the_full_sort_whatever_is_tied(seed: int, rows: int, n: int, k: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (rows, n)).astype(np.float32)
    scores[rng.random((rows, n)) < 0.3] = -np.inf
    before = scores.copy()
    column, value = top_k(scores, k)
    np.testing.assert_array_equal(column, sorted_in_full(scores, k)[0])
    np.testing.assert_array_equal(value, sorted_in_full(scores, k)[1])
    assert (column.dtype, value.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize("n", [WIDE, WIDE + 1, WIDE + GROUP - 1, 3 * WIDE + 5])
@pytest.mark.parametrize("levels", [3, 900, 10**9])
def test_wide_rows_take_another_way_to_the_same_lists(n: int, levels: int) -> None:
    rng = np.random.default_rng(n + levels)
    scores = (rng.integers(0, levels, (7, n)) / levels).astype(np.float32)
    scores[0] = 0.5
    scores[1, 60:] = -np.inf
    scores[2] = np.sort(scores[2])  # the best ones lie side by side, the very last beyond the groups
    for k in (1, 20, 53):
        column, value = top_k(scores, k)
        np.testing.assert_array_equal(column, sorted_in_full(scores, k)[0])
        np.testing.assert_array_equal(value, sorted_in_full(scores, k)[1])


def test_empty_ties_are_the_only_thing_left_open() -> None:
    scores = np.full((3, 11), -np.inf, np.float32)
    scores[:, [9, 4]] = 1
    column, value = top_k(scores, 5, empty_ties=False)
    assert column[:, :2].tolist() == [[4, 9]] * 3
    assert np.isneginf(value[:, 2:]).all()
    assert all(len(set(row)) == 5 for row in column.tolist())


def test_nothing_in_nothing_out_and_read_only_scores() -> None:
    assert [x.shape for x in top_k(np.zeros((0, 4), np.float32), 3)] == [(0, 3)] * 2
    assert [x.shape for x in top_k(np.zeros((3, 0), np.float32), 5)] == [(3, 0)] * 2
    shared = np.broadcast_to(np.array([1, 3, 2], np.float32), (4, 3))
    assert top_k(shared, 2)[0].tolist() == [[1, 2]] * 4


@pytest.mark.parametrize("n_items", [1, 43, 6_710, 262_144, 1_000_000, 4_000_000, 50_000_000])
def test_a_block_of_scores_stays_within_its_budget(n_items: int) -> None:
    rows = block_rows(n_items)
    assert 1 <= rows <= 1024
    assert rows == 1 or rows * n_items * 4 <= MOST_BYTES
    assert rows <= FEWEST or rows * n_items * 4 <= BLOCK_BYTES


def test_recommend_scores_no_more_than_a_block_at_once() -> None:
    """A catalogue so wide that the budget allows only a few requests at a time."""
    n_items, n_users, asked = 300_000, 3, []
    train = Interactions(np.zeros(5, np.int32), np.arange(5, dtype=np.int32) * 7, None, n_users, n_items)
    model = Popularity().build()
    model.fit(train, train, ItemSet(tuple(str(i) for i in range(n_items))))
    score = model._score
    model._score = lambda requests: (asked.append(len(requests)), score(requests))[1]  # type: ignore[method-assign]
    n = block_rows(n_items) + 1
    items, _ = model.recommend(Requests(np.full(n, -1, np.int64), sparse.csr_matrix((n, n_items), dtype=np.float32)), 3)
    assert asked == [n - 1, 1]
    assert items.tolist() == [[0, 7, 14]] * n
