"""The bias floor against a direct solution of its least squares."""

from __future__ import annotations

import numpy as np
import pytest

from fusionrec.evaluation import ratings
from fusionrec.evaluation.significance import paired
from fusionrec.ranking.base import Impressions, Known, UserSet
from fusionrec.ranking.biases import Biases, BiasesRanker
from fusionrec.types import Interactions, ItemSet, item_order
from tests.contracts.world import strangers

USERS, ITEMS = 40, 23


def planted(n: int = 500, seed: int = 0) -> Impressions:
    """Stars = 3 + user + item + noise, cut to [1, 5]; user 39 and item 22 have no rating."""
    rng = np.random.default_rng(seed)
    u, i = rng.integers(0, USERS - 1, n), rng.integers(0, ITEMS - 1, n)
    taste = np.random.default_rng(9)
    value = 3 + taste.normal(0, 0.7, USERS)[u] + taste.normal(0, 0.7, ITEMS)[i] + rng.normal(0, 0.4, n)
    labels = {"rating": np.clip(value, 1, 5).astype(np.float32)}
    return Impressions(u.astype(np.int32), i.astype(np.int32), None, {}, labels)


def known() -> Known:
    none = np.zeros(0, np.int32)
    items = ItemSet(tuple(item_order(f"i{n}" for n in range(ITEMS))))
    return Known(items, UserSet(tuple(f"u{n}" for n in range(USERS))), Interactions(none, none, None, USERS, ITEMS))


def fitted(shown: Impressions, **spec: float) -> BiasesRanker:
    ranker = BiasesRanker(Biases(**spec))  # type: ignore[arg-type]
    ranker.fit(shown, shown, known())
    return ranker


def predicted(ranker: BiasesRanker, shown: Impressions) -> np.ndarray:
    request = strangers([[] for _ in range(len(shown))], ITEMS)
    request.user[:] = shown.user
    return ranker.predict(request, shown.item[:, None].astype(np.int64))["rating"][:, 0].astype(np.float64)


def test_it_is_the_damped_least_squares_solution() -> None:
    shown = planted()
    (mean, low, high), user, item = fitted(shown, damping=3.0, sweeps=400).found["rating"]
    u, i, value = shown.user, shown.item, shown.labels["rating"].astype(np.float64)
    x = np.zeros((len(u), USERS + ITEMS))
    x[np.arange(len(u)), u] = x[np.arange(len(u)), USERS + i] = 1
    direct = np.linalg.solve(x.T @ x + 3.0 * np.eye(USERS + ITEMS), x.T @ (value - value.mean()))
    np.testing.assert_allclose(np.concatenate([user, item]), direct, atol=1e-8)
    assert (mean, low, high) == (value.mean(), value.min(), value.max())
    assert user[USERS - 1] == item[ITEMS - 1] == 0


def test_strangers_and_new_items_get_the_mean_and_nothing_leaves_the_scale() -> None:
    ranker = fitted(planted())
    mean = ranker.found["rating"][0][0]
    rest = Impressions(
        np.array([-1, USERS - 1], np.int32),
        np.full(2, ITEMS - 1, np.int32),
        None,
        {},
        {"rating": np.zeros(2, np.float32)},
    )
    np.testing.assert_allclose(predicted(ranker, rest), mean, rtol=1e-6)
    everything = predicted(ranker, planted(4000, 5))
    assert everything.min() >= 1 and everything.max() <= 5


def test_it_beats_the_mean_on_held_out_ratings() -> None:
    train, test = planted(1500), planted(600, 4)
    ranker, truth = fitted(train), test.labels["rating"].astype(np.float64)
    floor = ratings.measure(test.user.astype(np.int64), truth, predicted(ranker, test), repeats=50)
    mean = np.full(len(truth), float(train.labels["rating"].mean()))
    plain = ratings.measure(test.user.astype(np.int64), truth, mean, repeats=50)
    assert all(floor.mean[name] < plain.mean[name] for name in ratings.NAMES) and floor.mean["rmse"] < 0.55
    assert paired(plain.users["mse"], floor.users["mse"]).p < 0.01


def test_labels_that_are_no_numbers_are_refused() -> None:
    shown = planted(20)
    shown.labels["rating"][3] = np.inf
    with pytest.raises(ValueError, match="1 labels of rating are infinite"):
        fitted(shown)


def test_a_chance_is_calibrated_on_validation() -> None:
    """Training saw three yes of ten, validation one of ten: what is said of strangers follows validation."""
    rng = np.random.default_rng(3)

    def shown(n: int, rate: float) -> Impressions:
        u, i = rng.integers(0, USERS - 1, n), rng.integers(0, ITEMS - 1, n)
        return Impressions(
            u.astype(np.int32), i.astype(np.int32), None, {}, {"click": (rng.random(n) < rate).astype(np.float32)}
        )

    ranker = BiasesRanker(Biases())
    ranker.fit(shown(4000, 0.3), shown(4000, 0.1), known())
    again = BiasesRanker(Biases())
    again.restore(ranker.arrays(), known().items.ids)
    again.attach(known().items)
    asked = strangers([[] for _ in range(2)], ITEMS)
    for one in (ranker, again):
        said = one.predict(asked, np.full((2, 1), ITEMS - 1))
        assert list(said) == ["click"]
        np.testing.assert_allclose(said["click"], 0.1, atol=0.02)
