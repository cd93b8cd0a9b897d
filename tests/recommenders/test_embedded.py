"""What the id-based models share: who gets which vector, what cannot be scored, seeds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fusionrec.kinds import members
from fusionrec.recommenders import AnyRetriever
from fusionrec.recommenders.base import Retriever
from fusionrec.types import Interactions, ItemSet
from tests.contracts import world as w

KINDS = ("bm3", "freedom", "lattice", "lightgcn", "mgcn", "modality_graph", "vbpr")
SPECS = {cls.model_fields["kind"].default: cls for cls in members(AnyRetriever)}
HOW = {"epochs": 4, "batch": 97, "lr": 0.02, "patience": 0}

each_kind = pytest.mark.parametrize("kind", KINDS)


def fitted(kind: str, data: w.World, seed: int = 0, **spec) -> Retriever:
    model = SPECS[kind].model_validate({"kind": kind, "dim": 8, "training": HOW} | spec).build()
    model.fit(data.train, data.valid, data.items, seed=seed)
    return model


@each_kind
def test_users_without_interactions_and_strangers_get_the_mean_user(kind: str) -> None:
    data = w.world()
    more = replace(data.train, n_users=w.USERS + 3)
    model = fitted(kind, replace(data, train=more, valid=replace(data.valid, n_users=w.USERS + 3)))
    user = model.vectors_user(w.requests(more, [0, w.USERS, w.USERS + 2]))
    stranger = model.vectors_user(w.strangers([[]], w.ITEMS))
    np.testing.assert_array_equal(user[1:], np.repeat(stranger, 2, axis=0))
    everyone = model.vectors_user(w.requests(more, list(range(w.USERS))))
    np.testing.assert_allclose(stranger[0], everyone.mean(0), rtol=1e-4, atol=1e-6)
    assert np.abs(user[0] - stranger[0]).max() > 1e-4


@each_kind
def test_the_seed_decides(kind: str) -> None:
    data = w.world()
    request = w.requests(data.train, [3, 5])
    a, b, other = (fitted(kind, data, seed).score(request) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (a[np.isfinite(a)] != other[np.isfinite(other)]).any()


@each_kind
def test_the_threads_do_not_decide(kind: str) -> None:
    data = w.world()
    request = w.requests(data.train, [3, 5])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = fitted(kind, data).score(request)
        torch.set_num_threads(2)
        two = fitted(kind, data).score(request)
    finally:
        torch.set_num_threads(before)
    finite = np.isfinite(one)
    np.testing.assert_allclose(one[finite], two[finite], rtol=1e-3, atol=1e-4)


@each_kind
def test_training_lowers_the_loss(kind: str) -> None:
    data, losses = w.world(), []
    model = SPECS[kind].model_validate({"kind": kind, "dim": 8, "training": HOW | {"epochs": 15}}).build()
    model.fit(data.train, data.valid, data.items, watch=lambda epoch, row: losses.append(row["loss"]))
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.01


@each_kind
def test_one_interaction_and_one_item_is_an_answer(kind: str) -> None:
    items = ItemSet(("a", "b"), {"text": np.eye(2, 3, dtype=np.float32)}, {"text": np.array([True, False])},
                    {"text": np.zeros(2, np.int16)})  # fmt: skip
    train = Interactions(np.zeros(1, np.int32), np.zeros(1, np.int32), None, 1, 2)
    model = fitted(kind, w.World(items, train, train.select(np.zeros(1, bool))))
    scores = model.score(w.requests(train, [0]))
    assert np.isfinite(scores[0, 0]) and not np.isnan(scores).any()


@each_kind
def test_features_that_are_not_finite_are_refused_by_name(kind: str) -> None:
    data = w.world()
    x = {m: v.copy() for m, v in data.items.features.items()}
    x["image"][np.flatnonzero(data.items.present["image"])[3], 2] = np.nan
    with pytest.raises(ValueError, match="'image'"):
        fitted(kind, replace(data, items=replace(data.items, features=x)))


@each_kind
def test_one_modality_and_three_are_as_good_as_two(kind: str) -> None:
    data = w.world()
    one, three = data.items.only("text"), replace(
        data.items,
        features={**data.items.features, "video": data.items.features["text"][:, :4]},
        present={**data.items.present, "video": data.items.present["text"]},
        group={**data.items.group, "video": data.items.group["text"]},
    )  # fmt: skip
    for items in (one, three):
        scores = fitted(kind, replace(data, items=items)).score(w.requests(data.train, [0, 9]))
        assert np.isfinite(scores[:, : w.ITEMS - w.COLD]).all()
