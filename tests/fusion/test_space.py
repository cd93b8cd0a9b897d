"""The feature space on a small world in which it is known what people follow and what they ignore."""

from __future__ import annotations

import numpy as np
import pytest

from fusionrec.fusion.space import CoOccurrence, FeatureSpace
from fusionrec.types import Interactions, ItemSet

USERS, ITEMS = 300, 120


def world(seed: int, follow: float) -> tuple[Interactions, ItemSet, np.ndarray]:
    """Users follow one hidden factor of the items; `told` shows it in noise, `noise` shows nothing."""
    rng = np.random.default_rng(seed)
    factor, taste = rng.normal(size=ITEMS), rng.normal(size=USERS)
    utility = follow * np.outer(taste, factor) + rng.gumbel(size=(USERS, ITEMS))
    items = np.argsort(-utility, axis=1)[:, :9]
    users = np.repeat(np.arange(USERS), 9)
    train = Interactions(users.astype(np.int32), items.ravel().astype(np.int32), None, USERS, ITEMS)
    told = rng.normal(size=(ITEMS, 17))
    told[:, 3] += 2.0 * factor
    features = {"told": told.astype(np.float32), "noise": rng.normal(size=(ITEMS, 13)).astype(np.float32)}
    everyone = {m: np.ones(ITEMS, bool) for m in features}
    groups = {m: np.zeros(ITEMS, np.int16) for m in features}
    return train, ItemSet(tuple(f"i{k}" for k in range(ITEMS)), features, everyone, groups), factor


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_focus_keeps_the_direction_people_follow_and_drops_what_they_ignore(seed: int) -> None:
    train, items, factor = world(seed, follow=1.0)
    space = FeatureSpace(width=20).fit(items, np.ones(ITEMS, bool)).focus(items, train, rank=5, seed=seed)
    assert "told" in space.dims
    first = space.apply(items)[0]["told"][:, 0]
    assert abs(np.corrcoef(first, factor)[0, 1]) > 0.8
    assert sum(space.dims.values()) <= 3


def test_noise_seldom_passes() -> None:
    """With 20 shuffles noise passes about once in 21; twelve of forty would be a broken bound."""
    passed = 0
    for seed in range(40):
        train, items, _ = world(seed, follow=1.0)
        passed += "noise" in FeatureSpace(width=20).fit(items, np.ones(ITEMS, bool)).focus(items, train, 5, seed).dims
    assert passed <= 8


def test_a_log_that_tells_nothing_leaves_some_components_of_everything() -> None:
    train, items, _ = world(4, follow=0.0)
    few = train.select(np.arange(7))
    space = FeatureSpace(width=20).fit(items, np.ones(ITEMS, bool)).focus(items, few, rank=5)
    assert set(space.dims) == {"noise", "told"}


def test_co_occurrence_is_what_its_definition_says() -> None:
    train, items, _ = world(5, follow=1.0)
    x = train.matrix().toarray().astype(np.float64)
    n, count = x.sum(1), x.sum(0)
    rows = (x - np.outer(n, count / count.sum())) / np.sqrt(n)[:, None]
    weight = np.where(count > 0, 1 / np.sqrt(np.maximum(count, 1)), 0)
    dense = (rows.T @ rows) * np.outer(weight, weight)
    np.fill_diagonal(dense, 0)
    f = items.features["told"].astype(np.float64)
    np.testing.assert_allclose(CoOccurrence(train).between(f), f.T @ dense @ f, atol=1e-9)


def test_groups_are_brought_together() -> None:
    """One thing described in two languages lies in two places; standardised within each language it lies in one."""
    rng = np.random.default_rng(0)
    meaning = rng.normal(size=(60, 7))
    english, chinese = meaning, meaning * 2.0 + 5.0
    x = np.concatenate([english, chinese]).astype(np.float32)
    group = np.repeat([0, 1], 60).astype(np.int16)
    items = ItemSet(tuple(map(str, range(120))), {"text": x}, {"text": np.ones(120, bool)}, {"text": group})
    z = FeatureSpace(7).fit(items, np.ones(120, bool)).apply(items)[0]["text"]
    assert np.abs(z[:60] - z[60:]).max() < 1e-3


def test_a_group_that_was_all_the_same_does_not_blow_up_its_next_item() -> None:
    """Thirty descriptions that are one placeholder: the deviation of the whole stands in for none."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(60, 7)), np.full((30, 7), 2.0), 2.0 + rng.normal(size=(5, 7))])
    group = np.repeat([0, 1, 1], [60, 30, 5]).astype(np.int16)
    ids, present = tuple(map(str, range(95))), np.ones(95, bool)
    items = ItemSet(ids, {"text": x.astype(np.float32)}, {"text": present}, {"text": group})
    z = FeatureSpace(7).fit(items, np.arange(95) < 90).apply(items)[0]["text"]
    length = np.linalg.norm(z, axis=1)
    assert length[90:].max() < 3 * length[:60].max()


def test_absent_rows_are_zero_and_masked_and_the_round_trip_is_exact() -> None:
    train, items, _ = world(6, follow=1.0)
    present = {**items.present, "told": np.arange(ITEMS) % 3 > 0}
    partly = ItemSet(items.ids, items.features, present, items.group)
    space = FeatureSpace(20).fit(partly, np.ones(ITEMS, bool)).focus(partly, train, 5)
    x, mask = space.apply(partly)
    column = space.modalities.index("told")
    assert np.array_equal(mask[:, column], present["told"])
    assert not x["told"][~present["told"]].any()
    again = FeatureSpace.restore(space.arrays())
    assert all(np.array_equal(again.apply(partly)[0][m], x[m]) for m in x)


def test_a_modality_that_is_the_same_for_all_becomes_nothing() -> None:
    train, items, _ = world(5, follow=1.0)
    same = ItemSet(items.ids, {"told": np.ones((ITEMS, 6), np.float32)}, {"told": np.ones(ITEMS, bool)},
                   {"told": np.zeros(ITEMS, np.int16)})  # fmt: skip
    space = FeatureSpace(width=20).fit(same, np.ones(ITEMS, bool)).focus(same, train, rank=5)
    assert not space.unit(same)["told"].any()


def test_items_that_repel_each_other_share_no_taste() -> None:
    """One of two clusters alone has the modality: every eigenvalue is negative, and chance is below zero too."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(USERS), 5)
    picked = np.stack([rng.permutation(ITEMS // 2)[:5] + (u % 2) * ITEMS // 2 for u in range(USERS)])
    train = Interactions(users.astype(np.int32), picked.ravel().astype(np.int32), None, USERS, ITEMS)
    for seed in range(30):
        features = {m: np.random.default_rng(seed).normal(size=(ITEMS, 2)).astype(np.float32) for m in ("a", "b")}
        present = {"a": np.arange(ITEMS) < ITEMS // 2, "b": np.arange(ITEMS) >= ITEMS // 2}
        items = ItemSet(tuple(f"i{k}" for k in range(ITEMS)), features, present,
                        {m: np.zeros(ITEMS, np.int16) for m in features})  # fmt: skip
        space = FeatureSpace(width=2).fit(items, np.ones(ITEMS, bool)).focus(items, train, rank=2, seed=seed)
        assert all(np.isfinite(v).all() for v in space.unit(items).values())
