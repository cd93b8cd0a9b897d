"""Boosted trees read a code that nobody told as missing, not as the neighbour of code 1."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fusionrec.evaluation.probabilities import Judged, measure
from fusionrec.ranking.base import Impressions, Known, Ranker, UserSet
from fusionrec.ranking.boosting import Boosting
from fusionrec.types import Interactions, ItemSet, Requests, item_order
from tests.contracts.world import strangers

USERS, ITEMS = 40, 43
KIND = np.arange(ITEMS) % 2
REGION = np.where(np.arange(USERS) < 4, 1, 2).astype(np.int32)  # one of ten lives in region 1
TREES = Boosting(tasks=("click", "rating"), trees=30)


def known() -> Known:
    x = np.stack([KIND * 4.0 - 2, np.linspace(-1, 1, ITEMS)], axis=1).astype(np.float32)
    ids = tuple(item_order(f"i{n}" for n in range(ITEMS)))
    items = ItemSet(ids, {"text": x}, {"text": np.ones(ITEMS, bool)}, {"text": np.zeros(ITEMS, np.int16)})
    users = UserSet(tuple(f"u{n}" for n in range(USERS)), {"region": REGION}, {"region": 3})
    none = np.zeros(0, np.int32)
    return Known(items, users, Interactions(none, none, None, USERS, ITEMS))


def shown(n: int, seed: int, by: str) -> Impressions:
    """One kind of items is liked on the rare surface (or in the rare region), the other one elsewhere; ratings are rows
    of their own, on no surface."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, USERS, n).astype(np.int32), rng.integers(0, ITEMS, n).astype(np.int32)
    surface = np.where(rng.random(n) < 0.05, 1, 2).astype(np.int16)
    odd = surface == 1 if by == "surface" else REGION[user] == 1
    click = (rng.random(n) < np.where((KIND[item] == 1) == odd, 0.6, 0.1)).astype(np.float32)
    alone = rng.random(n) < 0.1
    labels = {"click": np.where(alone, np.nan, click), "rating": np.where(alone, 3 + KIND[item], np.nan)}
    context = {"surface": np.where(alone, 0, surface).astype(np.int16)}
    return Impressions(user, item, None, context, {t: v.astype(np.float32) for t, v in labels.items()})


def fitted(by: str) -> Ranker:
    ranker = TREES.build()
    ranker.fit(shown(3000, 1, by), shown(500, 2, by), known())
    return ranker


def asked(test: Impressions, stranger: bool) -> Requests:
    nobody = strangers([[] for _ in range(len(test))], ITEMS)
    return nobody if stranger else replace(nobody, user=test.user.astype(np.int64))


def auc(ranker: Ranker, by: str) -> float:
    """Of clicks, asked by strangers where the region decides and without a surface where that does."""
    test = shown(800, 9, by)
    test = test.select(~np.isnan(test.labels["click"]))
    context = {"surface": test.context["surface"][:, None]} if by == "region" else None
    said = ranker.predict(asked(test, by == "region"), test.item[:, None].astype(np.int64), context)["click"][:, 0]
    return measure(Judged(test.user.astype(np.int64), test.labels["click"] > 0.5, said.astype(float)), 1).mean["auc"]


def test_an_unknown_surface_is_not_the_first_one() -> None:
    assert auc(fitted("surface"), "surface") > 0.7


def test_an_unknown_region_is_not_the_first_one() -> None:
    assert auc(fitted("region"), "region") > 0.65


def test_a_column_that_training_never_filled_says_nothing_then_and_later() -> None:
    ranker, again = fitted("surface"), TREES.build()
    again.restore(ranker.arrays(), known().items.ids)
    again.attach(known().items)
    again.meet(known().users)
    test = shown(200, 9, "surface")
    request, item = asked(test, False), test.item[:, None].astype(np.int64)
    said = [
        one.predict(request, item, {"surface": np.full((200, 1), at, np.int16)})
        for one in (ranker, again)
        for at in (0, 1, 2)
    ]
    for other in said[1:]:  # no rating was given on a surface
        np.testing.assert_array_equal(other["rating"], said[0]["rating"])
    for first, second in zip(said[:3], said[3:], strict=True):
        np.testing.assert_array_equal(first["click"], second["click"])
    assert np.abs(said[1]["click"] - said[2]["click"]).max() > 0.3
