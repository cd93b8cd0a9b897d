"""Graphs worked out by hand, and the traps of published code: an adjacency of zeros, a graph of other features."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from fusionrec.recommenders import graph
from fusionrec.recommenders.graph import bipartite, nearest, neighbours, normalised

# users 0, 1, 2 and items 0, 1: degrees 1, 2, 1 and 2, 2
PAIRS = sparse.csr_matrix(np.array([[1, 0], [1, 1], [0, 1]], np.float32))
HALF = 0.5**0.5


def test_the_user_item_graph_of_three_users_and_two_items() -> None:
    found = bipartite(PAIRS)
    block = np.array([[HALF, 0], [0.5, 0.5], [0, HALF]], np.float32)
    expected = np.zeros((5, 5), np.float32)
    expected[:3, 3:], expected[3:, :3] = block, block.T
    assert (found.dtype, found.shape, found.nnz) == (np.float32, (5, 5), 8)
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-6)


def test_a_user_without_items_has_an_empty_row_and_no_infinity() -> None:
    found = bipartite(sparse.csr_matrix(np.array([[1, 0, 0], [0, 0, 0]], np.float32)))
    assert np.isfinite(found.data).all()
    assert np.diff(found.indptr).tolist() == [1, 0, 1, 0, 0]


def test_a_graph_that_loses_its_edges_stops_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "normalised", lambda weights: weights * 0)
    with pytest.raises(AssertionError, match="lost its edges"):
        bipartite(PAIRS)


def test_normalisation_divides_by_the_roots_of_the_row_sums() -> None:
    found = normalised(sparse.csr_matrix(np.array([[0, 4.0], [1, 0]])))
    np.testing.assert_allclose(found.toarray(), [[0, 2], [0.5, 0]])


def test_nearest_by_cosine_is_itself_first_and_ties_go_to_the_lower_row() -> None:
    x = np.array([[1, 0], [0, 2], [3, 0], [0, 1], [5, 5]], np.float32)
    rows, cosine = nearest(x, 3)
    assert rows.tolist() == [[0, 2, 4], [1, 3, 4], [2, 0, 4], [3, 1, 4], [4, 0, 1]]
    np.testing.assert_allclose(cosine[4], [1, HALF, HALF], atol=1e-6)
    assert nearest(x, 9)[0].shape == (5, 5)


def test_copies_of_a_row_never_push_it_out() -> None:
    rows, _ = nearest(np.ones((7, 3), np.float32), 2)
    assert rows[:, 0].tolist() == list(range(7))
    assert rows[:, 1].tolist() == [1, 0, 0, 0, 0, 0, 0]


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=(53, 7)).astype(np.float32)
    whole = nearest(x, 5)
    monkeypatch.setattr(graph, "BLOCK_CELLS", 53 * 4)
    blocks = nearest(x, 5)
    np.testing.assert_array_equal(whole[0], blocks[0])
    np.testing.assert_allclose(whole[1], blocks[1], atol=2e-6)


def test_a_binary_graph_weighs_every_edge_one_over_k() -> None:
    x = np.random.default_rng(1).normal(size=(11, 3)).astype(np.float32)
    found = neighbours(x, np.ones(11, bool), 4)
    assert (np.diff(found.indptr) == 4).all()
    np.testing.assert_allclose(found.data, 0.25, rtol=1e-6)


def test_a_weighted_graph_takes_the_cosines_that_are_positive() -> None:
    x = np.array([[1, 0], [1, 1], [-1, 0]], np.float32)
    found = neighbours(x, np.ones(3, bool), 3, weighted=True).toarray()
    # row sums: 1 + r, 1 + r, 1 with r = cos 45 degrees; the third has no edge but to itself
    np.testing.assert_allclose(found, [[1 / (1 + HALF), HALF / (1 + HALF), 0], [HALF / (1 + HALF), 1 / (1 + HALF), 0],
                                       [0, 0, 1]], rtol=1e-5)  # fmt: skip


def test_items_without_the_modality_have_no_edges_and_get_none() -> None:
    x = np.random.default_rng(2).normal(size=(9, 3)).astype(np.float32)
    here = np.ones(9, bool)
    here[[2, 5]] = False
    x[~here] = np.nan
    found = neighbours(x, here, 4)
    assert found[[2, 5]].nnz == 0 and found[:, [2, 5]].nnz == 0
    np.testing.assert_allclose(found[here][:, here].toarray(), neighbours(x[here], here[here], 4).toarray())


def test_other_features_give_another_graph_for_the_same_k() -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.normal(size=(31, 6)).astype(np.float32) for _ in range(2))
    here = np.ones(31, bool)
    assert (neighbours(a, here, 3) != neighbours(b, here, 3)).nnz > 0


def test_features_that_are_not_finite_are_refused() -> None:
    x = np.ones((4, 2), np.float32)
    x[1, 0] = np.nan
    with pytest.raises(ValueError, match="1 present items are not finite"):
        neighbours(x, np.ones(4, bool), 2)
