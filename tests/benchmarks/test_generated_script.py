"""Generated against masked vectors: the script's tests and table by hand, and the script on a small project."""

from __future__ import annotations

from typing import Any

import generated
import numpy as np
import pytest
from page_generated import lines, verdict

from fusionrec.data import split
from fusionrec.embeddings import base as embeddings
from tests.evaluation.conftest import World, write_project

U = 60


def users(level: float, seed: int) -> generated.Users:
    rng = np.random.default_rng(seed)
    out = {(part, m): level + rng.normal(0, 0.01, U) for part in generated.PARTS for m in generated.METRICS}
    out["cold", "ndcg@20"][:7] = np.nan
    return out


def test_a_difference_is_generated_less_masked_over_the_users_that_both_have() -> None:
    values = {("ease", 0.3, False): users(0.2, 1), ("ease", 0.3, True): users(0.3, 2)}
    values |= {("ease", 0.6, False): users(0.2, 3), ("ease", 0.6, True): users(0.2, 3)}
    found = {(t["share"], t["slice"], t["metric"]): t for t in generated.tests(values)}
    assert len(found) == 8
    up = found[0.3, "cold", "ndcg@20"]
    assert up["users"] == U - 7 and up["difference"] == pytest.approx(0.1, abs=0.01) and up["low"] > 0.09
    assert up["p_holm"] == pytest.approx(8 / 10_001, rel=0.01) and found[0.6, "all", "recall@20"]["p"] == 1
    rows = generated.quality(values)
    assert [r["missing"] for r in rows[:5]] == ["masked"] * 4 + ["generated"] and rows[0]["users"] == U


def told(difference: float, p: float) -> dict[str, Any]:
    test = {"retriever": "ease", "share": 0.3, "slice": "all", "metric": "ndcg@20", "low": -1.0, "high": 1.0}
    mean = {"retriever": "ease", "share": 0.3, "missing": "masked", "slice": "all", "metric": "ndcg@20", "mean": 0.2}
    run = {"share": 0.3, "explained": {"text": 0.25}, "filled": {"text": 30}, "missing": {"text": 40}}
    return {
        "tests": [{**test, "difference": difference, "p_holm": p}],
        "quality": [{**mean, "low": 0.1, "high": 0.3}],
        "generated": [run, {**run, "filled": {"text": 10}}],
    }


@pytest.mark.parametrize(
    "difference, p, words",
    [
        (0.01, 0.01, "Better in 1 of 1 comparisons: NDCG@20 of ease at 30% (+0.0100), worse in 0 of 1"),
        (-0.01, 0.01, "Better in 0 of 1 comparisons, worse in 1 of 1 comparisons: NDCG@20 of ease at 30% (-0.0100)"),
        (0.01, 0.06, "It does not help: none of 1 differences passes its test."),
    ],
)
def test_the_page_says_what_the_tests_say(difference: float, p: float, words: str) -> None:
    found = told(difference, p)
    assert verdict(found).startswith(words)
    assert "explains text 0.25, and fills of what is missing: text 50%." in verdict(found)
    assert lines(found) == [
        {
            "retriever": "ease",
            "lost": "30%",
            "NDCG@20, masked": "0.2000 [0.1000, 0.3000]",
            "NDCG@20, generated minus masked": f"{difference:+.4f} [-1.0000, +1.0000], p {p:.3f}",
        }
    ]


def test_the_script_on_a_small_project(tmp_path, monkeypatch) -> None:
    params, paths = write_project(tmp_path / "p", World(n_users=40, n_items=60, n_cold=12, seed=4))
    monkeypatch.setattr(generated, "SHARES", (0.0, 0.4))
    monkeypatch.setattr(generated, "RETRIEVERS", ("feature_ease",))
    monkeypatch.setattr(generated, "WIDTHS", (2, 4))
    items = embeddings.load(paths, tuple(params.modalities))
    tuned = generated.tune(split.load(paths, ("train", "valid")), items)
    assert tuned["feature_ease"]["width"] in (2, 4) and len(tuned["feature_ease"]["valid_ndcg@20"]) == 2
    found = generated.contest(split.load(paths, ("train", "valid", "test")), items, tuned, 1)
    assert len(found["quality"]) == 2 * 2 * 4 and len(found["tests"]) == 2 * 4 and len(found["generated"]) == 2
    for one in found["generated"]:
        assert all(0 <= one["filled"][name] <= one["missing"][name] for name in items.modalities)
    whole = {name: int((~items.present[name]).sum()) for name in items.modalities}
    assert found["generated"][0]["missing"] == whole
    assert all(found["generated"][1]["missing"][name] > whole[name] for name in items.modalities)
    assert lines(found) and verdict(found)
