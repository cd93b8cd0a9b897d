"""Bad input, for every registered retriever: a defined answer or a refusal that says why, and never NaN.

A defined answer: scores without NaN and +inf, lists without repeats and without what was seen, metrics that are numbers
or have n = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import sparse

from fusionrec.evaluation import slices
from fusionrec.evaluation.protocol import evaluate
from fusionrec.recommenders.base import Retriever
from fusionrec.types import LARGEST, Interactions, ItemSet, Requests
from tests.contracts import world as w
from tests.contracts.test_retriever import SPECS, fitted, spec_of

K = 7

pytestmark = pytest.mark.parametrize("kind", sorted(SPECS))


def interactions(pairs: list[tuple[int, int]], users: int, n_items: int) -> Interactions:
    user, item = (np.array([p[at] for p in pairs], np.int32) for at in (0, 1))
    return Interactions(user, item, np.arange(len(pairs), dtype=np.int64) * w.DAY, users, n_items)


def catalogue(n_items: int, **modalities: tuple[np.ndarray, np.ndarray]) -> ItemSet:
    """Items with modalities given as (vectors, present)."""
    return ItemSet(
        tuple(f"i{n}" for n in range(n_items)),
        {m: x.astype(np.float32) for m, (x, _) in modalities.items()},
        {m: p for m, (_, p) in modalities.items()},
        {m: np.zeros(n_items, np.int16) for m in modalities},
    )


def drawn(n_items: int, dim: int = 4) -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(n_items).normal(size=(n_items, dim)), np.ones(n_items, bool)


def world(pairs: list[tuple[int, int]], users: int, n_items: int, valid: list[tuple[int, int]] = (), **m) -> w.World:  # type: ignore[assignment,no-untyped-def]
    text = {"text": drawn(n_items)} if not m else m
    return w.World(
        catalogue(n_items, **text), interactions(pairs, users, n_items), interactions(list(valid), users, n_items)
    )


def thick(users: int = 9, n_items: int = 13) -> list[tuple[int, int]]:
    """Every user touches four items in a row, so all items but the last are touched."""
    return [(u, (u + step) % (n_items - 1)) for step in range(4) for u in range(users)]


def partly(n_items: int, dim: int, of: slice) -> tuple[np.ndarray, np.ndarray]:
    """Random vectors that only the items ``of`` have."""
    present = np.zeros(n_items, bool)
    present[of] = True
    return drawn(n_items, dim)[0] * present[:, None], present


PLENTY = thick()
ALL = np.ones(13, bool)
WORLDS: dict[str, Callable[[], w.World]] = {
    "one user, one item, one interaction": lambda: world([(0, 0)], 1, 1),
    "one interaction among many": lambda: world([(2, 3)], 5, 11),
    "one user": lambda: world([(0, i) for i in range(6)], 1, 11, [(0, 8)]),
    "everybody has seen everything": lambda: world([(u, i) for u in range(5) for i in range(2)], 5, 2),
    "all the same item": lambda: world([(u, 2) for u in range(6)], 6, 4, [(1, 3)]),
    # users 9..16 have nothing, user 0 has everything, pairs repeat, validation repeats training or is of item 12 alone
    "a poor log": lambda: world(
        PLENTY * 2 + [(0, i) for i in range(13)], 17, 13, [*PLENTY[:5], (0, 12), (3, 12), (16, 12)]
    ),
    "no modality at all": lambda: replace(world(PLENTY, 9, 13, [(0, 7)]), items=catalogue(13)),
    "hardly any content": lambda: world(
        PLENTY, 9, 13, [(0, 7)], text=partly(13, 4, slice(0, 13, 2)), image=partly(13, 3, slice(0)),
        audio=partly(13, 5, slice(5, 6)), video=partly(13, 1, slice(2, 9)),
    ),
    "vectors that tell nothing": lambda: world(
        PLENTY, 9, 13, [(0, 7)], text=(np.ones((13, 4)), ALL), image=(np.zeros((13, 3)), ALL),
        audio=(drawn(13, 5)[0] * np.where(np.arange(13)[:, None] % 2, 1e11, 1e-11), ALL),
    ),
}  # fmt: skip


def asked_of(data: w.World) -> Requests:
    """Every training user with the training history, and two strangers: one without, one with everything."""
    train = data.train
    known = w.requests(train, list(range(train.n_users)))
    none, every = (sparse.csr_matrix(np.full((1, train.n_items), v, np.float32)) for v in (0, 1))
    times = None
    if known.history_time is not None:
        late = sparse.csr_matrix(np.arange(1, train.n_items + 1, dtype=np.int64)[None] * w.DAY)
        times = sparse.vstack([known.history_time, none.astype(np.int64), late], format="csr")
    return Requests(
        np.concatenate([known.user, [-1, -1]]),
        sparse.vstack([known.history, none, every], format="csr"),
        history_time=times,
    )


def check(model: Retriever, data: w.World, requests: Requests) -> None:
    """A defined answer, see the text of this file."""
    scores = model.score(requests)
    assert scores.shape == (len(requests), len(data.items))
    assert not np.isnan(scores).any()
    assert not np.isposinf(scores).any()
    items, values = model.recommend(requests, K)
    assert items.shape == values.shape == (len(requests), K)
    assert not np.isnan(values).any()
    assert ((items == -1) == np.isneginf(values)).all()
    for row, history in enumerate(requests.history):
        real = items[row][items[row] >= 0].tolist()
        assert len(set(real)) == len(real)
        assert not set(real) & set(history.indices.tolist())
    wanted = sparse.csr_matrix(np.random.default_rng(1).random(scores.shape) < 0.4).astype(np.float32)
    train_count = np.bincount(data.train.item, minlength=len(data.items))
    parts = slices.build(requests, wanted, train_count == 0, data.items.present)
    result = evaluate(model, requests, parts, (1, 20))
    for part in parts:
        users = np.flatnonzero(np.diff(part.positives.indptr))
        for metric, per_user in result.values[part.name].items():
            assert np.isfinite(per_user[users]).all(), (part.name, metric)
            assert np.isfinite(result.mean(part.name, metric)[0])


@pytest.mark.parametrize("case", WORLDS)
def test_a_poor_log_or_catalogue_gives_a_defined_answer(kind: str, case: str) -> None:
    model, data, requests = poor(kind) if case == "a poor log" else (None, WORLDS[case](), None)
    model = model or fitted(kind, data)
    assert all(np.isfinite(a).all() for a in model.arrays().values() if a.dtype.kind == "f"), "learnt NaN or infinity"
    check(model, data, requests or asked_of(data))


@cache
def poor(kind: str) -> tuple[Retriever, w.World, Requests]:
    data = WORLDS["a poor log"]()
    return fitted(kind, data), data, asked_of(data)


def test_nobody_asks_and_nothing_may_be_recommended(kind: str) -> None:
    model, data, requests = poor(kind)
    assert model.recommend(requests.rows(0, 0), K)[0].shape == (0, K)
    items, scores = model.recommend(requests, K, candidates=np.zeros(len(data.items), bool))
    assert (items == -1).all()
    assert np.isneginf(scores).all()


def test_recommending_leaves_the_model_as_it_was(kind: str) -> None:
    """Seen items are masked in place, in an array that must not be the model's own."""
    model, _, requests = poor(kind)
    before = np.array(model.score(requests))
    first = model.recommend(requests, K)
    np.testing.assert_array_equal(model.score(requests), before)
    np.testing.assert_array_equal(model.recommend(requests, K)[0], first[0])


