"""Rating errors by hand, the bias floor against a direct solution, and a ranker of the contract measured against it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from fusionrec.evaluation import ratings
from fusionrec.evaluation.significance import paired
from fusionrec.types import Requests


def asking(user) -> Requests:
    return Requests(np.asarray(user, np.int64), sparse.csr_matrix((len(user), 7), dtype=np.float32))


class Fixed:
    def __init__(self, values, task="rating"):
        self.values, self.task = np.asarray(values, np.float32), task

    def predict(self, requests, candidates):
        return {self.task: self.values}


WANTED = ratings.rated(np.array([0, 2, 0, 0]), np.array([4, 1, 6, 2]), np.array([5.0, 1.0, 3.0, 4.0]), 3)


def test_pairs_become_rows_in_their_order():
    assert WANTED.items.tolist() == [[4, 6, 2], [-1, -1, -1], [1, -1, -1]]
    np.testing.assert_array_equal(WANTED.truth[0], [5, 3, 4])
    assert ratings.rated(np.zeros(0, int), np.zeros(0, int), np.zeros(0), 2).items.shape == (2, 0)


def test_errors_by_hand():
    """User 0 is off by 1, 0 and -2; user 1 has no rating; user 2 is off by 3."""
    got = ratings.evaluate(Fixed([[6, 3, 2], [9, 9, 9], [4, 9, 9]]), asking([0, 1, 2]), WANTED, None)
    assert got.pairs == pytest.approx({"mse": (1 + 0 + 4 + 9) / 4, "rmse": np.sqrt(3.5), "mae": 6 / 4, "n": 4})
    np.testing.assert_allclose(got.users["mse"], [5 / 3, np.nan, 9])
    np.testing.assert_allclose(got.users["rmse"], [np.sqrt(5 / 3), np.nan, 3])
    np.testing.assert_allclose(got.users["mae"], [1, np.nan, 3])
    assert got.mean("mae") == (2.0, 2)


def test_predictions_are_clipped_to_what_training_saw():
    got = ratings.evaluate(Fixed([[6, 3, 2], [9, 9, 9], [-4, 9, 9]]), asking([0, 1, 2]), WANTED, (0.5, 5.0))
    np.testing.assert_allclose(got.users["mae"], [2 / 3, np.nan, 0.5])


def test_nobody_rated():
    none = ratings.rated(np.zeros(0, int), np.zeros(0, int), np.zeros(0), 2)
    got = ratings.evaluate(Fixed(np.zeros((2, 0))), asking([0, 1]), none, (1, 5))
    assert got.pairs == {"rmse": 0.0, "mse": 0.0, "mae": 0.0, "n": 0}
    assert got.mean("rmse") == (0.0, 0)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Fixed(np.ones((3, 3)), "click"), "click, expected the task 'rating'"),
        (Fixed(np.ones((3, 2))), r"\(3, 2\) ratings, expected \(3, 3\)"),
        (Fixed(np.full((3, 3), np.nan)), "not a number"),
    ],
)
def test_a_model_that_does_not_answer_is_told(model, words):
    with pytest.raises(ValueError, match=words):
        ratings.evaluate(model, asking([0, 1, 2]), WANTED, None)


def test_misuse_is_told():
    with pytest.raises(ValueError, match="no ratings"):
        ratings.Biases.fit(np.zeros(0, int), np.zeros(0, int), np.zeros(0), 2, 3)
    with pytest.raises(ValueError, match="1 of 2 ratings"):
        ratings.Biases.fit(np.array([0, 1]), np.array([0, 1]), np.array([1.0, np.nan]), 2, 3)
    with pytest.raises(ValueError, match="lengths differ"):
        ratings.rated(np.array([0]), np.array([0, 1]), np.array([1.0]), 1)
    with pytest.raises(ValueError, match="every item needs"):
        ratings.Rated(np.array([[1]]), np.array([[np.nan]]))


def planted(seed=0, users=40, items=23, n=500):
    """Stars = 3 + user + item + noise, cut to [1, 5]; user 39 and item 22 have no rating."""
    rng = np.random.default_rng(seed)
    u, i = rng.integers(0, users - 1, n), rng.integers(0, items - 1, n)
    value = 3 + rng.normal(0, 0.7, users)[u] + rng.normal(0, 0.7, items)[i] + rng.normal(0, 0.4, n)
    return u, i, np.clip(value, 1, 5), users, items


def test_the_floor_is_the_damped_least_squares_solution():
    u, i, value, users, items = planted()
    got = ratings.Biases.fit(u, i, value, users, items, damping=3.0, sweeps=400)
    x = np.zeros((len(u), users + items))
    x[np.arange(len(u)), u] = x[np.arange(len(u)), users + i] = 1
    direct = np.linalg.solve(x.T @ x + 3.0 * np.eye(users + items), x.T @ (value - value.mean()))
    np.testing.assert_allclose(np.concatenate([got.user, got.item]), direct, atol=1e-8)
    assert got.bounds == (value.min(), value.max())
    assert got.user[users - 1] == got.item[items - 1] == 0
    strangers = got.predict(asking([-1, users - 1]), np.array([[items - 1, -1], [items - 1, -1]]))["rating"]
    np.testing.assert_allclose(strangers, got.mean, rtol=1e-6)


class MeanRanker:
    """It predicts ratings: the mean of everybody, or the item's own bias on top."""

    def __init__(self, biases: ratings.Biases, by_item: bool):
        self.biases, self.by_item = biases, by_item

    def predict(self, requests: Requests, candidates: np.ndarray) -> dict[str, np.ndarray]:
        item = np.where(candidates >= 0, self.biases.item[np.maximum(candidates, 0)], 0) * self.by_item
        return {"rating": (self.biases.mean + item).astype(np.float32)}


