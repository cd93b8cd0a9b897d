"""Calibration finds slope and intercept that are off, changes no order, and leaves alone what it cannot judge."""

from __future__ import annotations

import numpy as np
import pytest

from fusionrec.evaluation import probabilities
from fusionrec.ranking import calibration


def off(n: int = 40_000, slope: float = 2.0, intercept: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    """Predictions whose log odds are ``slope`` x truth + ``intercept``."""
    rng = np.random.default_rng(1)
    truth = rng.normal(-1.5, 1.0, n)
    label = (rng.random(n) < 1 / (1 + np.exp(-truth))).astype(np.float32)
    return (1 / (1 + np.exp(-(slope * truth + intercept)))).astype(np.float32), label


def ece(p: np.ndarray, label: np.ndarray) -> float:
    return probabilities.measure(probabilities.Judged(np.zeros(len(p), np.int64), label > 0.5, p), 1).mean["ece"]


def test_what_is_off_is_found_and_put_right() -> None:
    p, label = off()
    slope, intercept = calibration.fit(p, label)
    assert slope == pytest.approx(0.5, abs=0.03) and intercept == pytest.approx(-0.35, abs=0.05)
    right = calibration.apply(p, (slope, intercept))
    assert ece(p, label) > 0.05 and ece(right, label) < 0.01
    assert right.dtype == np.float32 and right.mean() == pytest.approx(label.mean(), abs=1e-3)
    order = np.argsort(p, kind="stable")
    assert (np.diff(right[order]) >= 0).all()


def test_a_place_that_is_seldom_seen_is_no_reason_to_want_less() -> None:
    p, label = off(slope=1.0, intercept=0.5)
    rng = np.random.default_rng(2)
    seen = rng.choice([1.0, 0.3], len(p))
    looked = rng.random(len(p)) < seen
    slope, intercept = calibration.fit(p, label * looked, seen)
    assert slope == pytest.approx(1.0, abs=0.06) and intercept == pytest.approx(-0.5, abs=0.08)


def test_rows_without_a_label_do_not_count() -> None:
    p, label = off(4000)
    more = np.concatenate([p, np.full(500, 0.99, np.float32)]), np.concatenate([label, np.full(500, np.nan)])
    assert calibration.fit(*more) == pytest.approx(calibration.fit(p, label))


def test_a_slope_never_turns_the_order_round() -> None:
    p, label = off(4000)
    slope, _ = calibration.fit(p, 1 - label)
    assert slope == calibration.SLOPES[0]


@pytest.mark.parametrize("yes", [0, 5])
def test_too_few_outcomes_leave_it_alone(yes: int) -> None:
    p, label = np.linspace(0.1, 0.9, 1000, dtype=np.float32), np.zeros(1000, np.float32)
    label[:yes] = 1
    assert calibration.fit(p, label) == calibration.SAME
    assert calibration.fit(p[:0], label[:0]) == calibration.SAME
    assert calibration.apply(p, calibration.SAME) is p


def test_certainties_stay_finite() -> None:
    p = np.array([0.0, 1.0, 0.5], np.float32)
    out = calibration.apply(p, (1.2, -0.1))
    assert np.isfinite(out).all() and (out >= 0).all() and (out <= 1).all()
