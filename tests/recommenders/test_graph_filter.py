"""Blurring and sharpening: with nothing cut off it is the formula; what validation likes is kept."""

import numpy as np
import pytest

from fusionrec.recommenders.graph_filter import GraphFilter
from fusionrec.types import Requests

from .closed_form import ITEMS, USERS, World, world


def requests(w: World) -> Requests:
    return Requests(user=np.arange(USERS, dtype=np.int64), history=w.train.matrix())


@pytest.mark.parametrize("low, sharpen", [(0.0, 0.0), (0.0, 1.0), (0.4, 0.0), (0.3, 2.5)])
@pytest.mark.parametrize("a, b", [(0.5, 0.5), (0.3, 0.7)])
def test_with_every_entry_kept_it_is_the_formula(low: float, sharpen: float, a: float, b: float) -> None:
    w = world()
    spec = GraphFilter(neighbours=ITEMS, rank=2, low=(low,), sharpen=(sharpen,), user_power=a, item_power=b)
    model = spec.build()
    model.fit(w.train, w.valid, w.items)
    x = w.train.matrix().toarray().astype(np.float64)
    busy, count = np.maximum(x.sum(1), 1), np.maximum(x.sum(0), 1)
    n = busy[:, None] ** -a * x * count**-b
    near = n.T @ n / np.linalg.norm(n, 2) ** 2
    v = np.linalg.svd(n)[2][:2].T  # two tastes: a wide gap behind them
    y = x @ near + low * (x * count**-b) @ v @ v.T * count**b
    k1 = -y @ near  # the classical Runge-Kutta step of dy/dt = -y P, stage by stage
    k2 = -(y + sharpen / 2 * k1) @ near
    k3 = -(y + sharpen / 2 * k2) @ near
    k4 = -(y + sharpen * k3) @ near
    expected = y + sharpen / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    touched = x.sum(0) > 0
    scores = model.score(requests(w))
    np.testing.assert_allclose(scores[:, touched], expected[:, touched], atol=1e-4)
    assert np.isneginf(scores[:, ~touched]).all()


def test_the_grid_is_judged_as_the_fitted_model_is_and_the_best_kept() -> None:
    w = world()
    told: list[dict[str, float]] = []
    grid = GraphFilter(neighbours=ITEMS, rank=4, metric="recall@20")
    grid.build().fit(w.train, w.valid, w.items, watch=lambda _, values: told.append(dict(values)))
    assert len(told) == 4 * 4 and len({t["valid_recall@20"] for t in told}) > 2
    from fusionrec.recommenders.validation import validation_metric

    for t in told[::5]:
        one = GraphFilter(neighbours=ITEMS, rank=4, low=(t["low"],), sharpen=(t["sharpen"],)).build()
        one.fit(w.train, w.valid, w.items)
        assert validation_metric(one, w.train, w.valid, "recall@20") == pytest.approx(t["valid_recall@20"])
    best, model = max(told, key=lambda t: t["valid_recall@20"]), grid.build()
    model.fit(w.train, w.valid, w.items)
    alone = GraphFilter(neighbours=ITEMS, rank=4, low=(best["low"],), sharpen=(best["sharpen"],)).build()
    alone.fit(w.train, w.valid, w.items)
    np.testing.assert_allclose(model.score(requests(w)), alone.score(requests(w)), rtol=1e-6)


def test_the_entries_kept_are_those_of_largest_magnitude_negative_ones_too() -> None:
    w = world()
    whole, cut = (GraphFilter(neighbours=n, rank=0, low=(0.0,), sharpen=(1.25,)).build() for n in (ITEMS, 6))
    for model in (whole, cut):
        model.fit(w.train, w.valid, w.items)
    full, kept = (model.near.toarray() for model in (whole, cut))  # type: ignore[attr-defined]
    assert (full < 0).any() and (np.count_nonzero(kept, axis=1) <= 6).all()
    for row, left in zip(full, kept, strict=True):
        here = left != 0
        np.testing.assert_array_equal(left[here], row[here])
        if here.any():
            assert np.abs(row[here]).min() >= np.abs(row[~here]).max()


def test_nothing_of_a_user_is_in_the_fitted_model() -> None:
    w = world()
    model = GraphFilter(neighbours=6, rank=4).build()
    model.fit(w.train, w.valid, w.items)
    assert all(USERS not in a.shape for a in model.arrays().values())