def test_rankers_of_the_contract_against_the_floor_on_held_out_ratings():
    """Biases are all there is in this data: the floor beats the item mean, which beats the mean, paired too."""
    u, i, value, users, items = planted(n=1500)
    held = np.arange(len(u)) % 5 == 0
    floor = ratings.Biases.fit(u[~held], i[~held], value[~held], users, items)
    wanted = ratings.rated(u[held], i[held], value[held], users)
    models = {"floor": floor, "items": MeanRanker(floor, True), "mean": MeanRanker(floor, False)}
    got = {n: ratings.evaluate(m, asking(np.arange(users)), wanted, floor.bounds, name=n) for n, m in models.items()}
    for error in ratings.NAMES:
        assert got["floor"].pairs[error] < got["items"].pairs[error] < got["mean"].pairs[error]
        assert got["floor"].mean(error)[0] < got["items"].mean(error)[0] < got["mean"].mean(error)[0]
    assert got["floor"].pairs["rmse"] < 0.55
    assert paired(got["items"].users["mse"], got["floor"].users["mse"]).p < 0.01
    assert got["floor"].pairs["n"] == held.sum()


def test_errors_over_pairs_have_intervals_over_users() -> None:
    rng = np.random.default_rng(0)
    user = rng.integers(0, 80, 1200)
    truth = rng.normal(3, 1, 1200)
    off = rng.normal(0, 0.4, 80)[user] + rng.normal(0, 0.3, 1200)
    found = ratings.measure(user, truth, truth + off, repeats=500)
    expected = {"rmse": np.sqrt((off**2).mean()), "mse": (off**2).mean(), "mae": np.abs(off).mean()}
    assert dict(found.mean) == pytest.approx(expected)
    assert all(found.low[name] < found.mean[name] < found.high[name] for name in expected)
    one = user == 7
    assert found.users["mse"][7] == pytest.approx((off[one] ** 2).mean())
    naive = 1.96 * (off**2).std() / np.sqrt(len(off))
    assert found.high["mse"] - found.low["mse"] > 2.4 * naive, "pairs of one user go together"


def test_what_cannot_be_measured_is_nan_or_refused() -> None:
    none = np.zeros(0)
    assert all(np.isnan(v) for v in ratings.measure(none.astype(np.int64), none, none).mean.values())
    alone = ratings.measure(np.array([3]), np.array([4.0]), np.array([3.0]))
    assert alone.mean["rmse"] == 1 and np.isnan(alone.low["rmse"]) and np.isnan(alone.users["rmse"][0])
    with pytest.raises(ValueError, match="1 of 2 predictions are not finite"):
        ratings.measure(np.array([0, 1]), np.zeros(2), np.array([0, np.nan]))
    with pytest.raises(ValueError, match="lengths differ"):
        ratings.measure(np.array([0]), np.zeros(2), np.zeros(2))
