"""Coverage and novelty of hand-made lists."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from fusionrec.evaluation.beyond import beyond_accuracy
from fusionrec.evaluation.protocol import Result


def test_coverage_novelty_and_shares_by_hand():
    """5 items, 7 training users; item 0 was touched by all, 1 by three, 2 and 3 by one, 4 by nobody."""
    count = np.array([7, 3, 1, 1, 0])
    lists = np.array([[0, 1, 4], [0, 4, -1], [-1, -1, -1]])
    positives = sparse.csr_matrix(np.array([[0, 0, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]], float))
    taken, model = beyond_accuracy([Result("model", {}, {"all": lists})], positives, count, 7, {"model": "ours"}, 2)
    assert (taken["label"], taken["coverage"]) == ("what users took", 0.4)
    assert taken["novelty"] == pytest.approx((np.log2(8 / 2) + np.log2(8 / 8)) / 2)
    # the first two places: 0, 1, 0, 4; a new item is worth log2(8 / 1) = 3 bits
    assert (model["label"], model["coverage"], model["k"]) == ("ours", 0.6, 2)
    assert model["novelty"] == pytest.approx((0 + 1 + 0 + 3) / 4)
    assert (model["popular"], model["new"]) == (0.5, 0.25)


def test_nobody_gets_anything():
    rows = beyond_accuracy(
        [Result("model", {}, {"all": np.full((2, 3), -1)})], sparse.csr_matrix((2, 4)), np.ones(4, int), 3, {}, 3
    )
    assert [(r["coverage"], r["novelty"], r["popular"]) for r in rows] == [(0.0, None, None)] * 2
