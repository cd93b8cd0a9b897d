"""Coverage and novelty of hand-made lists."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from fusionrec.evaluation.beyond import TAKEN, beyond_accuracy, centred, diversity, gini, serendipity
from fusionrec.evaluation.categories import NONE, by_category
from fusionrec.evaluation.protocol import Result
from fusionrec.types import ItemSet


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


def test_gini_by_hand():
    assert gini(np.array([4, 4, 4])) == 0
    assert gini(np.array([0, 0, 0, 9])) == pytest.approx(3 / 4)
    values = np.array([1, 5, 2, 0, 3])
    pairs = np.abs(values[:, None] - values[None]).mean()
    assert gini(values) == pytest.approx(pairs / (2 * values.mean()))
    assert gini(np.zeros(3, int)) == 0


def content(seed=0, n=9):
    rng = np.random.default_rng(seed)
    here = np.ones(n, bool)
    here[[2, 5]] = False
    x = rng.normal(size=(n, 4)).astype(np.float32) + 3
    x[~here] = np.nan  # what is absent may hold anything
    return ItemSet(tuple(map(str, range(n))), {"text": x}, {"text": here}, {"text": np.zeros(n, np.int16)})


def test_diversity_is_the_mean_over_pairs():
    items = content()
    lists = np.array([[0, 1, 2, 3], [4, 5, -1, -1], [6, 7, 8, -1], [-1, -1, -1, -1]])
    x = items.features["text"] - np.nanmean(items.features["text"], axis=0)
    expected = []
    for row in lists:
        real = [i for i in row if i >= 0 and items.present["text"][i]]
        far = [1 - x[a] @ x[b] / np.linalg.norm(x[a]) / np.linalg.norm(x[b]) for a in real for b in real if a != b]
        if far:  # the second list has one item with a text: no pair
            expected.append(np.mean(far))
    assert len(expected) == 2
    assert diversity(lists, [centred(items, "text")]) == pytest.approx(np.mean(expected), abs=1e-5)
    same = ItemSet(items.ids, {"text": np.ones((9, 4), np.float32)}, {"text": np.ones(9, bool)}, items.group)
    assert diversity(lists, [centred(same, "text")]) is None  # one vector for all: nothing to tell apart
    assert diversity(lists, []) is None


def test_serendipity_counts_hits_that_are_not_obvious():
    positives = sparse.csr_matrix(np.array([[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]], float))
    lists = np.array([[0, 1, 2], [1, 2, 3], [1, -1, -1]])
    obvious = np.array([[0, 2, -1], [0, 1, 2], [2, 3, 0]])
    # user 0: item 1 of 3 places (item 0 is obvious); user 1 took nothing; user 2: item 1 of 3 places
    assert serendipity(lists, obvious, positives) == pytest.approx((1 / 3 + 1 / 3) / 2, abs=1e-6)
    assert serendipity(lists, np.full((3, 3), -1), positives) == pytest.approx((2 / 3 + 1 / 3) / 2, abs=1e-6)
    assert serendipity(lists, obvious, sparse.csr_matrix((3, 4))) is None


def test_rows_of_two_models_against_what_users_took():
    count = np.array([8, 3, 1, 0, 2, 0, 1, 1, 1])
    positives = sparse.csr_matrix(np.eye(3, 9, 2))
    popular, ours = np.array([[0, 1], [0, 1], [0, 1]]), np.array([[2, 0], [3, 4], [6, 4]])
    results = [Result("popularity", {}, {"all": popular}), Result("model", {}, {"all": ours})]
    taken, floor, model = beyond_accuracy(results, positives, count, 8, {"popularity": "p", "model": "m"}, 2, content())
    assert taken["model"] == TAKEN and taken["serendipity"] is None and taken["diversity"] is None
    assert floor["serendipity"] == 0 and model["serendipity"] == pytest.approx(3 / 6)
    assert floor["popularity"] == pytest.approx(11 / 16) and model["popularity"] == pytest.approx(14 / 48, abs=1e-6)
    assert floor["gini"] > model["gini"] > 0
    assert model["diversity"] is not None


def test_by_category_is_the_metric_on_what_was_taken_of_it():
    rng = np.random.default_rng(4)
    positives = sparse.csr_matrix((rng.random((11, 7)) < 0.4).astype(float))
    lists = {m: np.argsort(rng.random((11, 7)), axis=1)[:, :5] for m in ("a", "b")}
    results = [Result(m, {}, {"all": x}) for m, x in lists.items()]
    category = ["x", "=1+1", None, "x", "", "=1+1", "x"]
    rows = by_category(results, positives, category, {"a": "A", "b": "B"}, "recall@5", 50, 0)
    assert [r["model"] for r in rows] == ["a", "b"] * 3
    assert {r["category"] for r in rows} == {"x", "=1+1", NONE}
    for row in rows:
        inside = np.array([(c or NONE) == row["category"] for c in category])
        taken = positives.toarray().astype(bool) & inside
        users = np.flatnonzero(taken.any(axis=1))
        found = [taken[u, lists[row["model"]][u]].sum() / taken[u].sum() for u in users]
        assert row["mean"] == pytest.approx(np.mean(found), abs=1e-6)
        assert (row["n"], row["choices"]) == (len(users), taken.sum())
        assert row["low"] <= row["mean"] <= row["high"]
    assert [r["choices"] for r in rows] == sorted((r["choices"] for r in rows), reverse=True)
    assert len(by_category(results, positives, category, {"a": "A", "b": "B"}, "recall@5", 50, 0, most=1)) == 2
    assert by_category(results, positives, [None] * 7, {}, "recall@5", 50, 0) == []
