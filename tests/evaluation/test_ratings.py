"""Rating errors by hand, and with intervals over users."""

from __future__ import annotations

import numpy as np
import pytest

from fusionrec.evaluation import ratings


def test_errors_by_hand() -> None:
    """User 0 is off by 1, 0 and -2; user 1 has no rating; user 2 is off by 3."""
    truth = np.array([5.0, 3.0, 4.0, 1.0])
    found = ratings.measure(np.array([0, 0, 0, 2]), truth, truth + [1, 0, -2, 3], repeats=10)
    assert dict(found.mean) == pytest.approx({"mse": (1 + 0 + 4 + 9) / 4, "rmse": np.sqrt(3.5), "mae": 6 / 4})
    np.testing.assert_allclose(found.users["mse"], [5 / 3, np.nan, 9])
    np.testing.assert_allclose(found.users["rmse"], [np.sqrt(5 / 3), np.nan, 3])
    np.testing.assert_allclose(found.users["mae"], [1, np.nan, 3])


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
