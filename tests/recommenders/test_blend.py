"""The weights of a blend: good parts are kept, useless ones get nothing, new items get weights of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import sparse

from fusionrec.fusion.base import FusionSpec
from fusionrec.recommenders.base import Retriever, RetrieverSpec, Watch
from fusionrec.recommenders.blend import Blend, _within_one_error, standardise
from fusionrec.types import Float32, Interactions, ItemSet, Requests

USERS, ITEMS, NEW = 60, 30, 8
TASTE = np.arange(ITEMS) % 3  # of items; a user's is row % 3


class Fixed(RetrieverSpec):
    """Scores: ``signal`` where user and item agree, plus seeded noise; known items only unless ``new``."""

    kind: Literal["fixed"] = "fixed"
    signal: float
    new: bool = False
    seed: int = 1

    def build(self, fusion: FusionSpec | None = None) -> Retriever:
        return FixedRetriever(self)


class FixedRetriever(Retriever):
    retrieval = "dense"

    def __init__(self, spec: Fixed) -> None:
        self.spec = spec
        self.cold_item = spec.new  # type: ignore[misc]

    def _fit(self, train: Interactions, valid: Interactions, items: ItemSet, seed: int, watch: Watch) -> None:
        pass

    def _score(self, requests: Requests) -> Float32:
        noise = np.random.default_rng(self.spec.seed).standard_normal((USERS, ITEMS)).astype(np.float32)
        agree = (requests.user[:, None] % 3 == TASTE[None, :]).astype(np.float32)
        scores = np.float32(self.spec.signal) * agree + noise[requests.user]
        if not self.spec.new:
            scores[:, -NEW:] = -np.inf
        return scores

    def arrays(self) -> dict[str, np.ndarray]:
        return {}

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        pass


def data() -> tuple[Interactions, Interactions, ItemSet]:
    rng = np.random.default_rng(5)
    rows: dict[str, list[tuple[int, int]]] = {"train": [], "valid": []}
    for user in range(USERS):
        old = np.flatnonzero(TASTE[:-NEW] == user % 3)
        new = ITEMS - NEW + np.flatnonzero(TASTE[-NEW:] == user % 3)
        chosen = rng.permutation(old)
        rows["train"] += [(user, int(i)) for i in chosen[:3]]
        rows["valid"] += [(user, int(i)) for i in (*chosen[3:5], new[0])]
    train, valid = (
        Interactions(*(np.array(c, np.int32) for c in zip(*rows[n], strict=True)), None, USERS, ITEMS) for n in rows
    )
    return train, valid, ItemSet(tuple(f"i{n:02d}" for n in range(ITEMS)))


def fitted(*parts: Fixed, **more: Any) -> tuple[Any, dict[str, float]]:
    told: list[dict[str, float]] = []
    model = Blend(parts=parts, **more).build()
    model.fit(*data(), watch=lambda _, values: told.append(dict(values)))
    return model, told[-1] if told else {}


def test_noise_does_not_spoil_a_signal() -> None:
    signal = Fixed(signal=2.0, new=True, seed=2)
    model, told = fitted(Fixed(signal=0.0, new=True), signal)
    alone = fitted(signal, signal)[1]
    assert model.weights[1] > 2 * model.weights[0]
    assert told["valid_ndcg@20"] >= alone["valid_ndcg@20"]


def test_two_halves_are_better_together() -> None:
    a, b = Fixed(signal=1.0, new=True), Fixed(signal=1.0, new=True, seed=2)
    model, together = fitted(a, b)
    alone = [fitted(part, part)[1]["valid_ndcg@20"] for part in (a, b)]
    assert (model.weights > 0).all() and together["valid_ndcg@20"] > max(alone) + 0.02


def test_new_items_get_the_weights_of_the_part_that_scores_them() -> None:
    model, told = fitted(Fixed(signal=9.0), Fixed(signal=0.0, new=True), Fixed(signal=9.0, new=True, seed=4))
    assert model.new_weights[0] == 0 and model.new_weights[2] > model.new_weights[1]
    train, valid, items = data()
    best, _ = model.recommend(Requests(np.arange(USERS, dtype=np.int64), train.matrix()), 10)
    assert (best >= ITEMS - NEW).any(), "an offset that buries new items loses validation positives"
    plain = fitted(Fixed(signal=9.0), Fixed(signal=0.0, seed=3))[1]["valid_ndcg@20"]
    assert told["valid_ndcg@20"] > plain + 0.05, "new items are a third of what validation asks for"


def test_what_no_part_scores_stays_out() -> None:
    model, _ = fitted(Fixed(signal=9.0), Fixed(signal=1.0, seed=2))
    train, _, _ = data()
    scores = model.score(Requests(np.arange(7, dtype=np.int64), train.matrix()[:7]))
    assert np.isneginf(scores[:, -NEW:]).all() and np.isfinite(scores[:, :-NEW]).all()


def test_the_search_sees_what_recommend_gives() -> None:
    """The shortlist is exact: the told value is the metric of the lists that the model then makes."""
    from fusionrec.recommenders.validation import validation_metric

    model, told = fitted(Fixed(signal=1.0), Fixed(signal=2.0, new=True, seed=2), metric="recall@20")
    train, valid, _ = data()
    assert told["valid_recall@20"] == pytest.approx(validation_metric(model, train, valid, "recall@20"), abs=1e-12)


def test_given_weights_are_used_as_they_are() -> None:
    model, told = fitted(Fixed(signal=1.0, new=True), Fixed(signal=2.0, new=True, seed=2), weights=(1.0, 0.25))
    train, _, _ = data()
    asked = Requests(np.arange(USERS, dtype=np.int64), train.matrix())
    z = [standardise(part.score(asked)) for part in model.parts]
    assert not told
    np.testing.assert_allclose(model.score(asked), z[0] + 0.25 * z[1], atol=1e-6)


@pytest.mark.parametrize("weights, parts", [((1.0,), 2), (None, 1)])
def test_parts_and_weights_must_fit(weights: tuple[float, ...] | None, parts: int) -> None:
    with pytest.raises(ValidationError, match="expected"):
        Blend(parts=(Fixed(signal=1.0),) * parts, weights=weights)


def test_weights_of_which_nothing_comes_are_refused() -> None:
    parts = [{"kind": "popularity"}, {"kind": "ease"}]
    for weights in ([0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0]):
        with pytest.raises(ValidationError, match="of which one is not 0"):
            Blend.model_validate({"parts": parts, "weights": weights})


def test_a_constant_row_says_nothing_whatever_its_value() -> None:
    rows = np.stack([np.full(1001, value, np.float32) for value in (1234.567, -0.1, 3e-8, 7e6)])
    assert (standardise(rows) == 0).all()


def test_where_validation_has_no_new_item_their_order_stays_that_of_the_parts() -> None:
    train, valid, items = data()
    known = valid.select(valid.item < ITEMS - NEW)
    model: Any = Blend(parts=(Fixed(signal=3.0), Fixed(signal=3.0, new=True, seed=2))).build()
    model.fit(train, known, items)
    candidates = np.arange(ITEMS) >= ITEMS - NEW
    asked = Requests(user=np.arange(9, dtype=np.int64), history=train.matrix()[:9])
    lists, _ = model.recommend(asked, 3, candidates)
    assert len({tuple(row) for row in lists.tolist()}) > 1, "everybody gets the same new items in the order of rows"


def test_items_that_join_later_are_scored_on_the_scale_of_the_others() -> None:
    """All items of the fit were chosen, so there is none to choose the weights of new ones by."""
    train, valid, items = data()
    dense = Interactions(
        np.concatenate([train.user, np.arange(NEW, dtype=np.int32)]),
        np.concatenate([train.item, np.arange(ITEMS - NEW, ITEMS, dtype=np.int32)]), None, USERS, ITEMS,
    )  # fmt: skip
    parts = tuple(Fixed(signal=signal, new=True, seed=seed) for seed, signal in enumerate((3.0, 1.0, 0.0)))
    model: Any = Blend(parts=parts).build()
    model.fit(dense, valid, items)
    assert model.weights.sum() == pytest.approx(1) and model.new_weights.sum() == pytest.approx(1)


def test_the_choice_is_the_wished_one_among_those_that_are_as_good_as_the_best() -> None:
    rng = np.random.default_rng(0)
    best = rng.random(400)
    near, far = best - rng.normal(0.002, 0.1, 400), best - 0.05
    assert abs(float((best - near).mean())) < 0.1 / 20
    wishes = [0.0, 1.0, 2.0]
    assert _within_one_error([best, near, far], wishes.__getitem__) == 1
    assert _within_one_error([far, best], [1.0, 0.0].__getitem__) == 1
    assert _within_one_error([best, best.copy()], [1.0, 1.0].__getitem__) == 0


def test_a_stranger_gets_what_most_chose_and_does_not_weigh() -> None:
    train, valid, items = data()
    strangers = {0, 1, 2, 3}
    known = train.select(~np.isin(train.item, [5]) & ~np.isin(train.user, list(strangers)))
    model: Any = Blend(parts=(Fixed(signal=2.0, new=True), Fixed(signal=1.0, seed=2))).build()
    model.fit(known, valid, items)
    empty = sparse.csr_matrix((2, ITEMS), dtype=np.float32)
    asked = Requests(np.array([0, 1]), empty)
    best, scores = model.recommend(asked, ITEMS)
    count = np.asarray(known.matrix().sum(0)).ravel()
    np.testing.assert_array_equal(best[0], np.argsort(-count, kind="stable"))
    np.testing.assert_array_equal(best[0], best[1])
    assert count[5] == 0 and scores[0, -1] == 0 and model.cold_user, "what is new comes after what was ever chosen"
    whole = Requests(np.arange(USERS, dtype=np.int64), known.matrix())
    with_history = model.score(whole)[7]
    np.testing.assert_array_equal(model.score(whole.rows(7, 8))[0], with_history)
    fewer: Any = Blend(parts=model.spec.parts).build()
    fewer.fit(known, valid.select(~np.isin(valid.user, list(strangers))), items)
    np.testing.assert_array_equal(fewer.weights, model.weights)
    back: Any = Blend(parts=model.spec.parts).build()
    back.restore(model.arrays(), items.ids)
    back.attach(items)
    np.testing.assert_array_equal(back.score(asked), model.score(asked))


def test_a_stranger_sees_nothing_that_nobody_can_score() -> None:
    train, valid, items = data()
    model: Any = Blend(parts=(Fixed(signal=2.0), Fixed(signal=1.0, seed=2))).build()
    model.fit(train, valid, items)
    scores = model.score(Requests(np.array([-1]), sparse.csr_matrix((1, ITEMS), dtype=np.float32)))
    assert np.isneginf(scores[0, -NEW:]).all() and np.isfinite(scores[0, :-NEW]).all()
