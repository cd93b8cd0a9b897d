"""iALS: the vector solved from a history is the library's, and the loss's optimum."""

from __future__ import annotations

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from threadpoolctl import threadpool_limits

from fusionrec.recommenders.ials import IALS
from tests.contracts import world as w

DATA = w.world()


def fitted(**spec):
    model = IALS.model_validate({"dim": 6, "reg": 0.7, "alpha": 3.0, "iterations": 4} | spec).build()
    model.fit(DATA.train, DATA.valid, DATA.items)
    return model


def test_a_user_is_what_the_library_would_make_of_the_history() -> None:
    model = fitted()
    users = np.array([3, 11, 19])
    with threadpool_limits(1, "blas"):
        library = AlternatingLeastSquares(factors=6, regularization=0.7, alpha=3.0, use_cg=False)
        library.item_factors = model.item
        expected = library.recalculate_user(users, DATA.train.matrix()[users])
    mine = model.vectors_user(w.requests(DATA.train, users.tolist()))[:, :-1]
    np.testing.assert_allclose(mine, expected, rtol=1e-3, atol=1e-5)


def test_no_small_step_makes_the_solution_better() -> None:
    model = fitted()
    history = DATA.train.matrix()[5].toarray().ravel()
    weight = np.where(history > 0, 3.0, 1.0)
    y = model.item.astype(np.float64)

    def loss(u: np.ndarray) -> float:
        return float((weight * (history - y @ u) ** 2).sum() + 0.7 * u @ u)

    u = model.vectors_user(w.requests(DATA.train, [5]))[0, :-1].astype(np.float64)
    rng = np.random.default_rng(0)
    assert all(loss(u + 0.01 * rng.normal(size=6)) > loss(u) for _ in range(50))


def test_a_user_without_history_gets_the_mean_user_and_an_untouched_item_no_score() -> None:
    model = fitted()
    np.testing.assert_array_equal(model.vectors_user(w.strangers([[]], w.ITEMS))[0, :-1], model.mean)
    assert np.isneginf(model.score(w.requests(DATA.train, [0]))[0, -w.COLD :]).all()


def test_the_seed_decides_and_the_iteration_with_the_best_validation_is_kept() -> None:
    rows: list[float] = []
    model = IALS(dim=5, iterations=6).build()
    model.fit(DATA.train, DATA.valid, DATA.items, watch=lambda step, row: rows.append(row["valid_ndcg@20"]))
    from fusionrec.recommenders.validation import validation_metric

    assert len(rows) == 6
    assert validation_metric(model, DATA.train, DATA.valid) == max(rows)
