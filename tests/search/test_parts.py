"""The vector side, the click side, weights and filters: known answers first."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from fusionrec.errors import UsageError
from fusionrec.fusion.space import MIN_GROUP
from fusionrec.search.clicks import ClickMap, Regression
from fusionrec.search.filters import Filters, checked
from fusionrec.search.learning import LEAST, Learnt, learn, means_of
from fusionrec.search.past import Past
from fusionrec.search.standard import Standard, unit
from fusionrec.search.weights import CLICKS, KEYWORD, UNTOLD, VECTOR, Weights, blend, choose, ndcg, places, standardised


def two_languages(n: int = 60, d: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """n things, each described in two languages that lie far apart: (2n, d) vectors, group, the thing's meaning."""
    rng = np.random.default_rng(3)
    meaning = rng.normal(size=(n, d))
    noise = rng.normal(scale=0.05, size=(2 * n, d))
    x = np.concatenate([meaning + 20, 3 * meaning - 30]) + noise
    return x.astype(np.float32), np.repeat([0, 1], n).astype(np.int16), meaning


def test_languages_come_together() -> None:
    x, group, meaning = two_languages()
    standard = Standard(x, np.ones(len(x), bool), group, ("en", "zh"))
    asked = standard.place((meaning + 20).astype(np.float32), ["en"] * len(meaning))
    found = standard.similarity(asked)
    other = found[:, len(meaning) :]
    assert (other.argmax(1) == np.arange(len(meaning))).all()  # the same thing in the other language
    raw = (x[: len(meaning)] @ x[len(meaning) :].T).argmax(1)
    assert (raw == np.arange(len(meaning))).mean() < 0.2


def test_a_small_group_takes_the_statistics_of_all_and_the_absent_say_nothing() -> None:
    x, group, _ = two_languages(n=MIN_GROUP)
    present = np.ones(len(x), bool)
    present[MIN_GROUP + 3 :] = False  # three items of zh are left
    standard = Standard(x, present, group, ("en", "zh"))
    assert not standard.rows[~present].any()
    np.testing.assert_allclose(np.linalg.norm(standard.rows[present], axis=1), 1, rtol=1e-5)
    some = standard.place(x[:1], ["zh"])
    np.testing.assert_allclose(some, standard.place(x[:1], ["fr"]), rtol=1e-6)


def test_the_mean_of_earlier_queries_is_taken_where_it_is_known() -> None:
    x, group, meaning = two_languages()
    standard = Standard(x, np.ones(len(x), bool), group, ("en", "zh"))
    queries = (meaning + 5).astype(np.float32)  # short texts lie elsewhere
    means = means_of(queries, ["en"] * len(queries))
    assert means_of(queries[:5], ["en"] * 5) == {}
    right = standard.similarity(standard.place(queries, ["en"] * len(queries), means))[:, : len(meaning)]
    assert (right.argmax(1) == np.arange(len(meaning))).all()


