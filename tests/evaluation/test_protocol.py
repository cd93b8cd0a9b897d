"""Full ranking, slices and the random baseline, against dense loops over the whole score matrix."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from fusionrec.evaluation import metrics, slices
from fusionrec.evaluation.protocol import evaluate, take
from fusionrec.types import Requests


def parts_of(world, requests=None):
    return slices.build(requests or world.requests, world.positives, world.cold, world.items.present)


def by_hand(scores, history, positives, candidates, k):
    """NDCG@k and Recall@k of one user by sorting everything in Python."""
    order = [
        i for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)) if candidates[i] and i not in history
    ][:k]
    gain = sum(1 / np.log2(r + 2) for r, i in enumerate(order) if i in positives)
    ideal = sum(1 / np.log2(r + 2) for r in range(min(k, len(positives))))
    return gain / ideal, len(set(order) & positives) / len(positives)


def test_every_slice_equals_the_loop(world):
    model = world.model()
    got = evaluate(model, world.requests, parts_of(world), (3, 7), block=16)
    scores = model.score(world.requests)
    everything, image = np.ones(len(world.cold), bool), world.items.present["image"]
    cases = {
        "all": (everything, everything),
        "warm": (~world.cold, everything),
        "cold": (world.cold, everything),
        "cold_only": (world.cold, world.cold),
        "missing_image": (~image, everything),
    }
    for name, (about, candidates) in cases.items():
        checked = 0
        for u in range(len(world.users)):
            positives = {i for i in world.positives[u].indices if about[i]}
            ndcg, recall = got.values[name]["ndcg@7"][u], got.values[name]["recall@7"][u]
            if not positives:
                assert np.isnan(ndcg) and np.isnan(recall)
                continue
            expected = by_hand(scores[u], set(world.history[u].indices), positives, candidates, 7)
            assert (ndcg, recall) == pytest.approx(expected), (name, u)
            checked += 1
        assert checked > 10, name
    assert got.mean("missing_text", "ndcg@7") == (0.0, 0)  # every item has a text


def test_blocks_and_order_of_users_change_nothing(world):
    model, parts = world.model(), parts_of(world)
    one = evaluate(model, world.requests, parts, (5,), block=1)
    all_ = evaluate(model, world.requests, parts, (5,), block=1000)
    order = np.random.default_rng(0).permutation(len(world.users))
    moved = take(world.requests, order)
    others = slices.build(moved, world.positives[order], world.cold, world.items.present)
    shuffled = evaluate(model, moved, others, (5,))
    for part in parts:
        np.testing.assert_array_equal(one.lists[part.name], all_.lists[part.name])
        for metric, v in one.values[part.name].items():
            np.testing.assert_array_equal(v, all_.values[part.name][metric])
            np.testing.assert_array_equal(shuffled.values[part.name][metric], v[order])


def test_memory_is_bounded_by_the_block(world):
    model, seen = world.model(), []
    score = model.score
    model.score = lambda requests: (seen.append(len(requests)), score(requests))[1]
    evaluate(model, world.requests, parts_of(world), (5,), block=9)
    assert max(seen) == 9


def test_seen_items_never_appear_and_cold_only_lists_are_cold(world):
    got = evaluate(world.model(), world.requests, parts_of(world), (10,))
    assert not metrics.hits(got.lists["all"], world.history).any()
    shown = got.lists["cold_only"][got.lists["cold_only"] >= 0]
    assert len(shown) and world.cold[shown].all()


def test_users_split_into_cold_and_terciles(world):
    user = world.requests.user.copy()
    user[:7] = -1
    history = world.history.tolil()
    for u in range(7, 30):
        history[u, world.history[u].indices[1:]] = 0  # one item left
    requests = Requests(user, history.tocsr())
    requests.history.eliminate_zeros()
    parts = {p.name: p for p in parts_of(world, requests)}
    who = {n: set(np.flatnonzero(np.diff(p.positives.indptr))) for n, p in parts.items()}
    assert who["cold_users"] == set(range(7))
    assert who["activity_low"] == set(range(7, 30))
    assert who["activity_low"] | who["activity_mid"] | who["activity_high"] == set(range(7, 60))
    assert who["activity_mid"] | who["activity_high"] == set(range(30, 60))
    # warm and cold share out the positives of all
    assert parts["warm"].positives.nnz + parts["cold"].positives.nnz == parts["all"].positives.nnz == 180


def test_random_recall_is_what_random_rankings_get(world):
    part = next(p for p in parts_of(world) if p.name == "cold_only")
    expected = slices.random_recall(world.requests, part, 4)
    rng = np.random.default_rng(0)

    class Random:
        def recommend(self, requests, k, candidates=None, block=0):
            lists = np.full((len(requests), k), -1)
            for u in range(len(requests)):
                free = np.flatnonzero(candidates & (requests.history[u].toarray()[0] == 0))
                lists[u] = rng.permutation(free)[:k]
            return lists, lists.astype(np.float32)

    simulated = np.mean(
        [evaluate(Random(), world.requests, [part], (4,)).values["cold_only"]["recall@4"] for _ in range(300)], axis=0
    )
    assert (np.isnan(simulated) == np.isnan(expected)).all()
    assert np.nanmean(expected) == pytest.approx(np.nanmean(simulated), abs=0.006)
    assert np.nanmean(expected) == pytest.approx(4 / 25, abs=1e-12)  # no cold item was seen


def test_random_recall_leaves_out_what_was_seen():
    """4 candidates, 1 seen, k=2: 2/3 of the unseen positives; the seen positive can never be found."""
    requests = Requests(np.array([0]), sparse.csr_matrix([[1.0, 0, 0, 0, 1]]))
    part = slices.Slice("x", sparse.csr_matrix([[1.0, 1, 0, 0, 0]]), np.array([True, True, True, True, False]))
    assert slices.random_recall(requests, part, 2)[0] == pytest.approx(0.5 * 2 / 3)
    assert slices.random_recall(requests, part, 9)[0] == pytest.approx(0.5)


def test_one_user_one_item():
    """X30: the only item is seen: an empty list, metrics 0 with n = 1, nothing is NaN but absent slices."""

    class Only:
        def recommend(self, requests, k, candidates=None, block=0):
            return np.full((len(requests), k), -1), np.full((len(requests), k), -np.inf, np.float32)

    requests = Requests(np.array([0]), sparse.csr_matrix([[1.0]]))
    got = evaluate(Only(), requests, slices.build(requests, sparse.csr_matrix([[1.0]]), np.array([False]), {}), (1, 20))
    assert got.mean("all", "ndcg@20") == (0.0, 1) and got.mean("cold", "recall@1") == (0.0, 0)


def test_misuse_is_told(world):
    part = parts_of(world)[0]
    with pytest.raises(ValueError, match="different names"):
        evaluate(world.model(), world.requests, [part, part])
    with pytest.raises(ValueError, match="cold flags"):
        slices.build(world.requests, world.positives, world.cold[:-1], {})
