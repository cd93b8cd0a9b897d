"""Rankers side by side: what benchmarks/ranking.py compares with what, and which way is better."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ranking
import ranking_fits

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


def test_a_judgement_that_was_kept_is_the_same_and_undefined_stays_undefined(tmp_path: Path) -> None:
    one = judged("click", 0.5, 0)
    one = replace(one, mean={**one.mean, "precision": np.nan}, bins=[{"said": 0.1, "happened": 0.2}])
    one.users["gauc"][3] = np.nan
    back = ranking_fits.of_plain(json.loads(json.dumps(ranking_fits.to_plain(one), allow_nan=False)))
    assert np.isnan(back.mean["precision"]) and back.mean["gauc"] == one.mean["gauc"]
    assert (back.low, back.high, back.n, back.bins, back.task) == (one.low, one.high, one.n, one.bins, one.task)
    for metric, values in one.users.items():
        np.testing.assert_array_equal(back.users[metric], values)


def test_what_is_kept_counts_for_this_very_fit_alone(tmp_path: Path) -> None:
    fit = ranking_fits.Fit("deepfm, MMoE", {"kind": "deepfm"}, ["click"], True, 0)
    assert ranking_fits.kept(tmp_path, fit) is None
    told = {
        "fit": ranking_fits.asdict(fit),
        "seconds": 3.0,
        "judged": {"click": ranking_fits.to_plain(judged("click", 0.5, 0))},
    }
    ranking_fits.write_json(ranking_fits.file_of(tmp_path, fit), told)
    found = ranking_fits.kept(tmp_path, fit)
    assert found is not None and found[1] == 3.0 and found[0]["click"].n == 60
    other = replace(fit, section={"kind": "deepfm", "embedding": 8})
    assert ranking_fits.file_of(tmp_path, other) == ranking_fits.file_of(tmp_path, fit)
    assert ranking_fits.kept(tmp_path, other) is None


def test_a_call_that_was_ended_goes_on_and_fits_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ranking_fits.project(tmp_path, None, "--items", "60", "--users", "40")
    fits = [ranking_fits.Fit(kind, {"kind": kind}, ["click"], True, 0) for kind in ("biases", "logistic")]
    (first,) = ranking_fits.run(tmp_path, False, fits[:1], 1)
    assert "0 of 1" in capsys.readouterr().out
    both = list(ranking_fits.run(tmp_path, False, fits, 2))
    assert "1 of 2" in capsys.readouterr().out
    assert both[0][1] == first[1] and both[0][0]["click"].mean.keys() == both[1][0]["click"].mean.keys()
    assert both[0][0]["click"].mean["auc"] == first[0]["click"].mean["auc"] != both[1][0]["click"].mean["auc"]
    before = (tmp_path / "made.json").stat().st_mtime_ns
    ranking_fits.project(tmp_path, None, "--items", "60", "--users", "40")
    assert (tmp_path / "made.json").stat().st_mtime_ns == before
    ranking_fits.file_of(tmp_path, fits[0]).unlink()
    again = next(ranking_fits.run(tmp_path, False, fits[:1], 1))[0]["click"]
    np.testing.assert_array_equal(again.users["logloss"], first[0]["click"].users["logloss"])