def test_standardised_scores_by_hand() -> None:
    s = np.array([[1, 2, 3, 10, 20], [5, 5, 5, 5, 5]], np.float32)
    group = np.array([0, 0, 0, 1, 1], np.int16)
    np.testing.assert_allclose(standardised(s, group), [[-np.sqrt(1.5), 0, np.sqrt(1.5), -1, 1], [0] * 5], atol=1e-6)
    found = standardised(s)
    np.testing.assert_allclose(found.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(found.std(1), [1, 0], atol=1e-6)


def test_places_and_ndcg_by_hand() -> None:
    scores = np.array([[5, 4, 3, 2, 1], [1, 1, 1, 1, 1]], np.float32)
    wanted = [np.array([0, 2]), np.array([4])]
    assert [p.tolist() for p in places(scores, wanted)] == [[0, 2], [2]]  # a tie of five: two of the others are ahead
    ideal = 1 + 1 / np.log2(3)
    np.testing.assert_allclose(ndcg(scores, wanted, 3), [(1 + 1 / np.log2(4)) / ideal, 1 / np.log2(4)])
    np.testing.assert_allclose(ndcg(scores, wanted, 2), [1 / ideal, 0])


def test_the_best_weights_are_chosen() -> None:
    rng = np.random.default_rng(0)
    wanted = [np.array([at % 17]) for at in range(40)]
    good = rng.normal(size=(40, 17)).astype(np.float32)
    for at, one in enumerate(wanted):
        good[at, one] += 6
    noise = {name: rng.normal(size=(40, 17)).astype(np.float32) * 3 for name in (KEYWORD, VECTOR)}
    weights, reached = choose({**noise, CLICKS: good}, wanted)
    assert weights.clicks == 1 and reached > 0.9
    alone, worse = choose(noise, wanted)
    assert alone.clicks == 0 and worse < reached
    np.testing.assert_allclose(blend({CLICKS: good}, weights), good)


def clicked_by_rotation(n: int, d: int = 6, items: int = 40, seed: int = 1) -> tuple[Past, np.ndarray, np.ndarray]:
    """n queries; what is clicked lies where a fixed rotation of the query's vector points."""
    rng = np.random.default_rng(seed)
    space = unit(rng.normal(size=(items, d)).astype(np.float32))
    turn = np.linalg.qr(np.random.default_rng(9).normal(size=(d, d)))[0]
    target = rng.integers(0, items, n)
    queries = (space[target] @ turn + 0.1 * rng.normal(size=(n, d))).astype(np.float32)
    texts = [f"word{t % 5} common" for t in target]
    past = Past(texts, [f"u{k % 7}" for k in range(n)], target, [np.array([t]) for t in target])
    return past, queries, space


def test_the_click_map_finds_a_rotation() -> None:
    past, queries, space = clicked_by_rotation(300)
    found = Regression(queries, past.clicked, space).cut(6)
    later, asked, _ = clicked_by_rotation(50)
    assert ndcg(found.scores(asked), later.clicked, 3).mean() > 0.8
    assert ndcg(asked @ space.T, later.clicked, 3).mean() < 0.3  # without the map
    back = ClickMap.restore(found.arrays())
    np.testing.assert_array_equal(back.scores(asked), found.scores(asked))


def test_learning_from_a_log() -> None:
    past, queries, space = clicked_by_rotation(400)
    rng = np.random.default_rng(5)

    def plain(some: Past) -> dict[str, np.ndarray]:
        return {name: rng.normal(size=(len(some), len(space))).astype(np.float32) for name in (KEYWORD, VECTOR)}

    noise = rng.normal(size=space.shape).astype(np.float32)
    learnt = learn(past, queries, plain, {"noise": noise, "text": space})
    assert learnt.map is not None and learnt.weights.clicks == 1
    assert learnt.told["modalities"] == ["text"]  # what foretells nothing does not join
    assert learnt.told["ndcg@10"] > learnt.told["ndcg@10 without clicks"]
    assert learnt.for_query("common word3") == learnt.weights
    assert learnt.for_query("Fjordby") == UNTOLD  # the log never heard of it
    half = learnt.for_query("common fjordby")
    assert half.clicks == pytest.approx(0.5 * learnt.weights.clicks)


def test_a_word_of_few_people_is_not_kept() -> None:
    past, queries, space = clicked_by_rotation(300)
    texts = [f"{text} secret{user}" for text, user in zip(past.texts, past.users, strict=True)]  # often, by one each
    theirs = Past(texts, past.users, past.first, past.clicked)
    noise = np.random.default_rng(4).normal(size=(300, len(space))).astype(np.float32)
    learnt = learn(theirs, queries, lambda some: {KEYWORD: noise[: len(some)]}, {"text": space})
    assert learnt.words == {"common", *(f"word{n}" for n in range(5))}


def test_few_queries_teach_nothing() -> None:
    past, queries, space = clicked_by_rotation(LEAST - 1)
    learnt = learn(past, queries, lambda some: {}, {"text": space})
    assert learnt == Learnt(told={"queries": LEAST - 1})
    assert learnt.for_query("common") == UNTOLD


def test_clicks_without_reason_are_not_believed() -> None:
    past, queries, space = clicked_by_rotation(300)
    rng = np.random.default_rng(2)
    dealt = rng.permutation(len(past))
    shuffled = Past(past.texts, past.users, past.first[dealt], [past.clicked[d] for d in dealt])

    def plain(some: Past) -> dict[str, np.ndarray]:
        rows = np.eye(len(space), dtype=np.float32)[some.first]
        return {KEYWORD: rows, VECTOR: rows}

    learnt = learn(shuffled, queries, plain, {"text": space})
    assert learnt.weights.clicks == 0 and learnt.map is None


ITEMS = pl.DataFrame(
    {
        "item_id": ["a", "b", "c", "d", "e", "f"],
        "category": ["Vase", "mug", "mug", None, "lamp", None],
        "price": [10.0, 20.0, None, 40.0, 50.0, None],
        "in_stock": [True, False, True, True, None, None],
        "language": ["en", "zh-Hans", "EN", None, "zh", "zh_Hant"],
        "brand": pl.Series([None] * 6, dtype=pl.String),
    }
)


@pytest.mark.parametrize(
    "settings, kept",
    [
        ({}, "abcdef"),
        ({"category": ("vase",)}, "a"),
        ({"category": ("MUG", "lamp")}, "bce"),
        ({"in_stock": True}, "acd"),
        ({"min_price": 20}, "bde"),
        ({"min_price": 10, "max_price": 40}, "abd"),
        ({"language": "zh"}, "bef"),
        ({"language": "ZH-Hant"}, "bef"),
        ({"in_stock": True, "max_price": 10.0}, "a"),
        ({"min_price": 1000}, ""),
    ],
)
def test_filters_by_hand(settings: dict[str, object], kept: str) -> None:
    mask = checked(**settings).mask(ITEMS)
    assert "".join(ITEMS["item_id"].filter(pl.Series(mask))) == kept


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"category": ("mugs",)}, "did you mean 'mug'"),
        ({"category": ("\x1b[31mzzzz",)}, r"no item has the category '\\u001b\[31mzzzz'; found lamp, mug, vase"),
        ({"language": "zhh"}, "--language: no item is described in 'zhh'; did you mean 'zh'"),
        ({"language": "fr"}, "no item is described in 'fr'; found en, zh"),
        ({"min_price": 5, "max_price": 2}, "--min-price 5 is above --max-price 2"),
        ({"max_price": float("nan")}, "expected a number"),
        ({"category": 7}, "filter category"),
        ({"colour": "red"}, "filter colour"),
    ],
)
def test_filters_that_cannot_be(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        checked(**settings).mask(ITEMS)


def test_a_column_that_the_catalogue_lacks_is_told() -> None:
    with pytest.raises(UsageError, match="--in-stock: this catalogue has no in_stock"):
        Filters(in_stock=True).mask(ITEMS.drop("in_stock"))
    with pytest.raises(UsageError, match="no price"):
        Filters(max_price=3).mask(ITEMS.with_columns(price=pl.lit(None, pl.Float64)))


def test_weights_mix_by_share() -> None:
    assert Weights(1, 0, 1).mixed(Weights(0, 1, 0), 0.25) == Weights(0.25, 0.75, 0.25)
