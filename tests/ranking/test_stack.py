"""A stack finds who is right, each task for itself, and stays at the mean of its parts where it cannot know."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from fusionrec.ranking import AnyRanker
from fusionrec.ranking.judging import judge
from fusionrec.ranking.stack import Stack, StackRanker, weigh
from tests.contracts import test_ranker as contract
from tests.contracts import world as w

N = 20_000


def opinions(n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Log odds of three parts, one right, one with as much noise again, one of noise alone; and what happened."""
    rng = np.random.default_rng(0)
    truth = rng.normal(-1, 1, n)
    said = np.stack([truth, truth + rng.normal(0, 1, n), rng.normal(-1, 1, n)], axis=1)
    return said, (rng.random(n) < 1 / (1 + np.exp(-truth))).astype(np.float32)


def test_who_is_right_gets_the_weight() -> None:
    said, label = opinions()
    found = weigh(said, label, value=False)
    np.testing.assert_allclose(found, [1, 0, 0], atol=0.05)
    assert (found >= 0).all() and found.sum() == pytest.approx(1)


def test_two_that_are_wrong_for_themselves_are_better_together() -> None:
    """Two independent errors, values: the smaller one's part weighs as its precision."""
    rng = np.random.default_rng(1)
    truth = rng.normal(3, 1, N)
    said = truth[:, None] + rng.normal(0, 1, (N, 2)) * [0.5, 1.0]
    found = weigh(said, truth.astype(np.float32), value=True)
    np.testing.assert_allclose(found, [0.8, 0.2], atol=0.01)
    assert np.mean((said @ found - truth) ** 2) < 0.85 * np.mean((said[:, 0] - truth) ** 2)


def test_the_weights_are_the_most_probable_ones() -> None:
    """Against the closed form: one free number, a normal likelihood, and a normal prior around one half."""
    rng = np.random.default_rng(2)
    y = rng.normal(3, 1, 60).astype(np.float32).astype(np.float64)
    said = y[:, None] + rng.normal(0, 0.5, (60, 2))
    found = weigh(said, y.astype(np.float32), value=True)
    noise = np.var(y - said.mean(1))
    apart, rest = said[:, 0] - said[:, 1], y - said[:, 1]
    precision = 2 / 0.5**2  # the second weight moves as the first does
    expected = (apart @ rest / noise + precision / 2) / (apart @ apart / noise + precision)
    np.testing.assert_allclose(found, [expected, 1 - expected], atol=1e-4)


@pytest.mark.parametrize("value", [True, False])
def test_few_labels_leave_equal_shares(value: bool) -> None:
    said, label = opinions(19)
    label[:9] = 1
    assert weigh(said, label, value).tolist() == [1 / 3] * 3
    assert weigh(said[:0], label[:0], value).tolist() == [1 / 3] * 3
    rare = np.zeros(N, np.float32)
    rare[:19] = 1
    assert value or weigh(opinions()[0], rare, value).tolist() == [1 / 3] * 3


def test_it_predicts_the_weighted_log_odds_and_is_no_worse_than_its_parts() -> None:
    data = w.world()
    ranker = contract.fitted("stack")
    assert isinstance(ranker, StackRanker)
    said = [part.predict(contract.asked(data), contract.candidates()) for part in ranker.parts]
    a, b = ranker.weights["click"]
    slope, shift = ranker.calibration["click"]
    here = contract.candidates() >= 0
    odds = [np.log(p / (1 - p)) for p in (one["click"][here].astype(np.float64) for one in said)]
    expected = 1 / (1 + np.exp(-(slope * (a * odds[0] + b * odds[1]) + shift)))
    out = ranker.predict(contract.asked(data), contract.candidates())
    np.testing.assert_allclose(out["click"][here], expected, rtol=1e-4)
    assert (out["click"][~here] == 0).all() and not here.all()
    mean = sum(weight * one["rating"] for weight, one in zip(ranker.weights["rating"], said, strict=True))
    np.testing.assert_allclose(out["rating"][here], np.asarray(mean)[here], rtol=1e-5)
    shown = contract.impressions(data, 300, 3)
    losses = [judge(one, shown, data.train, 10)["click"].mean["logloss"] for one in (ranker, *ranker.parts)]
    assert losses[0] <= min(losses[1:]) + 1e-3, "on the impressions that chose its weights"


def test_what_it_is_told_reaches_every_part() -> None:
    spec = TypeAdapter(AnyRanker).validate_python(
        {
            "kind": "stack",
            "ids": False,
            "tasks": ["click"],
            "parts": [{"kind": "logistic"}, {"kind": "deepfm", "own_words": True}],
        }
    )
    assert spec.hears and not spec.deaf().hears and spec.deaf().parts[0].kind == "logistic"
    assert [part.tasks for part in spec.build().parts] == [("click",)] * 2
    assert [part.ids for part in (spec.build().parts[0], spec.build().parts[1].spec)] == [False, False]


def test_without_ids_a_part_that_reads_nothing_else_is_left_out() -> None:
    """The bias floor has no ids to hide: a stack without ids that kept it would still know who asks."""
    spec = Stack.model_validate({"ids": False, "parts": [{"kind": "logistic"}, {"kind": "biases"}]})
    assert [type(part).__name__ for part in spec.build().parts] == ["LogisticRanker"]
    with pytest.raises(ValueError, match="name one that reads content"):
        Stack.model_validate({"ids": False, "parts": [{"kind": "biases"}, {"kind": "biases"}]}).build()


def test_parts_that_learn_different_tasks_are_refused() -> None:
    data = w.world()
    one = Stack.model_validate({"parts": [{"kind": "logistic"}, {"kind": "biases"}]}).build()
    assert isinstance(one, StackRanker)
    one.parts[1].spec = one.parts[1].spec.model_copy(update={"tasks": ("click",)})  # type: ignore[attr-defined]
    shown = contract.impressions(data, 300, 3)
    with pytest.raises(ValueError, match="the parts of a stack learn the same tasks, found click; click, "):
        one.fit(shown, shown, contract.known(data))


def test_one_part_is_no_stack() -> None:
    with pytest.raises(ValidationError, match="at least 2"):
        Stack.model_validate({"parts": [{"kind": "logistic"}]})
