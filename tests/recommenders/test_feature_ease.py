"""EASE with content: the definition, and that a new item gets what it would have had from the start."""

from dataclasses import replace

import numpy as np
import pytest

from fusionrec.recommenders.ease import EASE
from fusionrec.recommenders.feature_ease import FeatureEASE
from fusionrec.types import Requests

from .closed_form import ITEMS, UNTOUCHED, USERS, World, without_last, world


def requests(w: World, n: int = 9) -> Requests:
    return Requests(user=np.arange(n, dtype=np.int64), history=w.train.matrix()[:n])


def test_without_content_and_user_weights_it_is_ease() -> None:
    w = world()
    ours = FeatureEASE(l2=(30.0,), content=(0.0,), user_power=0.0).build()
    plain = EASE(l2=(30.0,)).build()
    for model in (ours, plain):
        model.fit(w.train, w.valid, w.items)
    np.testing.assert_allclose(
        ours.score(requests(w))[:, :-UNTOUCHED], plain.score(requests(w))[:, :-UNTOUCHED], atol=1e-4
    )


def test_the_definition() -> None:
    w = world()
    model = FeatureEASE(l2=(5.0,), content=(2.0,), user_power=0.5, width=4, tastes=3).build()
    model.fit(w.train, w.valid, w.items)
    x = w.train.matrix().toarray().astype(np.float64)
    scaled = x / np.sqrt(x.sum(1, keepdims=True))
    gram = scaled.T @ scaled * (x.sum() / (scaled**2).sum())
    level = np.diag(gram)[x.sum(0) > 0].mean()
    seen = x.sum(0) > 0
    content = np.concatenate(list(model.features.unit(w.items).values()), 1)  # type: ignore[attr-defined]
    known = content * seen[:, None]
    p = np.linalg.inv(gram + 2.0 * level * known @ known.T + 5.0 * np.eye(ITEMS))
    b = -p / np.diag(p)
    np.fill_diagonal(b, 0)
    b[:, ~seen] = 2.0 * level * p @ known @ content[~seen].T
    np.testing.assert_allclose(model.score(requests(w)), (x @ b)[:9], atol=1e-3)


def test_an_item_that_joins_later_scores_as_if_it_had_been_there_untouched() -> None:
    """Regression on the other items does not change when an item without interactions is among them."""
    full = world()
    early = without_last(full, 1)
    spec = FeatureEASE(l2=(5.0,), content=(1.0,))
    before, after = spec.build(), spec.build()
    after.fit(full.train, full.valid, full.items)
    before.fit(early.train, early.valid, early.items)
    before.attach(full.items)
    got, expected = before.score(requests(full)), after.score(requests(full))
    assert np.isfinite(got[:, -1]).all() and np.abs(expected[:, -1]).max() > 1e-3
    np.testing.assert_allclose(got[:, -1], expected[:, -1], atol=1e-4)


def test_untouched_items_go_to_the_users_of_their_taste() -> None:
    w = world()
    model = FeatureEASE().build()
    model.fit(w.train, w.valid, w.items)
    asked = Requests(user=np.arange(USERS, dtype=np.int64), history=w.train.matrix())
    new = np.arange(ITEMS) >= ITEMS - UNTOUCHED
    best = model.recommend(asked, 1, candidates=new)[0][:, 0]
    assert (w.taste[best] == np.arange(USERS) % 2).mean() > 0.9


def test_an_item_without_content_and_without_interactions_is_not_scored() -> None:
    w = world()
    bare = w.items.without("image", "text")
    model = FeatureEASE(l2=(5.0,)).build()
    model.fit(w.train, w.valid, bare)
    assert np.isneginf(model.score(requests(w))[:, -UNTOUCHED:]).all()


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_the_fit_is_repeatable(power: float) -> None:
    w = world()
    scores = []
    for _ in range(2):
        model = FeatureEASE(l2=(5.0, 50.0), user_power=power).build()
        model.fit(w.train, w.valid, w.items, seed=4)
        scores.append(model.score(requests(w)))
    np.testing.assert_array_equal(*scores)


def test_hiding_the_content_of_an_untouched_item_takes_its_scores() -> None:
    w = world()
    model = FeatureEASE(l2=(5.0,), content=(1.0,)).build()
    model.fit(w.train, w.valid, w.items)
    gone = {m: np.zeros(ITEMS, bool) for m in w.items.modalities}
    model.attach(replace(w.items, present=gone))
    scores = model.score(requests(w))
    assert np.isneginf(scores[:, -UNTOUCHED:]).all() and np.isfinite(scores[:, :-UNTOUCHED]).all()
