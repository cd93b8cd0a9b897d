"""One verdict out of many comparisons: the correction, the least effect, who is blamed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionrec.monitoring.verdict import CAP, Measure, cohens_h, d_of_auc, judge


def one(part: str, name: str, p: float | None, effect: float | None = 1.0, **more: str) -> Measure:
    return Measure(part, name, p=p, effect=effect, words=f"{part} {name} moved", **more)


def test_levels_are_bonferroni_over_parts_and_holm_inside() -> None:
    found = judge([one("image", "a", 0.012), one("image", "b", 0.020), one("text", "c", 0.026)], 0.05, 0.2).measures
    # two parts: 0.025 each; image steps 0.0125, 0.025; text has one test
    assert [m.level for m in found] == pytest.approx([0.0125, 0.025, 0.025])
    assert [m.alarm for m in found] == [True, True, False]


def test_holm_stops_at_the_first_test_that_fails() -> None:
    found = judge([one("image", "a", 0.03), one("image", "b", 0.04)], 0.05, 0.0).measures
    assert [m.alarm for m in found] == [False, False]  # 0.03 > 0.025, so 0.04 < 0.05 does not count


def test_an_effect_that_does_not_matter_never_alarms() -> None:
    verdict = judge([one("image", "a", 1e-12, 0.19)], 0.05, 0.2)
    assert verdict.status == "no drift" and verdict.blamed is None and verdict.reasons == ()


def test_the_largest_effect_is_blamed_and_its_reasons_come_first() -> None:
    verdict = judge(
        [one("text", "a", 1e-9, 0.4), one("image", "b", 1e-6, 2.0), one("image", "c", 1e-9, 0.3)], 0.05, 0.2
    )
    assert (verdict.status, verdict.blamed) == ("drift", "image")
    assert verdict.ranking == (("image", 2.0), ("text", 0.4))
    assert verdict.reasons == ("image b moved", "image c moved", "text a moved")
    assert verdict.sentence == "Drift in image: image b moved."


def test_what_a_person_can_see_is_said_before_what_a_classifier_sees() -> None:
    verdict = judge([one("audio", "embedding", 1e-9, 2.1), one("audio", "loudness", 1e-9, 2.0)], 0.05, 0.2)
    assert verdict.reasons == ("audio loudness moved", "audio embedding moved") and verdict.ranking == (("audio", 2.1),)


def test_missing_pictures_are_a_matter_of_data_quality_that_the_pictures_are_blamed_for() -> None:
    assert judge([one("data quality", "image given", 1e-9, subject="image")], 0.05, 0.2).blamed == "image"


def test_predictions_are_blamed_only_where_nothing_else_moved() -> None:
    predicted, taste = one("predictions", "confidence", 1e-9, 2.9), one("behaviour", "taste", 1e-9, 0.3)
    assert judge([predicted, taste], 0.05, 0.2).blamed == "behaviour"
    assert judge([predicted], 0.05, 0.2).blamed == "predictions"


def test_what_gave_no_number_is_not_computable_and_takes_no_share_of_alpha() -> None:
    verdict = judge(
        [one("image", "a", math.nan), one("text", "b", None, None, why="no texts"), one("audio", "c", 0.04)], 0.05, 0.2
    )
    assert verdict.status == "drift" and verdict.measures[2].level == pytest.approx(0.05)
    assert verdict.not_computable == ("image, a: the test gave no number (a degenerate column)", "text, b: no texts")


def test_nothing_computed_is_neither_drift_nor_none() -> None:
    verdict = judge([Measure("reference", "tables", why="data/tables is missing")], 0.05, 0.2)
    assert verdict.status == "not computable" and "data/tables is missing" in verdict.sentence
    assert judge([], 0.05, 0.2).status == "not computable"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1), st.floats(0, 3)), max_size=9))
def test_no_test_alarms_above_alpha_or_below_the_least_effect(rows: list[tuple[str, float, float]]) -> None:
    verdict = judge([one(part, str(n), p, effect) for n, (part, p, effect) in enumerate(rows)], 0.05, 0.2)
    assert all(m.p <= 0.05 and m.effect >= 0.2 for m in verdict.measures if m.alarm)
    assert (verdict.status == "drift") == any(m.alarm for m in verdict.measures)
    assert [m.name for m in verdict.measures] == [str(n) for n in range(len(rows))]


def test_effects_of_shares_and_classifiers() -> None:
    assert cohens_h(0.0, 1.0) == pytest.approx(math.pi)
    assert cohens_h(0.5, 0.25) == pytest.approx(-math.pi / 6)
    assert d_of_auc(0.5) == 0 and d_of_auc(0.3) == 0
    assert d_of_auc(0.5562) == pytest.approx(0.2, abs=1e-3)  # Phi(0.2 / sqrt 2)
    assert d_of_auc(1.0) == CAP
