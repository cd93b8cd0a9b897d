"""Rankers side by side: what benchmarks/ranking.py compares with what, and which way is better."""

from __future__ import annotations

import numpy as np
import ranking

from fusionrec.ranking import comparing
from fusionrec.ranking.judging import Judgement


def judged(task: str, level: float, seed: int) -> Judgement:
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.01, 60)
    users = {"mse": 1 - level + noise} if task == "rating" else {"gauc": level + noise, "logloss": 1 - level + noise}
    mean = {name: float(values.mean()) for name, values in users.items()}
    return Judgement(task, mean, dict.fromkeys(mean, 0.0), dict.fromkeys(mean, 1.0), users, 60)


def test_better_is_more_of_what_should_be_high_and_less_of_what_should_be_low() -> None:
    found = {
        name: [{task: judged(task, level, 10 * seed + n) for task in ("click", "rating")} for seed in range(2)]
        for n, (name, level) in enumerate({"logistic": 0.5, "deepfm": 0.7, "deepfm" + ranking.WITHOUT: 0.6}.items())
    }
    lines = comparing.tests(found, ["click", "rating"], ranking.compared(found))
    assert {(one["task"], one["metric"], one["against"]) for one in lines} == {
        (task, metric, other)
        for task, metric in (("click", "gauc"), ("click", "logloss"), ("rating", "mse"))
        for other in ("logistic", "deepfm" + ranking.WITHOUT)
    }
    assert all(one["ranker"] == "deepfm" and one["better by"] > 0.09 and one["p_holm"] < 0.01 for one in lines)
    assert all(one["low"] < one["better by"] < one["high"] and one["users"] == 60 for one in lines)
    rows = comparing.rows(found, ["click", "rating"])
    assert [(row["task"], row["ranker"], row["seeds"]) for row in rows][:2] == [
        ("click", "logistic", 2),
        ("click", "deepfm", 2),
    ]
    mean = np.mean([run["click"].mean["gauc"] for run in found["deepfm"]])
    assert rows[1]["metrics"]["gauc"][0] == round(float(mean), 6)


def test_esmm_is_compared_with_conversion_alone_in_conversions_only() -> None:
    both = {task: judged(task, 0.5, 1) for task in ("click", "conversion")}
    found = {ranking.ESMM: [both], ranking.ALONE: [{"conversion": judged("conversion", 0.5, 2)}]}
    lines = comparing.tests(found, ["click", "conversion"], ranking.compared(found))
    assert {one["task"] for one in lines} == {"conversion"}
