"""Search side by side: what benchmarks/search.py measures, by hand, and what its page concludes."""

from __future__ import annotations

import numpy as np
import page_search
import pytest
import search

from fusionrec.search.past import Past

LANGUAGE = np.array(["en", "zh", "en", "zh", ""])
LATER = Past(
    ["red vase", "花瓶", "blue vase"],
    ["u1", "u2", "u1"],
    np.array([2, 0, 3]),
    [np.array([2, 4]), np.array([0]), np.array([3])],
)
SCORES = np.array([[5, 4, 3, 2, 1], [1, 2, 3, 4, 5], [1, 5, 2, 4, 3]], np.float32)


def test_measures_by_hand() -> None:
    found = search.measured(SCORES, LATER, LANGUAGE)
    np.testing.assert_allclose(found["mrr"], [1 / 3, 1 / 5, 1 / 2])
    np.testing.assert_allclose(found["ndcg@10"], [1 / np.log2(4), 1 / np.log2(6), 1 / np.log2(3)])
    np.testing.assert_allclose(found["recall@10"], [1, 1, 1])
    ideal = 1 + 1 / np.log2(3)
    assert found["ndcg@10, all clicks"][0] == pytest.approx((1 / np.log2(4) + 1 / np.log2(6)) / ideal)


def test_in_its_language_only_those_items_are_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "K", 1)
    found = search.measured(SCORES, LATER, LANGUAGE)
    assert found["recall@10"].tolist() == [0, 0, 0]
    # en holds items 0 and 2: item 2 is behind 0, item 0 behind 2; zh holds 1 and 3: 3 is behind 1
    assert found["recall@10 in its language"].tolist() == [0, 0, 0]
    best = np.array([[1, 9, 3, 8, 7]] * 3, np.float32)
    assert search.measured(best, LATER, LANGUAGE)["recall@10 in its language"].tolist() == [1, 0, 0]


def test_a_user_counts_once() -> None:
    values = np.array([1.0, 5.0, 2.0])
    assert search.by_user(values, LATER.users, np.ones(3, bool)).tolist() == [1.5, 5.0]
    assert search.by_user(values, LATER.users, np.array([False, True, False])).tolist() == [5.0]


def test_slices_are_by_the_query_and_the_item() -> None:
    found = search.slices(LATER, LANGUAGE)
    assert {name: mask.tolist() for name, mask in found.items() if mask.any()} == {
        "all": [True] * 3,
        "asked in en": [True, False, True],
        "asked in zh": [False, True, False],
        "en for an item in en": [True, False, False],
        "en for an item in zh": [False, False, True],
        "zh for an item in en": [False, True, False],
    }


def test_the_page_says_what_the_tests_say() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(80)
    users = {
        "keyword": {"mrr": base},
        "vector": {"mrr": base + 0.3 + 0.01 * rng.normal(size=80)},
        search.HYBRID: {"mrr": base + 0.3 + 0.01 * rng.normal(size=80)},
    }
    tests = search.compared(users, "all", "mrr")
    assert [test["against"] for test in tests] == ["keyword", "vector"]
    assert tests[0]["better by"] == pytest.approx(0.3, abs=0.01) and tests[0]["p_holm"] < 0.001
    (said,) = page_search.findings(tests)
    assert said.startswith("All queries, MRR: hybrid is better than keyword (+0.")
    assert "; tied with vector (" in said
    swapped = [{**test, "better by": -test["better by"]} for test in tests]
    assert "worse than keyword" in page_search.findings(swapped)[0]
