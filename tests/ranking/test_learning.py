"""Rankers find what was planted: what content says, what a place in the list costs, what follows a click."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from scipy import sparse
from sklearn.ensemble import HistGradientBoostingClassifier

from fusionrec.evaluation.probabilities import Judged, measure
from fusionrec.ranking import AnyRanker
from fusionrec.ranking.base import Impressions, Known, Ranker, UserSet
from fusionrec.ranking.boosting import _plain, _walk
from fusionrec.ranking.deep import DeepRanker
from fusionrec.ranking.past import Past
from fusionrec.ranking.rows import Rows
from fusionrec.types import Interactions, ItemSet, Requests, item_order

USERS, ITEMS, PLACES = 150, 60, 6
SEEN = 1 / np.sqrt(np.arange(1, PLACES + 1))
DEEP = {"epochs": 8, "batch": 256, "lr": 0.006}


class World:
    """Two kinds of users and items; a kind likes its own; lists are in random order, later places are seen less.
    Purchases follow clicks, more often on even items. The last ten items are shown after training only."""

    def __init__(self, n: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        kind, taste = np.arange(ITEMS) % 2, np.arange(USERS) % 2
        x = np.random.default_rng(0).normal(size=(ITEMS, 9)).astype(np.float32) * 0.5
        x[:, 0] += np.where(kind, 2, -2)
        ids = tuple(item_order(f"item-{i}" for i in range(ITEMS)))
        here = np.ones(ITEMS, bool)
        self.items = ItemSet(ids, {"text": x}, {"text": here}, {"text": np.zeros(ITEMS, np.int16)})
        self.user = rng.integers(0, USERS, n).astype(np.int32)
        self.item = rng.integers(0, ITEMS - 10 if seed == 1 else ITEMS, n).astype(np.int32)
        place = rng.integers(1, PLACES + 1, n)
        self.wish = np.where(kind[self.item] == taste[self.user], 0.7, 0.15)
        self.click = rng.random(n) < self.wish * SEEN[place - 1]
        bought = self.click & (rng.random(n) < np.where(self.item % 4 < 2, 0.5, 0.1))
        self.time = np.arange(n, dtype=np.int64) + seed * 10**9
        labels = {"click": self.click.astype(np.float32), "conversion": bought.astype(np.float32)}
        labels["rating"] = np.where(bought, 3.0 + (kind[self.item] == taste[self.user]), np.nan).astype(np.float32)
        self.shown = Impressions(self.user, self.item, self.time, {"position": place.astype(np.int16)}, labels)

    def known(self) -> Known:
        liked = self.click
        history = Interactions(self.user[liked], self.item[liked], self.time[liked], USERS, ITEMS)
        return Known(self.items, UserSet(tuple(f"u{n}" for n in range(USERS))), history)


TRAIN, VALID, TEST = World(6000, 1), World(1500, 2), World(4000, 3)


@cache
def fitted(kind: str, content: bool = True, head: str = "shared_bottom") -> Ranker:
    section: dict[str, object] = {"kind": kind, "tasks": ("click", "conversion", "rating")}
    if kind in ("concat_dense", "dcn_v2", "deepfm"):
        section |= {"training": DEEP, "head": {"kind": head}}
    ranker: Ranker = TypeAdapter(AnyRanker).validate_python(section).build()
    known = TRAIN.known()
    if not content:
        known = Known(known.items.only(), known.users, known.history)
    ranker.fit(TRAIN.shown, VALID.shown, known)
    return ranker


def predicted(ranker: Ranker, task: str = "click", placed: bool = True) -> np.ndarray:
    history = TRAIN.known().history.matrix()[TEST.user]
    context = {"position": TEST.shown.context["position"][:, None]} if placed else None
    request = Requests(TEST.user.astype(np.int64), history)
    return ranker.predict(request, TEST.item[:, None].astype(np.int64), context)[task][:, 0]


def auc(p: np.ndarray, y: np.ndarray) -> float:
    return measure(Judged(TEST.user.astype(np.int64), y > 0.5, p.astype(np.float64)), repeats=1).mean["auc"]


@pytest.mark.parametrize("kind", ["boosting", "concat_dense", "dcn_v2", "deepfm", "logistic"])
def test_clicks_are_told_almost_as_well_as_by_the_truth(kind: str) -> None:
    y = TEST.shown.labels["click"]
    truth = auc(TEST.wish * SEEN[TEST.shown.context["position"] - 1], y)
    p = predicted(fitted(kind))
    assert auc(p, y) > truth - 0.05, (auc(p, y), truth)
    assert measure(Judged(TEST.user.astype(np.int64), y > 0.5, p.astype(float)), repeats=1).mean["ece"] < 0.05


def test_a_task_weighs_as_much_as_it_has_labels() -> None:
    """A rating on every tenth row that weighed as much as all clicks would be learnt by heart."""
    ranker, rows = fitted("deepfm"), np.arange(500)
    assert isinstance(ranker, DeepRanker)
    part = Rows(ranker, VALID.shown, Past(TRAIN.known().history, ranker.spec.last))
    with torch.no_grad():
        said = {task: v.double().numpy() for task, v in ranker.net(ranker._inputs(part.at(rows), None)).items()}
        whole = float(ranker._loss(part, rows, None))
    label = {task: part.labels[task][rows].astype(np.float64) for task in ranker.tasks}
    assert 0 < np.isfinite(label["rating"]).mean() < 0.2
    p = {task: np.exp(said[task]) for task in ("click", "conversion")}
    each = [-(label[t] * np.log(p[t]) + (1 - label[t]) * np.log(1 - p[t])) for t in p]
    each.append(0.5 * (said["rating"] - label["rating"]) ** 2)
    assert whole == pytest.approx(sum(np.nansum(loss) for loss in each) / len(rows), rel=1e-5)


@pytest.mark.parametrize("kind", ["dcn_v2", "deepfm"])
def test_items_that_training_never_showed_are_judged_by_their_content(kind: str) -> None:
    new = TEST.item >= ITEMS - 10
    y, users = TEST.shown.labels["click"][new], TEST.user[new].astype(np.int64)

    def of(content: bool) -> float:
        p = predicted(fitted(kind, content))[new].astype(float)
        return measure(Judged(users, y > 0.5, p), repeats=1).mean["auc"]

    assert of(True) > of(False) + 0.1


@pytest.mark.parametrize("kind", ["dcn_v2", "deepfm", "concat_dense"])
def test_what_a_place_costs_is_learnt_and_left_out_of_serving(kind: str) -> None:
    ranker = fitted(kind)
    seen = np.exp(ranker.net.examination.log_seen().detach().numpy())[1:]  # type: ignore[attr-defined]
    assert np.abs(seen - SEEN).max() < 0.12, seen
    first = predicted(ranker, placed=False)
    placed = predicted(ranker)
    np.testing.assert_allclose(placed, first * seen[TEST.shown.context["position"] - 1], rtol=1e-4)


def test_places_that_training_did_not_show_are_guessed_from_those_that_it_did() -> None:
    """Lists of six, and one row far below: what is between is no better seen than the sixth place. A rating's row says
    nothing of how its place is seen."""
    few = TRAIN.shown.select(np.arange(1500))
    place, labels = few.context["position"].copy(), {task: label.copy() for task, label in few.labels.items()}
    place[:2], place[2] = (30, 90), 60
    labels["click"][2:200], labels["rating"][2:200] = np.nan, 3
    place[3:200] = 0
    shown = Impressions(few.user, few.item, few.time, {"position": place}, labels)
    section = {"kind": "deepfm", "tasks": ("click", "rating"), "training": {**DEEP, "epochs": 2}}
    ranker, again = (TypeAdapter(AnyRanker).validate_python(section).build() for _ in range(2))
    ranker.fit(shown, VALID.shown, TRAIN.known())
    again.restore(ranker.arrays(), ranker.fit_ids)
    again.attach(TRAIN.items)
    request, item = Requests(np.arange(1), TRAIN.known().history.matrix()[:1]), np.full((1, 9), 7)
    asked = {"position": np.array([[6, 7, 29, 30, 60, 89, 90, 120, 0]], np.int16)}
    said = ranker.predict(request, item, asked)["click"][0]
    np.testing.assert_array_equal(said[[1, 2]], said[0])
    np.testing.assert_array_equal(said[[4, 5]], said[3])
    assert said[7] == said[6]
    at_each = {"position": np.arange(1, 7, dtype=np.int16)[None]}
    each = ranker.predict(request, item[:, :6], at_each)["click"][0]
    assert said[8] == pytest.approx(each.mean(), rel=0.05), "nobody knows where: as anywhere"
    np.testing.assert_array_equal(again.predict(request, item, asked)["click"][0], said)


def test_a_network_of_before_places_were_counted_says_what_it_said() -> None:
    ranker, older = fitted("deepfm"), TypeAdapter(AnyRanker).validate_python({"kind": "deepfm"}).build()
    older.restore({name: array for name, array in ranker.arrays().items() if name != "met"}, ranker.fit_ids)
    older.attach(TRAIN.items)
    np.testing.assert_array_equal(predicted(older), predicted(ranker))


@pytest.mark.parametrize("head", ["shared_bottom", "mmoe", "esmm"])
def test_purchases_and_ratings_are_told_too(head: str) -> None:
    ranker = fitted("deepfm", head=head)
    assert auc(predicted(ranker, "conversion"), TEST.shown.labels["conversion"]) > 0.7
    rating, there = TEST.shown.labels["rating"], ~np.isnan(TEST.shown.labels["rating"])
    off = predicted(ranker, "rating")[there] - rating[there]
    assert np.sqrt((off**2).mean()) < 0.9 * rating[there].std()
    everything = predicted(ranker, "rating")
    assert everything.min() >= 3 and everything.max() <= 4, "what training met"


def test_the_trees_walked_here_say_what_the_library_says() -> None:
    ranker = fitted("boosting")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 5))
    y = x[:, 0] * x[:, 1] > 0.2
    model = HistGradientBoostingClassifier(max_iter=40, early_stopping=False).fit(x, y)
    from fusionrec.ranking.boosting import _forest

    forest = _forest([group[0].nodes for group in model._predictors], float(np.ravel(model._baseline_prediction)[0]))
    other = rng.normal(size=(300, 5))
    np.testing.assert_allclose(1 / (1 + np.exp(-_walk(forest, other))), model.predict_proba(other)[:, 1], rtol=1e-9)
    assert _plain and ranker.tasks == ("click", "conversion", "rating")


def test_a_task_without_labels_is_left_out_and_one_outcome_alone_is_learnt() -> None:
    always = TRAIN.shown.select(TRAIN.shown.labels["click"] == 1)
    for kind in ("boosting", "logistic", "deepfm"):
        section = {"kind": kind, "tasks": ("click", "ad_click")}
        ranker = TypeAdapter(AnyRanker).validate_python(section).build()
        ranker.fit(always, always.select(np.zeros(len(always), bool)), TRAIN.known())
        assert ranker.tasks == ("click",)
        p = predicted(ranker, placed=False)
        assert (p > 0.9).mean() > 0.9 and (p <= 1).all()


def test_validation_rows_without_a_label_stop_nothing() -> None:
    """The rows are there, and what the ranker learns is unknown of all of them: as if there were none."""
    train, later = TRAIN.shown.select(np.arange(400)), VALID.shown.select(np.arange(100))
    later = replace(later, labels={**later.labels, "click": np.full(100, np.nan, np.float32)})
    section = {"kind": "deepfm", "tasks": ("click",), "training": {**DEEP, "epochs": 5, "patience": 2}}
    found, epochs = [], []
    for valid in (later, later.select(np.zeros(100, bool))):
        ranker: Ranker = TypeAdapter(AnyRanker).validate_python(section).build()
        ranker.fit(train, valid, TRAIN.known(), watch=lambda epoch, _: epochs.append(epoch))
        found.append(ranker.arrays())
    assert epochs == [*range(len(epochs) // 2)] * 2 and len(epochs) >= 10
    for name, array in found[0].items():
        np.testing.assert_array_equal(found[1][name], array)


def rated_often(item: np.ndarray) -> np.ndarray:
    return item % 3 == 0


def test_what_an_item_was_rated_before_is_read_by_the_fusion_and_new_items_lack_it() -> None:
    """Nothing but earlier ratings tells which items are clicked: ids are hidden and there is no content."""

    def shown(world: World) -> Impressions:
        good = rated_often(world.item)
        click = (np.random.default_rng(5).random(len(good)) < np.where(good, 0.6, 0.1)).astype(np.float32)
        rating = np.where(np.arange(len(good)) % 4 == 0, np.where(good, 5.0, 2.0), np.nan).astype(np.float32)
        return Impressions(world.user, world.item, world.time, {}, {"click": click, "rating": rating})

    section = {"kind": "deepfm", "ids": False, "past_rating": True, "tasks": ("click",), "training": DEEP}
    ranker: Ranker = TypeAdapter(AnyRanker).validate_python(section).build()
    known = Known(TRAIN.items.only(), TRAIN.known().users, TRAIN.known().history)
    ranker.fit(shown(TRAIN), shown(VALID), known)
    again: Ranker = TypeAdapter(AnyRanker).validate_python(section).build()
    again.restore(ranker.arrays(), ranker.fit_ids)
    again.attach(TRAIN.items.only())
    request = Requests(np.arange(3), TRAIN.known().history.matrix()[:3])
    items = np.tile(np.arange(ITEMS), (3, 1))
    said = again.predict(request, items)["click"]
    np.testing.assert_array_equal(said, ranker.predict(request, items)["click"])
    old = np.isin(np.arange(ITEMS), TRAIN.item)
    good = rated_often(np.arange(ITEMS))
    assert abs(said[:, old & good].mean() - 0.6) < 0.1 and abs(said[:, old & ~good].mean() - 0.1) < 0.08
    assert len(np.unique(said[0, ~old])) == 1, "nobody has rated the new ones"


def test_a_request_knows_the_ratings_before_it_alone() -> None:
    """Every other item is rated 5 from noon on; whoever asks in the morning is told of the morning, also by a ranker
    that was written and read again."""
    rng, n, noon = np.random.default_rng(1), 1500, 500
    time, item = rng.integers(0, 1000, n), rng.integers(0, ITEMS, n)
    good = item % 2 == 1
    rating = np.where((time >= noon) & good, 5.0, 3.0) + rng.normal(0, 0.3, n)
    user, labels = rng.integers(0, USERS, n).astype(np.int32), {"rating": rating.astype(np.float32)}
    shown = Impressions(user, item.astype(np.int32), time.astype(np.int64), {}, labels)
    none = np.zeros(0, np.int32)
    known = Known(TRAIN.items.only(), TRAIN.known().users, Interactions(none, none, None, USERS, ITEMS))
    how = {**DEEP, "epochs": 3}
    section = {"kind": "deepfm", "ids": False, "past_rating": True, "tasks": ("rating",), "training": how}
    ranker, again = (TypeAdapter(AnyRanker).validate_python(section).build() for _ in range(2))
    ranker.fit(shown, shown.select(rng.random(n) < 0.2), known)
    again.restore(ranker.arrays(), ranker.fit_ids)
    again.attach(known.items)
    nobody, items = sparse.csr_matrix((2, ITEMS), dtype=np.float32), np.tile(np.arange(9), (2, 1))
    said = []
    for one in (ranker, again):
        morning, whole = (
            one.predict(Requests(np.arange(2), nobody, time=time), items)["rating"]
            for time in (np.array([noon - 1, 2000]), None)
        )
        np.testing.assert_array_equal(morning[1], whole[1])  # without a time it is after all of them
        rise = whole[0] - morning[0]
        assert rise[1::2].min() > 0.1 and rise[1::2].mean() > rise[::2].mean() + 0.3
        said.append(morning)
    np.testing.assert_array_equal(*said)


@pytest.mark.parametrize("kind", ["concat_dense", "logistic", "boosting"])
def test_with_ids_hidden_nobody_is_told_apart_but_by_content(kind: str) -> None:
    section: dict[str, object] = {"kind": kind, "ids": False, "tasks": ("click",)}
    section |= {"training": DEEP} if kind == "concat_dense" else {}
    ranker: Ranker = TypeAdapter(AnyRanker).validate_python(section).build()
    known = Known(TRAIN.items.only(), TRAIN.known().users, TRAIN.known().history)
    ranker.fit(TRAIN.shown, VALID.shown, known)
    empty = sparse.csr_matrix((5, ITEMS), dtype=np.float32)
    said = ranker.predict(Requests(np.arange(5), empty), np.tile(np.arange(ITEMS), (5, 1)))["click"]
    assert np.ptp(said) < 1e-6


def test_biases_are_ids_alone() -> None:
    with pytest.raises(ValueError, match="ids"):
        TypeAdapter(AnyRanker).validate_python({"kind": "biases", "ids": False})
