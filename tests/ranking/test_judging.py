"""Impressions that happened are judged by what the user had chosen strictly before each of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusionrec.ranking import happened, judging
from fusionrec.ranking.base import Impressions
from fusionrec.ranking.past import Past, of_requests
from fusionrec.types import Interactions, Requests

N_ITEMS = 9


class Told:
    """A ranker that answers what it was asked: the size of the history and the place as a probability."""

    tasks = ("click", "rating")
    values = frozenset({"rating"})

    def predict(
        self, requests: Requests, candidates: np.ndarray, context: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        size = np.diff(requests.history.indptr)[:, None].astype(np.float32)
        assert candidates.shape == context["position"].shape == size.shape
        return {"click": size / 10 + context["position"] / 100, "rating": candidates.astype(np.float32)}


def shown(labels: bool = True) -> Impressions:
    user, item, time = [0, 0, 1, -1], [1, 2, 2, 3], [10, 21, 21, 30]
    click = np.array([1, 0, 1, np.nan] if labels else [np.nan] * 4, np.float32)
    return Impressions(
        np.array(user, np.int32), np.array(item, np.int32), np.array(time, np.int64),
        {"position": np.array([4, 1, 2, 1], np.int16)},
        {"click": click, "rating": np.array([np.nan, 3, 2, 5], np.float32)},
    )  # fmt: skip


def positives() -> Interactions:
    user, item, time = [0, 0, 0, 1], [1, 2, 5, 7], [10, 20, 21, 40]
    return Interactions(
        np.array(user, np.int32), np.array(item, np.int32), np.array(time, np.int64), 2, N_ITEMS
    )  # fmt: skip


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_each_row_is_asked_with_what_came_before_it(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(happened, "ROWS", rows)
    found = happened.predictions(Told(), shown(), positives())  # type: ignore[arg-type]
    np.testing.assert_allclose(found["click"], [0.04, 0.21, 0.02, 0.01], rtol=1e-6)
    assert found["rating"].tolist() == [1, 2, 2, 3]


def test_only_rows_with_a_label_are_judged() -> None:
    found = judging.judge(Told(), shown(), positives(), repeats=10)  # type: ignore[arg-type]
    assert found["click"].n == 3 and found["rating"].n == 3
    assert found["rating"].mean["mae"] == pytest.approx((1 + 0 + 2) / 3)
    assert found["click"].users["logloss"][1] == pytest.approx(-np.log(0.02), rel=1e-5)
    assert len(found["rating"].users["mse"]) == 3 and found["rating"].users["mse"][2] == 4, "strangers come last"
    assert set(judging.judge(Told(), shown(labels=False), positives(), repeats=10)) == {"rating"}  # type: ignore[arg-type]


def test_more_choices_than_count_are_judged_as_they_were_learnt() -> None:
    """A user with 80 choices, of which a ranker reads the last 50: judged by exactly those, as a request would be."""
    rng = np.random.default_rng(0)
    n, users = 120, 6
    item = np.concatenate([rng.permutation(n)[:80] for _ in range(users)]).astype(np.int32)
    time = np.tile(np.arange(80) // 3, users).astype(np.int64)  # some at one moment
    chosen = Interactions(np.repeat(np.arange(users), 80).astype(np.int32), item, time, users, n)
    asked: list[Requests] = []

    class Reader(Told):
        def predict(self, requests: Requests, candidates: np.ndarray, context: dict[str, np.ndarray]) -> dict[str, Any]:
            asked.append(requests)
            return {"click": np.zeros(candidates.shape, np.float32), "rating": np.zeros(candidates.shape, np.float32)}

    at = np.array([13, 20, 99, 99, 5, 27], np.int64)
    rows = Impressions(np.arange(users, dtype=np.int32), np.zeros(users, np.int32), at, {}, {})
    happened.predictions(Reader(), rows, chosen)  # type: ignore[arg-type]
    past = Past(chosen, 50)
    learnt = past.bags(past.spans(rows.user, rows.time), rows.item.astype(np.int64))
    (requests,) = asked
    judged = of_requests(requests, 50)
    for row, (a, b) in enumerate(zip(learnt.offsets, judged.offsets, strict=True)):
        mine = learnt.items[a : a + learnt.counts[row]]
        assert sorted(mine) == sorted(judged.items[b : b + judged.counts[row]]), f"row {row}"
    assert learnt.counts.max() == 50 and learnt.counts.min() < 50
