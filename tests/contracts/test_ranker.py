"""What every ranker promises (ranking/base.py). No ranker is registered yet; a toy one with two tasks shows that the
contract fits click and conversion models, alone and inside a Recommender."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load, save

from fusionrec.ranking.base import Ranker, RankerSpec
from fusionrec.recommenders.popularity import Popularity
from fusionrec.recommenders.recommender import Recommender
from tests.contracts import world as w
from tests.contracts.toys import TwoTask

SPECS: dict[str, type[RankerSpec]] = {"two_task": TwoTask}
B, K = 5, 3

pytestmark = pytest.mark.parametrize("kind", sorted(SPECS))


def impressions(data: w.World, n: int = 400) -> pl.DataFrame:
    """Item 3 is clicked always and bought never; the rest now and then."""
    rng = np.random.default_rng(2)
    item = rng.integers(0, w.ITEMS, n)
    click = (rng.random(n) < 0.3) | (item == 3)
    return pl.DataFrame(
        {
            "user_id": [f"u{x}" for x in rng.integers(0, w.USERS, n)],
            "item_id": [data.items.ids[i] for i in item],
            "position": rng.integers(1, 9, n).astype(np.int32),
            "click": click,
            "conversion": click & (rng.random(n) < 0.4) & (item != 3),
        }
    )


def fitted(kind: str, data: w.World) -> Ranker:
    ranker = SPECS[kind].model_validate({"kind": kind}).build()
    ranker.fit(impressions(data), data.items, None, seed=0)
    return ranker


def candidates() -> np.ndarray:
    c = np.random.default_rng(6).integers(0, w.ITEMS, (B, K)).astype(np.int64)
    c[1, 2], c[3] = -1, -1
    return c


def test_every_task_is_predicted_for_every_candidate(kind: str) -> None:
    data = w.world()
    ranker, request = fitted(kind, data), w.requests(data.train, [7, 2, 30, 0, 11])
    out = ranker.predict(request, candidates())
    assert tuple(out) == ranker.tasks
    for value in out.values():
        assert value.shape == (B, K)
        assert value.dtype == np.float32
        assert not np.isnan(value).any()


def test_a_candidates_prediction_does_not_depend_on_its_place(kind: str) -> None:
    data = w.world()
    ranker, request = fitted(kind, data), w.requests(data.train, [7, 2, 30, 0, 11])
    for task, value in ranker.predict(request, candidates()[:, ::-1]).items():
        np.testing.assert_allclose(value[:, ::-1], ranker.predict(request, candidates())[task], rtol=1e-5)


def test_arrays_restore_the_same_predictions_bit_for_bit(kind: str) -> None:
    data = w.world()
    ranker, other = fitted(kind, data), SPECS[kind].model_validate({"kind": kind}).build()
    other.restore(load(save(ranker.arrays())))
    request = w.requests(data.train, [7, 2, 30, 0, 11])
    for task, value in ranker.predict(request, candidates()).items():
        np.testing.assert_array_equal(other.predict(request, candidates())[task], value)


def test_the_same_seed_gives_the_same_bits(kind: str) -> None:
    a, b = (fitted(kind, w.world()).arrays() for _ in range(2))
    assert {k: v.tobytes() for k, v in a.items()} == {k: v.tobytes() for k, v in b.items()}


def test_no_impressions_are_refused(kind: str) -> None:
    data = w.world()
    with pytest.raises(ValueError, match="nothing to train on"):
        SPECS[kind].model_validate({"kind": kind}).build().fit(impressions(data).head(0), data.items, None)


def test_a_recommender_sorts_by_the_task_that_is_asked_for(kind: str) -> None:
    data = w.world()
    popular = Popularity().build()
    popular.fit(data.train, data.valid, data.items)
    request = w.requests(data.train, [7, 2, 30, 0, 11])
    by_click = Recommender(popular, fitted(kind, data)).recommend(request, K)
    by_sale = Recommender(popular, fitted(kind, data), task="conversion").recommend(request, K)
    assert by_click[0].tolist() != by_sale[0].tolist()
    unseen = request.history[:, 3].toarray().ravel() == 0
    assert unseen.any()
    assert (by_click[0][unseen, 0] == 3).all()  # item 3 is always clicked
    assert not (by_sale[0][:, 0] == 3).any()  # and never bought
