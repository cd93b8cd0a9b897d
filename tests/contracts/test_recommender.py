"""What a Recommender promises whatever it is made of: the answers of :meth:`Retriever.recommend`, in every stage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fusionrec.evaluation.metrics import per_user
from fusionrec.ranking.base import Impressions, Known, UserSet
from fusionrec.ranking.rerankers.base import Reranker
from fusionrec.ranking.rerankers.mmr import MMR
from fusionrec.recommenders.blend import standardise
from fusionrec.recommenders.popularity import Popularity
from fusionrec.recommenders.recommender import Recommender
from fusionrec.recommenders.trust import TRUSTS, choose_trust
from fusionrec.recommenders.validation import validation_requests
from fusionrec.types import Float32, Int64, ItemSet
from tests.contracts import world as w
from tests.contracts.toys import NextItem, TwoTask

B, K = 5, 3
PARTS = ("popularity", "sequential", "ranker", "sequential ranker", "ranker even", "popularity mmr", "ranker mmr")


class EvenFirst(Reranker):
    """Puts items with an even row first, keeping the order otherwise; the place is the score."""

    depth = 7

    def attach(self, items: ItemSet) -> None:
        pass

    def rerank(self, items: Int64, scores: Float32, k: int) -> tuple[Int64, Float32]:
        order = np.argsort(items % 2 + 2 * (items < 0), axis=1, kind="stable")[:, :k]
        found = np.take_along_axis(items, order, 1)
        value = np.where(found < 0, -np.inf, -np.arange(found.shape[1])[None, :])
        return found, value.astype(np.float32)


RERANKERS = {"even": EvenFirst(), "mmr": MMR(diversity=0.5, depth=9).build()}


def made(parts: str) -> tuple[Recommender, w.World]:
    data = w.world()
    retriever = (NextItem() if "sequential" in parts else Popularity()).build()
    retriever.fit(data.train, data.valid, data.items)
    ranker = None
    if "ranker" in parts:
        ranker = TwoTask().build()
        n = len(data.items)
        click = np.arange(n) % 3 == 0
        labels = {"click": click.astype(np.float32), "conversion": click.astype(np.float32)}
        shown = Impressions(np.zeros(n, np.int32), np.arange(n, dtype=np.int32), None, {}, labels)
        users = UserSet(tuple(f"u{u}" for u in range(w.USERS)))
        ranker.fit(shown, shown, Known(data.items, users, data.train))
    recommender = Recommender(retriever, ranker, RERANKERS.get(parts.rpartition(" ")[2]), depth=7)
    if recommender.reranker is not None:
        recommender.reranker.attach(data.items)
    return recommender, data


@pytest.mark.parametrize("parts", PARTS)
class TestEveryCombination:
    def test_answers_keep_the_retrievers_promises(self, parts: str) -> None:
        recommender, data = made(parts)
        request = w.requests(data.train, [7, 2, 30, 0, 11])
        allowed = np.arange(w.ITEMS) % 5 != 0
        items, scores = recommender.recommend(request, K, allowed)
        assert items.shape == scores.shape == (B, K)
        assert (items.dtype, scores.dtype) == (np.int64, np.float32)
        assert ((items == -1) == np.isneginf(scores)).all()
        for row in range(B):
            real = items[row][items[row] >= 0]
            assert allowed[real].all()
            assert not set(real.tolist()) & set(request.history[row].indices.tolist())
            assert len(set(real.tolist())) == len(real)
        assert (scores[:, 1:] <= scores[:, :-1]).all()

    def test_the_same_request_gets_the_same_answer(self, parts: str) -> None:
        recommender, data = made(parts)
        request = w.requests(data.train, [7, 2, 30, 0, 11])
        first, again = recommender.recommend(request, K), made(parts)[0].recommend(request, K)
        np.testing.assert_array_equal(first[0], again[0])
        np.testing.assert_array_equal(first[1], again[1])

    def test_a_list_begins_as_every_longer_one(self, parts: str) -> None:
        """Rankers and re-rankers look at seven and nine candidates: a longer list has others behind, not before."""
        recommender, data = made(parts)
        recommender.trust = 0.5 if "ranker" in parts else 0.0
        request = w.requests(data.train, [7, 2, 30, 0, 11])
        items, scores = recommender.recommend(request, w.ITEMS + 5)
        assert items.shape == (B, w.ITEMS + 5) and (scores[:, 1:] <= scores[:, :-1]).all()
        for k in (1, K, 7, 8, 9, 10, 20):
            shorter, values = recommender.recommend(request, k)
            np.testing.assert_array_equal(shorter, items[:, :k])
            np.testing.assert_array_equal(values, scores[:, :k])
        everything = Recommender(recommender.retriever).recommend(request, w.ITEMS + 5)[0]
        assert [set(row) for row in items.tolist()] == [set(row) for row in everything.tolist()]


@pytest.mark.parametrize("parts", ["popularity", "sequential", "ranker", "ranker mmr"])
def test_attach_reaches_retriever_and_ranker(parts: str) -> None:
    recommender, data = made(parts)
    recommender.depth = w.ITEMS  # equally popular items are cut by their row, which changes here
    rows = np.random.default_rng(3).permutation(w.ITEMS)
    request = w.requests(data.train, [7, 2, 30, 0, 11])
    before = recommender.recommend(request, K)[1]
    recommender.attach(w.rearranged(data.items, rows))
    np.testing.assert_allclose(recommender.recommend(w.columns(request, rows), K)[1], before, rtol=1e-5)


def test_trust_decides_between_retrievals_order_and_the_rankers() -> None:
    recommender, data = made("ranker")
    request = w.requests(data.train, [7, 2, 30, 0, 11])
    alone = Recommender(recommender.retriever).recommend(request, K)[0]
    by_ranker = recommender.recommend(request, K)[0]
    assert by_ranker.tolist() != alone.tolist()
    for trust, wanted in ((1.0, alone), (0.0, by_ranker)):
        found = replace(recommender, trust=trust).recommend(request, K)
        np.testing.assert_array_equal(found[0], wanted)
        assert np.isfinite(found[1]).all()
    items, near, wish = recommender.judged(request, 7)
    assert wish.shape == near.shape == items.shape == (B, 7)
    half = replace(recommender, trust=0.5)
    by_hand = 0.5 * standardise(near) + 0.5 * standardise(np.log(wish))
    order = np.argsort(-by_hand, axis=1, kind="stable")[:, :K]
    np.testing.assert_array_equal(half.recommend(request, K)[0], np.take_along_axis(items, order, 1))
    with pytest.raises(ValueError, match="has no ranker"):
        Recommender(recommender.retriever).judged(request, 7)


def test_validation_chooses_the_trust_and_prefers_retrieval_among_equals() -> None:
    recommender, data = made("ranker")
    tasks = recommender.ranker.tasks
    found = choose_trust(recommender, data.train, data.valid, tasks, "recall@20")
    values = [value for *_, value in found]
    assert len(found) == len(TRUSTS) * len(tasks) > len(TRUSTS) and values == sorted(values, reverse=True)
    best = [(-trust, tasks.index(task)) for task, trust, value in found if value == values[0]]
    assert (-found[0][1], tasks.index(found[0][0])) == min(best)
    for task, trust, value in found:
        lists = replace(recommender, task=task, trust=trust).recommend(
            validation_requests(data.train, data.valid)[0], 20
        )[0]
        positives = validation_requests(data.train, data.valid)[1]
        assert value == pytest.approx(float(np.nanmean(per_user(lists, positives, (20,))["recall@20"])))
    assert choose_trust(recommender, data.train, data.valid.select(np.zeros(len(data.valid), bool)), tasks) == []
