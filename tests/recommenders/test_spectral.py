"""The low-pass filter: at full rank it is the graph itself; new items get a place from their content."""

import numpy as np
import pytest

from fusionrec.recommenders.spectral import Spectral
from fusionrec.types import Requests

from .closed_form import ITEMS, UNTOUCHED, USERS, World, without_last, world


def requests(w: World, n: int = 9) -> Requests:
    return Requests(user=np.arange(n, dtype=np.int64), history=w.train.matrix()[:n])


@pytest.mark.parametrize("steps, popularity", [(1, 0.0), (1, 1.0), (2, 0.0)])
def test_at_full_rank_it_takes_steps_on_the_graph(steps: int, popularity: float) -> None:
    """w^q with q = 1 is one step, q = 2 two: x D^-b (P'P)^q D^e."""
    w = world()
    spec = Spectral(rank=(ITEMS,), fade=(float(steps),), item_power=(0.3,), popularity=(popularity,), content=(0.0,))
    model = spec.build()
    model.fit(w.train, w.valid, w.items)
    x = w.train.matrix().toarray().astype(np.float64)
    n, p = np.maximum(x.sum(1), 1), np.maximum(x.sum(0), 1)
    scaled = n[:, None] ** -0.5 * x * p**-0.3
    expected = (x * p**-0.3) @ np.linalg.matrix_power(scaled.T @ scaled, steps) * p ** (0.3 * popularity)
    touched = x.sum(0) > 0
    np.testing.assert_allclose(model.score(requests(w))[:, touched], expected[:9][:, touched], atol=2e-4)


def test_an_item_that_joins_later_scores_as_if_it_had_been_there_untouched() -> None:
    full = world()
    early = without_last(full, 2)
    spec = Spectral(rank=(8,), fade=(0.5,), item_power=(0.3,), popularity=(1.0,), content=(0.3,))
    before, after = spec.build(), spec.build()
    after.fit(full.train, full.valid, full.items)
    before.fit(early.train, early.valid, early.items)
    before.attach(full.items)
    got, expected = before.score(requests(full)), after.score(requests(full))
    assert np.isfinite(got).all() and np.abs(expected[:, -2:]).max() > 1e-3
    np.testing.assert_allclose(got, expected, atol=2e-3)


def test_untouched_items_go_to_the_users_of_their_taste() -> None:
    w = world()
    model = Spectral(content=(0.3,), rank=(8,)).build()
    model.fit(w.train, w.valid, w.items)
    asked = Requests(user=np.arange(USERS, dtype=np.int64), history=w.train.matrix())
    best = model.recommend(asked, 1, candidates=np.arange(ITEMS) >= ITEMS - UNTOUCHED)[0][:, 0]
    assert (w.taste[best] == np.arange(USERS) % 2).mean() > 0.9


def test_the_best_of_the_grid_is_kept() -> None:
    w = world()
    told: list[dict[str, float]] = []
    model = Spectral(rank=(2, 8), metric="recall@20").build()
    model.fit(w.train, w.valid, w.items, watch=lambda _, values: told.append(dict(values)))
    best = max(told, key=lambda t: t["valid_recall@20"])
    assert len(told) == 2 * 2 * 2 * 3 * 2 and model.item.shape[1] == best["rank"]  # type: ignore[attr-defined]


def test_the_inner_product_is_the_score() -> None:
    w = world()
    model = Spectral(rank=(8,)).build()
    model.fit(w.train, w.valid, w.items)
    users, items = model.vectors_user(requests(w)), model.vectors_item()
    assert users is not None and items is not None
    np.testing.assert_allclose(users @ items.T, model.score(requests(w)), atol=1e-5)
