"""Rank metrics against hand-worked tables, an independent implementation, and invariants."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from fusionrec.evaluation import metrics

L2 = {r: 1 / np.log2(r + 1) for r in range(1, 8)}


def csr(rows, n_items):
    dense = np.zeros((len(rows), n_items))
    for u, items in enumerate(rows):
        dense[u, items] = 1
    return sparse.csr_matrix(dense)


def test_hand_worked():
    items = np.array([[3, 1, 4, 0, 5], [2, 0, 1, 3, 4], [6, 5, 4, -1, -1], [0, 1, 2, 3, 4]])
    pos = csr([[1, 0, 6], [2], [], [5, 6]], 7)
    got = metrics.per_user(items, pos, (3, 5))
    # user 0: hits at ranks 2 and 4 of 3 positives; user 1: rank 1 of 1; user 2: none asked; user 3: no hit of 2.
    np.testing.assert_allclose(got["recall@3"], [1 / 3, 1, np.nan, 0])
    np.testing.assert_allclose(got["recall@5"], [2 / 3, 1, np.nan, 0])
    np.testing.assert_allclose(got["precision@3"], [1 / 3, 1 / 3, np.nan, 0])
    np.testing.assert_allclose(got["precision@5"], [2 / 5, 1 / 5, np.nan, 0])
    np.testing.assert_allclose(got["ndcg@5"], [(L2[2] + L2[4]) / (L2[1] + L2[2] + L2[3]), 1, np.nan, 0])
    np.testing.assert_allclose(got["ndcg@3"], [L2[2] / (L2[1] + L2[2] + L2[3]), 1, np.nan, 0])
    np.testing.assert_allclose(got["map@5"], [(1 / 2 + 2 / 4) / 3, 1, np.nan, 0])
    np.testing.assert_allclose(got["mrr@3"], [1 / 2, 1, np.nan, 0])
    np.testing.assert_allclose(got["hitrate@3"], [1, 1, np.nan, 0])


def test_ideal_is_cut_at_k():
    """Five positives and K=2: a list of two hits is perfect for NDCG and MAP, and 2/5 for recall."""
    got = metrics.per_user(np.array([[0, 1]]), csr([[0, 1, 2, 3, 4]], 6), (2,))
    assert got["ndcg@2"][0] == got["map@2"][0] == got["precision@2"][0] == 1
    assert got["recall@2"][0] == pytest.approx(0.4)


def test_hand_worked_at_5_10_20_and_50():
    """60 items; hits at ranks 2, 5, 6, 13, 20, 21 and 44 of 12 positives: every sum is written out."""
    items = np.arange(60)[None]
    found = [2, 5, 6, 13, 20, 21, 44]
    got = metrics.per_user(items[:, :50], csr([[r - 1 for r in found] + [50, 51, 52, 53, 54]], 60), (5, 10, 20, 50))
    log = lambda r: 1 / np.log2(r + 1)  # noqa: E731
    expected = {
        5: (2 / 12, 2 / 5, (log(2) + log(5)) / sum(map(log, range(1, 6))), (1 / 2 + 2 / 5) / 5),
        10: (3 / 12, 3 / 10, sum(map(log, found[:3])) / sum(map(log, range(1, 11))), (1 / 2 + 2 / 5 + 3 / 6) / 10),
        20: (
            5 / 12, 5 / 20, sum(map(log, found[:5])) / sum(map(log, range(1, 13))),
            (1 / 2 + 2 / 5 + 3 / 6 + 4 / 13 + 5 / 20) / 12,
        ),
        50: (
            7 / 12, 7 / 50, sum(map(log, found)) / sum(map(log, range(1, 13))),
            (1 / 2 + 2 / 5 + 3 / 6 + 4 / 13 + 5 / 20 + 6 / 21 + 7 / 44) / 12,
        ),
    }  # fmt: skip
    for k, values in expected.items():
        for name, value in zip(("recall", "precision", "ndcg", "map"), values, strict=True):
            assert got[f"{name}@{k}"][0] == pytest.approx(value), (name, k)
        assert got[f"mrr@{k}"][0] == 1 / 2
        assert got[f"hitrate@{k}"][0] == 1


def test_a_list_as_wide_as_the_catalogue_needs_no_padding():
    pos = csr([[0, 3], [2]], 4)
    lists = np.array([[3, 1, 2, 0], [0, 1, 3, 2]])
    padded = metrics.per_user(np.pad(lists, ((0, 0), (0, 6)), constant_values=-1), pos, (3, 10))
    for name, values in metrics.per_user(lists, pos, (3, 10)).items():
        np.testing.assert_array_equal(values, padded[name])


def test_ir_measures_agrees():
    import ir_measures
    from ir_measures import AP, RR, P, R, Success, nDCG

    rng = np.random.default_rng(3)
    B, I, K = 37, 71, 50
    items = np.stack([rng.permutation(I)[:K] for _ in range(B)])
    pos = csr([rng.permutation(I)[: rng.integers(1, 29)] for _ in range(B)], I)
    qrels = [ir_measures.Qrel(str(u), str(i), 1) for u, i in zip(*pos.nonzero(), strict=True)]
    run = [ir_measures.ScoredDoc(str(u), str(i), float(K - r)) for u in range(B) for r, i in enumerate(items[u])]
    ks = (5, 10, 20, 50)
    ours = metrics.per_user(items, pos, ks)
    named = {}
    for k in ks:
        named |= {
            R @ k: f"recall@{k}",
            P @ k: f"precision@{k}",
            nDCG @ k: f"ndcg@{k}",
            RR @ k: f"mrr@{k}",
            Success @ k: f"hitrate@{k}",
        }
    seen = 0
    for m in ir_measures.iter_calc(list(named), qrels, run):
        assert ours[named[m.measure]][int(m.query_id)] == pytest.approx(m.value, abs=1e-9), m
        seen += 1
    assert seen == B * len(named)
    # AP@K divides by all positives; ours by min(m, K): the same number after rescaling.
    m_pos = np.diff(pos.indptr)
    for m in ir_measures.iter_calc([AP @ k for k in ks], qrels, run):
        u, k = int(m.query_id), m.measure["cutoff"]
        assert ours[f"map@{k}"][u] * min(m_pos[u], k) / m_pos[u] == pytest.approx(m.value, abs=1e-9)
        seen += 1
    assert seen == B * (len(named) + len(ks))


@st.composite
def cases(draw):
    n_users, n_items, width = draw(st.integers(1, 6)), draw(st.integers(1, 9)), draw(st.integers(1, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    items = np.full((n_users, width), -1, np.int64)
    for u in range(n_users):
        n = int(rng.integers(0, min(width, n_items) + 1))
        items[u, :n] = rng.permutation(n_items)[:n]
    pos = sparse.csr_matrix((rng.random((n_users, n_items)) < 0.4).astype(np.float32))
    return items, pos, rng


@given(cases())
def test_invariants(case):
    items, pos, rng = case
    width = items.shape[1]
    ks = tuple(range(1, width + 1))
    got = metrics.per_user(items, pos, ks)
    empty = np.diff(pos.indptr) == 0
    for name, v in got.items():
        assert (np.isnan(v) == empty).all(), name
        assert ((v[~empty] >= 0) & (v[~empty] <= 1 + 1e-12)).all(), name
    for a, b in zip(ks, ks[1:], strict=False):
        for name in ("recall", "mrr", "hitrate"):
            assert (got[f"{name}@{a}"] <= got[f"{name}@{b}"] + 1e-12)[~empty].all()
    order = rng.permutation(len(items))
    shuffled = metrics.per_user(items[order], pos[order], ks)
    padded = metrics.per_user(np.pad(items, ((0, 0), (0, 3)), constant_values=-1), pos, ks)
    for name, v in got.items():
        np.testing.assert_array_equal(shuffled[name], v[order])
        np.testing.assert_array_equal(padded[name], v)
    # the best list there is scores 1
    best = np.full_like(items, -1)
    for u in range(len(items)):
        liked = pos[u].indices[:width]
        best[u, : len(liked)] = liked
    ideal = metrics.per_user(best, pos, ks)
    for k in ks:
        np.testing.assert_allclose(ideal[f"ndcg@{k}"][~empty], 1)
        np.testing.assert_allclose(ideal[f"map@{k}"][~empty], 1)


def test_repeats_zeros_and_duplicates():
    """An item repeated in a list counts once; stored zeros are not positives; repeated entries count once."""
    pos = sparse.csr_matrix((np.array([1.0, 0.0, 1.0, 1.0]), np.array([2, 1, 0, 2]), np.array([0, 4])), shape=(1, 3))
    before = pos.copy()
    got = metrics.per_user(np.array([[2, 2, 1]]), pos, (3,))
    assert got["recall@3"][0] == pytest.approx(0.5)
    assert (pos.data == before.data).all() and (pos.indices == before.indices).all()


def test_edges():
    one = metrics.per_user(np.array([[0]]), sparse.csr_matrix(np.ones((1, 1))), (1,))
    assert {v[0] for v in one.values()} == {1.0}
    none = metrics.per_user(np.full((2, 4), -1), sparse.csr_matrix((2, 5)), (4,))
    assert all(np.isnan(v).all() for v in none.values())
    assert metrics.mean(none["ndcg@4"]) == (0.0, 0) and metrics.means(none)["recall@4"] == 0.0
    nobody = metrics.per_user(np.zeros((0, 3), np.int64), sparse.csr_matrix((0, 5)), (3,))
    assert metrics.mean(nobody["ndcg@3"]) == (0.0, 0)


@pytest.mark.parametrize(
    ("items", "ks", "words"),
    [
        (np.zeros((3, 2), np.int64), (2,), "2 users"),
        (np.zeros((2, 2), np.int64), (3,), "pad"),
        (np.full((2, 2), 5), (2,), "below 5"),
        (np.full((2, 2), -2), (2,), "below 5"),
        (np.zeros((2, 2), np.int64), (0,), "positive"),
        (np.zeros((2, 2), np.int64), (), "positive"),
    ],
)
def test_misuse_is_told(items, ks, words):
    with pytest.raises(ValueError, match=words):
        metrics.per_user(items, sparse.csr_matrix(np.ones((2, 5))), ks)


def test_fast_enough():
    rng = np.random.default_rng(0)
    B, I, K = 6000, 3700, 50
    items = rng.integers(0, I, (B, K))
    liked = rng.integers(0, I, B * 18)
    pos = sparse.csr_matrix((np.ones(B * 18), liked, np.arange(0, B * 18 + 1, 18)), shape=(B, I))
    metrics.per_user(items[:9], pos[:9], (10,))
    start = time.process_time()
    metrics.per_user(items, pos, (10, 20, 50))
    assert time.process_time() - start < 2.0
