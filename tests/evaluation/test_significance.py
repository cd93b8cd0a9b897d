"""Intervals and tests against SciPy, against exact counts, and by simulation of their error rates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fusionrec.evaluation import significance as sig


def test_sign_flip_equals_scipy_exactly():
    rng = np.random.default_rng(1)
    for n in (1, 2, 5, 9, 12):
        a, b = rng.normal(0.2, 1, n), rng.normal(0, 1, n)
        if n == 1:
            expected = 0.5 if a[0] > b[0] else 1.0
        else:
            expected = stats.permutation_test(
                (a, b),
                lambda x, y: (x - y).mean(),
                permutation_type="samples",
                alternative="greater",
                n_resamples=np.inf,
            ).pvalue
        assert sig.paired(a, b).p == pytest.approx(expected, abs=1e-12)


def test_sampled_sign_flip_is_near_scipy():
    rng = np.random.default_rng(2)
    d = rng.normal(0.15, 1, 101)
    expected = stats.permutation_test(
        (d,),
        np.mean,
        permutation_type="samples",
        alternative="greater",
        n_resamples=20_000,
        rng=np.random.default_rng(0),
    ).pvalue
    assert sig.sign_flip(d, 20_000) == pytest.approx(expected, abs=0.01)
    assert abs(sig.sign_flip(d, 20_000) - stats.wilcoxon(d, alternative="greater").pvalue) < 0.1


def test_hand_counted():
    # all four differences positive: only the identity of 16 sign patterns reaches the sum
    assert sig.paired(np.array([2.0, 3, 4, 5]), np.ones(4)).p == 1 / 16
    assert sig.paired(np.ones(4), np.array([2.0, 3, 4, 5])).p == 1.0
    # zeros and users without a value change nothing
    assert sig.paired(np.array([2.0, 3, 4, 5, 1, np.nan]), np.ones(6)).p == 1 / 16


def test_type_one_error_and_power():
    rng = np.random.default_rng(3)
    null = [sig.sign_flip(rng.exponential(1, 40) * rng.choice([-1, 1], 40), 199, s) for s in range(6000)]
    assert 0.042 < np.mean(np.array(null) <= 0.05) < 0.058  # three standard errors
    assert 0.48 < np.mean(np.array(null) <= 0.5) < 0.52
    power = [sig.sign_flip(rng.normal(0.5, 1, 40), 199, s) for s in range(150)]
    assert np.mean(np.array(power) <= 0.05) > 0.85  # the t test's power here is .93


def test_interval_covers_and_matches_scipy():
    rng = np.random.default_rng(4)
    covered = 0
    for s in range(400):
        low, high = sig.interval(rng.beta(2, 5, 80), 300, s)
        covered += low <= 2 / 7 <= high
    assert 0.91 < covered / 400 < 0.98
    v = rng.beta(1, 6, 200)
    ours = sig.interval(v, 4000)
    theirs = stats.bootstrap((v,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(0))
    np.testing.assert_allclose(ours, theirs.confidence_interval, atol=0.003)


def test_bootstrap_is_a_mean_of_resamples_of_the_users():
    """0/1 values: n times a resampled mean is a count, and their spread is the binomial one."""
    v = np.array([0.0, 1, 1, 0, 0, 1, 0])
    means = sig.bootstrap_means(v, 5000, 1)
    np.testing.assert_allclose(means * 7, np.round(means * 7), atol=1e-9)
    assert means.mean() == pytest.approx(3 / 7, abs=0.01)
    assert means.std() == pytest.approx(np.sqrt(3 / 7 * 4 / 7 / 7), rel=0.05)


def test_columns_share_resamples_and_blocks_change_nothing(monkeypatch):
    v = np.random.default_rng(0).random((13, 3))
    together = sig.bootstrap_means(v, 50, 7)
    np.testing.assert_allclose(together[:, 1], sig.bootstrap_means(v[:, 1], 50, 7))
    monkeypatch.setattr(sig, "_CELLS", 40)
    np.testing.assert_allclose(sig.bootstrap_means(v, 50, 7), together)


def test_seeded():
    v = np.random.default_rng(0).random(30)
    assert sig.interval(v, 100, 1) == sig.interval(v, 100, 1) != sig.interval(v, 100, 2)
    assert sig.paired(v, v[::-1], 100, 1) == sig.paired(v, v[::-1], 100, 1)


def test_edges():
    nothing = sig.paired(np.array([np.nan]), np.array([1.0]))
    assert (nothing.n, nothing.difference, nothing.p) == (0, 0.0, 1.0)
    same = sig.paired(np.ones(20), np.ones(20))
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1.0)
    assert np.isnan(sig.interval(np.array([0.3]))).all()
    with pytest.raises(ValueError, match="same users"):
        sig.paired(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="nothing to resample"):
        sig.bootstrap_means(np.zeros(0))


def test_holm_by_hand():
    # p (n - step): .01*4=.04, .02*3=.06, .03*2=.06, .5*1
    got = sig.holm({"d": 0.5, "a": 0.01, "c": 0.03, "b": 0.02})
    assert got == pytest.approx({"d": 0.5, "a": 0.04, "c": 0.06, "b": 0.06})
    assert list(got) == ["d", "a", "c", "b"]
    assert sig.holm({}) == {} and sig.holm({"x": 0.9, "y": 0.8})["x"] == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_invariants(p):
    named = {str(i): x for i, x in enumerate(p)}
    got = sig.holm(named)
    assert all(named[k] - 1e-12 <= got[k] <= 1 and got[k] <= len(p) * named[k] + 1e-12 for k in named)
    ranked = sorted(named, key=named.get)
    assert all(got[a] <= got[b] + 1e-12 for a, b in zip(ranked, ranked[1:], strict=False))


def test_ratio():
    rng = np.random.default_rng(5)
    top, bottom = rng.binomial(1, 0.4, 300).astype(float), np.full(300, 0.1)
    got = sig.ratio(top, bottom, 2000)
    assert got.value == pytest.approx(top.mean() / 0.1)
    # a constant denominator: the interval is the mean's, rescaled
    se = top.std() / np.sqrt(300) / 0.1
    assert got.low == pytest.approx(got.value - 1.96 * se, abs=0.12)
    assert got.high == pytest.approx(got.value + 1.96 * se, abs=0.12)
    assert got.p_unit < 0.01
    assert sig.ratio(top, np.zeros(300)) is None and sig.ratio(top[:1], bottom[:1]) is None
    assert sig.ratio(np.append(top, np.nan), np.append(bottom, 1.0), 2000) == got
