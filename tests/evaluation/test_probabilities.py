"""E2: every metric against scikit-learn or worked by hand; intervals resample users; paired values are theirs."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as peer

from fusionrec.evaluation import significance
from fusionrec.evaluation.probabilities import BINS, NAMES, Judged, measure, per_user, reliability


def drawn(n: int = 900, users: int = 37, seed: int = 0, ties: bool = True) -> Judged:
    rng = np.random.default_rng(seed)
    user = rng.integers(0, users, n)
    truth = 1 / (1 + np.exp(-(rng.normal(size=users)[user] + rng.normal(size=n) - 1)))
    p = np.clip(truth + rng.normal(size=n) * 0.15, 0.01, 0.99)
    return Judged(user, rng.random(n) < truth, np.round(p, 2) if ties else p)


@pytest.mark.parametrize("ties", [True, False])
def test_the_values_are_those_of_scikit_learn(ties: bool) -> None:
    judged = drawn(ties=ties)
    found, y, p = measure(judged, repeats=10).mean, judged.label, judged.p
    claimed = p >= 0.5
    base = np.full(len(y), y.mean())
    expected = {
        "auc": peer.roc_auc_score(y, p),
        "logloss": peer.log_loss(y, p),
        "entropy": peer.log_loss(y, p) / peer.log_loss(y, base),
        "accuracy": peer.accuracy_score(y, claimed),
        "precision": peer.precision_score(y, claimed),
        "recall": peer.recall_score(y, claimed),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    own, size = [], []
    for user in np.unique(judged.user):
        at = judged.user == user
        if len(set(y[at])) == 2:
            own.append(peer.roc_auc_score(y[at], p[at]))
            size.append(at.sum())
    assert found["gauc"] == pytest.approx(np.average(own, weights=size), abs=1e-12)
    mine = per_user(judged)["gauc"]
    assert mine[~np.isnan(mine)] == pytest.approx(own, abs=1e-12)


def test_calibration_by_hand() -> None:
    """Four predictions of .1 of which one happens, four of .8 of which three do: |.1 - .25| and |.8 - .75|, halves."""
    p = np.array([0.1] * 4 + [0.8] * 4)
    label = np.array([True, False, False, False, True, True, True, False])
    judged = Judged(np.arange(8), label, p)
    assert measure(judged, repeats=5).mean["ece"] == pytest.approx((0.15 + 0.05) / 2)
    assert [(b["n"], round(b["happened"], 2)) for b in reliability(judged)] == [(4, 0.25), (4, 0.75)]


def test_a_calibrated_model_has_a_small_error_and_a_shifted_one_its_shift() -> None:
    rng = np.random.default_rng(3)
    p = rng.uniform(0.05, 0.6, 60_000)
    label, user = rng.random(len(p)) < p, rng.integers(0, 500, len(p))
    assert measure(Judged(user, label, p), repeats=5).mean["ece"] < 0.01
    assert measure(Judged(user, label, p + 0.2), repeats=5).mean["ece"] == pytest.approx(0.2, abs=0.01)
    assert sum(b["n"] for b in reliability(Judged(user, label, p))) == len(p)
    sizes = [b["n"] for b in reliability(Judged(user, label, p))]
    assert len(sizes) == BINS and max(sizes) - min(sizes) <= 2, "equally filled"


def test_intervals_resample_users_and_hold_the_mean() -> None:
    judged = drawn(4000, 200, ties=False)
    found = measure(judged, repeats=400)
    for name in NAMES:
        if name != "ece":  # resampling adds noise to every bin, which moves an absolute difference up
            assert found.low[name] < found.mean[name] < found.high[name], name
    twice = Judged(np.concatenate([judged.user] * 2), np.tile(judged.label, 2), np.tile(judged.p, 2))
    again = measure(twice, repeats=400)
    for name in ("auc", "gauc", "logloss"):  # every pair twice says nothing new
        assert (again.low[name], again.high[name]) == pytest.approx((found.low[name], found.high[name]), abs=1e-9)
    assert measure(judged, repeats=400).low == found.low, "a function of the values alone"


def test_users_without_a_pair_are_not_drawn() -> None:
    judged = drawn(600, 30)
    sparse = Judged(judged.user * 7 + 3, judged.label, judged.p)
    close, wide = measure(judged, repeats=200), measure(sparse, repeats=200)
    assert (wide.mean, wide.low, wide.high) == (close.mean, close.low, close.high)
    assert len(wide.users["gauc"]) == judged.user.max() * 7 + 4
    np.testing.assert_array_equal(wide.users["gauc"][3::7], close.users["gauc"])


def test_a_resample_is_the_metric_of_the_resampled_users() -> None:
    judged = drawn(300, 9)
    weights = np.array([2, 0, 1, 1, 0, 3, 1, 0, 1], np.float64)
    rows = np.concatenate([np.flatnonzero(judged.user == u) for u, w in enumerate(weights) for _ in range(int(w))])
    copies = np.concatenate(
        [np.full((judged.user == u).sum(), 10 * u + c) for u, w in enumerate(weights) for c in range(int(w))]
    )
    again = measure(Judged(copies, judged.label[rows], judged.p[rows]), repeats=1).mean
    from fusionrec.evaluation.probabilities import _Sums

    found = _Sums.of(judged).metrics(weights[None])
    for name in set(NAMES) - {"ece"}:  # its bins are those of the whole sample
        assert found[name][0] == pytest.approx(again[name], abs=1e-12), name


def test_paired_values_see_a_better_model() -> None:
    rng = np.random.default_rng(1)
    user, x = rng.integers(0, 150, 6000), rng.normal(size=6000)
    p = 1 / (1 + np.exp(1 - x))
    label = rng.random(6000) < p
    blurred = 1 / (1 + np.exp(1 - x - rng.normal(size=6000)))
    good, bad = per_user(Judged(user, label, p)), per_user(Judged(user, label, blurred))
    assert significance.paired(good["gauc"], bad["gauc"]).p < 0.01
    assert significance.paired(bad["logloss"], good["logloss"]).p < 0.01


@pytest.mark.parametrize("label", [True, False])
def test_one_outcome_alone_has_no_auc_and_is_no_error(label: bool) -> None:
    found = measure(Judged(np.array([0, 0, 1]), np.full(3, label), np.array([0.2, 0.7, 0.4])), repeats=20)
    assert np.isnan(found.mean["auc"]) and np.isnan(found.mean["gauc"]) and np.isnan(found.low["auc"])
    assert np.isfinite(found.mean["logloss"]) and found.n == 3 and found.n_yes == 3 * label


def test_no_pair_at_all_is_told_by_nan() -> None:
    none = np.zeros(0)
    found = measure(Judged(none.astype(np.int64), none.astype(bool), none), repeats=20)
    assert found.n == 0 and all(np.isnan(value) for value in found.mean.values())


def test_certainty_is_punished_but_not_infinitely() -> None:
    assert 10 < measure(Judged(np.array([0]), np.array([True]), np.array([0.0])), repeats=5).mean["logloss"] < 20


@pytest.mark.parametrize("value", [1.2, -0.1, np.nan])
def test_what_is_no_probability_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="1 of 2 predictions are no probabilities"):
        Judged(np.array([0, 1]), np.array([True, False]), np.array([0.5, value]))
    with pytest.raises(ValueError, match="lengths differ"):
        Judged(np.array([0]), np.array([True, False]), np.array([0.5, 0.5]))
