"""What every ranker promises (ranking/base.py): all that are registered, every head under a network, and a toy one that
shows that the contract fits more than what is built in."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from safetensors.numpy import load, save

from fusionrec.kinds import members
from fusionrec.ranking import AnyRanker
from fusionrec.ranking.base import Impressions, Known, Ranker, RankerSpec, UserSet, Words
from fusionrec.ranking.heads import AnyHead
from fusionrec.recommenders.popularity import Popularity
from fusionrec.recommenders.recommender import Recommender
from fusionrec.types import Requests
from tests.contracts import world as w
from tests.contracts.toys import TwoTask

TASKS = ("click", "conversion", "rating")
QUICK = {"epochs": 3, "batch": 128, "lr": 0.01}
DEEP = ("concat_dense", "dcn_v2", "deepfm")
OWN: dict[str, dict[str, object]] = {
    **dict.fromkeys(DEEP, {"training": QUICK}),
    "stack": {"parts": [{"kind": "logistic"}, {"kind": "deepfm", "own_words": True, "training": QUICK}]},
}
TOYS: dict[str, RankerSpec] = {"two_task": TwoTask()}
SPECS: dict[str, RankerSpec] = {
    **TOYS,
    **{
        kind: cls.model_validate({"tasks": TASKS, **OWN.get(kind, {})})
        for kind, cls in ((cls.model_fields["kind"].default, cls) for cls in members(AnyRanker))
    },
}
HEADS = {
    f"deepfm, {head}": SPECS["deepfm"].model_validate({"tasks": TASKS, "head": {"kind": head}, "training": QUICK})
    for head in sorted(cls.model_fields["kind"].default for cls in members(AnyHead))
}
SPECS |= HEADS | {
    "deepfm, own words": SPECS["deepfm"].model_validate({"tasks": TASKS, "own_words": True, "training": QUICK})
}
FAVOURITE, NEVER_BOUGHT = 3, 3
B, K = 5, 3

pytestmark = pytest.mark.parametrize("kind", sorted(SPECS))


def impressions(data: w.World, n: int = 1500, seed: int = 2) -> Impressions:
    """Item 3 is clicked always and bought never; the rest now and then. A few lines are ratings and nothing else."""
    rng = np.random.default_rng(seed)
    item = rng.integers(0, w.ITEMS - w.COLD, n)
    item[: n // 8] = FAVOURITE
    click = ((rng.random(n) < 0.2) | (item == FAVOURITE)).astype(np.float32)
    bought = (click * (rng.random(n) < 0.5) * (item != NEVER_BOUGHT)).astype(np.float32)
    rating = np.where(rng.random(n) < 0.2, rng.integers(1, 6, n), np.nan).astype(np.float32)
    alone = rng.random(n) < 0.05
    click[alone], bought[alone] = np.nan, np.nan
    user = rng.integers(-1, w.USERS, n).astype(np.int32)
    place = rng.integers(1, 9, n).astype(np.int16)
    place[alone] = 0
    context = {"position": place, "surface": rng.integers(0, 3, n).astype(np.int16)}
    time = (rng.integers(1, 40, n) * (w.DAY // 16)).astype(np.int64)
    labels = {"click": click, "conversion": bought, "rating": rating}
    return Impressions(user, item.astype(np.int32), time, context, labels)


def known(data: w.World) -> Known:
    users = UserSet(
        tuple(f"u{n}" for n in range(w.USERS)), {"region": (np.arange(w.USERS) % 4).astype(np.int32)}, {"region": 4}
    )
    return Known(data.items, users, data.train, words())


def words(n: int = 90) -> Words:
    """Every user but the last says something now and then, in one of two languages."""
    rng = np.random.default_rng(8)
    language = np.array(["en", "zh"])[rng.integers(0, 2, n)]
    user, time = rng.integers(0, w.USERS - 1, n).astype(np.int32), rng.integers(0, 3 * w.DAY, n).astype(np.int64)
    return Words(user, time, rng.normal(size=(n, w.DIMS["text"])).astype(np.float32), language, "text")


@cache
def fitted(kind: str) -> Ranker:
    data = w.world()
    ranker = SPECS[kind].build()
    ranker.fit(impressions(data), impressions(data, 300, 3), known(data), seed=0)
    return ranker


def asked(data: w.World) -> Requests:
    return w.requests(data.train, [7, 2, 30, 0, 11])


def candidates() -> np.ndarray:
    c = np.random.default_rng(6).integers(0, w.ITEMS, (B, K)).astype(np.int64)
    c[1, 2], c[3] = -1, -1
    return c


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert list(one) == list(other)
    for task, value in one.items():
        np.testing.assert_allclose(other[task], value, rtol=2e-5, atol=1e-6)


def test_every_task_is_predicted_for_every_candidate(kind: str) -> None:
    ranker = fitted(kind)
    out = ranker.predict(asked(w.world()), candidates())
    assert tuple(out) == ranker.tasks and set(ranker.tasks) <= set(TASKS)
    for task, value in out.items():
        assert value.shape == (B, K) and value.dtype == np.float32 and not np.isnan(value).any()
        assert task in ranker.values or ((value >= 0) & (value <= 1)).all()


def test_a_candidates_prediction_does_not_depend_on_its_place_or_its_company(kind: str) -> None:
    ranker, request = fitted(kind), asked(w.world())
    whole = ranker.predict(request, candidates())
    same({t: v[:, ::-1] for t, v in ranker.predict(request, candidates()[:, ::-1]).items()}, whole)
    alone = ranker.predict(request.rows(2, 3), candidates()[2:3, :1])
    same(alone, {t: v[2:3, :1] for t, v in whole.items()})


def test_the_favourite_is_told_from_the_rest(kind: str) -> None:
    ranker, request = fitted(kind), asked(w.world())
    out = ranker.predict(request, np.tile(np.arange(w.ITEMS - w.COLD), (B, 1)).astype(np.int64))
    others = np.delete(out["click"], FAVOURITE, axis=1)
    assert (out["click"][:, FAVOURITE] > np.median(others, axis=1) + 0.1).all()


def test_arrays_restore_the_same_predictions_bit_for_bit(kind: str) -> None:
    data = w.world()
    ranker, other = fitted(kind), SPECS[kind].build()
    other.restore(load(save({k: np.ascontiguousarray(v) for k, v in ranker.arrays().items()})), data.items.ids)
    other.attach(data.items)
    assert other.tasks == ranker.tasks
    for task, value in other.predict(asked(data), candidates()).items():  # who the users are is not told yet
        assert np.isfinite(value).all() and (task in other.values or ((value >= 0) & (value <= 1)).all())
    other.meet(known(data).users)
    other.hear(known(data).words)
    for task, value in ranker.predict(asked(data), candidates()).items():
        np.testing.assert_array_equal(other.predict(asked(data), candidates())[task], value)


def test_what_is_learnt_holds_no_attribute_of_a_user(kind: str) -> None:
    data = w.world()
    codes = [column for column in known(data).users.codes.values() if len(np.unique(column)) > 1]
    assert codes
    for name, array in fitted(kind).arrays().items():
        columns = array.T if array.ndim == 2 else array[None]
        assert not any(c.shape == a.shape and (c == a).all() for c in columns for a in codes), name


def test_what_is_learnt_holds_no_word_of_a_user(kind: str) -> None:
    for name, array in fitted(kind).arrays().items():
        assert array.dtype.kind != "f" or not np.isin(words().vectors, array).any(), name


def test_the_same_seed_gives_the_same_bits(kind: str) -> None:
    data, again = w.world(), SPECS[kind].build()
    again.fit(impressions(data), impressions(data, 300, 3), known(data), seed=0)
    a, b = again.arrays(), fitted(kind).arrays()
    assert {k: v.tobytes() for k, v in a.items()} == {k: v.tobytes() for k, v in b.items()}


def test_another_order_of_the_catalogue_and_new_items_change_nothing_for_an_item(kind: str) -> None:
    data = w.world()
    ranker = SPECS[kind].build()
    ranker.restore(fitted(kind).arrays(), data.items.ids)
    ranker.meet(known(data).users)
    ranker.attach(data.items)
    before = ranker.predict(asked(data), candidates())
    rows = np.random.default_rng(4).permutation(w.ITEMS)
    place = np.argsort(rows)
    moved = w.rearranged(data.items, rows)
    ranker.attach(replace(moved, ids=tuple(moved.ids)))
    request = asked(data)
    turned = Requests(request.user, request.history[:, rows].tocsr(), None, None, None)
    c = candidates()
    same(ranker.predict(turned, np.where(c >= 0, place[np.maximum(c, 0)], -1)), before)


def test_strangers_without_history_and_new_items_get_a_number(kind: str) -> None:
    nobody = w.strangers([[], [5, 9]], w.ITEMS)
    new = np.array([[w.ITEMS - 1, w.ITEMS - 3], [w.ITEMS - 2, 40 % w.ITEMS]], np.int64)
    for value in fitted(kind).predict(nobody, new).values():
        assert np.isfinite(value).all()


def test_no_impressions_and_no_labels_are_refused(kind: str) -> None:
    data = w.world()
    shown = impressions(data)
    with pytest.raises(ValueError, match="nothing to train on: no impressions"):
        SPECS[kind].build().fit(shown.select(np.zeros(len(shown), bool)), shown, known(data))
    unknown = replace(shown, labels={t: np.full_like(v, np.nan) for t, v in shown.labels.items()})
    with pytest.raises(ValueError, match="no impression has a label"):
        SPECS[kind].build().fit(unknown, unknown, known(data))


def test_a_recommender_sorts_by_the_task_that_is_asked_for(kind: str) -> None:
    data = w.world()
    popular = Popularity().build()
    popular.fit(data.train, data.valid, data.items)
    request = asked(data)
    by_click = Recommender(popular, fitted(kind)).recommend(request, K)
    by_sale = Recommender(popular, fitted(kind), task="conversion").recommend(request, K)
    assert by_click[0].tolist() != by_sale[0].tolist()
    unseen = request.history[:, FAVOURITE].toarray().ravel() == 0
    assert unseen.any()
    if kind in TOYS:
        assert (by_click[0][unseen, 0] == FAVOURITE).all() and not (by_sale[0][:, 0] == NEVER_BOUGHT).any()