def test_vectors_that_are_no_numbers_are_refused_by_name(kind: str) -> None:
    data = world(PLENTY, 9, 13, [(0, 7)], text=drawn(13), image=partly(13, 3, slice(1, 13, 2)))

    def spoiled(rows: list[int], value: float) -> ItemSet:
        image = data.items.features["image"].copy()
        image[rows, 1] = value
        return replace(data.items, features={**data.items.features, "image": image})

    model = fitted(kind, replace(data, items=spoiled([4], np.nan)))  # item 4 has no image: what lies there is no matter
    check(model, data, asked_of(data))
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="image.*2 of 6 items.*'i3'"):
            spec_of(kind).build().fit(data.train, data.valid, spoiled([3, 5], bad))
        with pytest.raises(ValueError, match="image.*2 of 6 items.*'i3'"):
            model.attach(spoiled([3, 5], bad))
    check(model, data, asked_of(data))  # the catalogue before is still attached


@pytest.mark.parametrize("mask", ["short", "long", "rows"])
def test_a_mask_that_is_none_of_this_catalogue_is_refused(kind: str, mask: str) -> None:
    data = world(PLENTY, 9, 13, [(0, 7)], text=drawn(13), image=partly(13, 3, slice(1, 13, 2)))
    model, n = fitted(kind, data), len(data.items)
    given = {"short": np.ones(n - 1, bool), "long": np.ones(n + 1, bool), "rows": np.array([3, 1, 2])}[mask]
    with pytest.raises(ValueError, match=rf"expected bool of shape \({n},\)"):
        model.recommend(asked_of(data), K, given)


@pytest.mark.parametrize("value", [1e6, 1e12, 1.1e12, -3e38])
def test_large_vectors_are_answered_and_huge_ones_refused_by_name(kind: str, value: float) -> None:
    data = world(PLENTY, 9, 13, [(0, 7)], text=drawn(13), image=partly(13, 3, slice(1, 13, 2)))
    image = data.items.features["image"].copy()
    image[[3, 5], 1] = value
    data = replace(data, items=replace(data.items, features={**data.items.features, "image": image}))
    if abs(value) <= LARGEST:
        check(fitted(kind, data), data, asked_of(data))
        return
    with pytest.raises(ValueError, match=r"image.*2 of 6 items.*beyond 1e\+12.*'i3'"):
        fitted(kind, data)
