"""Negatives are uniform over what the user has not touched."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from fusionrec.recommenders.negatives import Negatives


def test_no_negative_is_a_training_item_and_the_others_are_equally_likely() -> None:
    touched = np.zeros((3, 7), np.float32)
    touched[0, [1, 4]], touched[1, :6] = 1, 1
    matrix = sparse.csr_matrix(touched)
    users = np.repeat([0, 1, 2], 7000)
    drawn = Negatives(matrix).draw(np.random.default_rng(0), users)
    count = np.zeros((3, 7))
    np.add.at(count, (users, drawn), 1)
    assert drawn.dtype == np.int64 and not count[touched > 0].any()
    for row in count:
        share = row[row > 0] / 7000
        np.testing.assert_allclose(share, 1 / len(share), atol=4 * np.sqrt(1 / len(share) / 7000))
    assert (count[1] > 0).sum() == 1 and (count[2] > 0).all()


def test_only_candidates_are_drawn() -> None:
    matrix = sparse.csr_matrix(np.eye(5, 9, dtype=np.float32))
    drawn = Negatives(matrix, np.array([0, 3, 8])).draw(np.random.default_rng(1), np.repeat(np.arange(5), 200))
    assert set(drawn.tolist()) == {0, 3, 8}
    assert not (drawn == np.repeat(np.arange(5), 200)).any()


def test_who_has_touched_everything_keeps_a_random_item() -> None:
    drawn = Negatives(sparse.csr_matrix(np.ones((1, 4), np.float32))).draw(np.random.default_rng(2), np.zeros(50, int))
    assert set(drawn.tolist()) <= {0, 1, 2, 3}


def test_a_collision_of_hashes_is_no_hit() -> None:
    """Every table entry set: each draw is looked up exactly."""
    negatives = Negatives(sparse.csr_matrix(np.eye(3, 11, dtype=np.float32)))
    negatives._table[:] = True
    drawn = negatives.draw(np.random.default_rng(3), np.repeat(np.arange(3), 500))
    assert not (drawn == np.repeat(np.arange(3), 500)).any() and len(set(drawn.tolist())) == 11
