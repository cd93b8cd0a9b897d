"""Which event belongs to which impression, worked by hand; what the log never speaks of is unknown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from fusionrec.data.outcomes import SCHEMA, divided, outcomes, place
from fusionrec.data.positives import positive_pairs
from fusionrec.data.protocols import Given, GlobalTime, LeaveLastOut, RandomPerUser

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def log(*rows: tuple[str, str, str, float | None, dict[str, object]]) -> pl.DataFrame:
    """(user, item, event, minutes from the start or None, other columns)."""
    names = {name for *_, other in rows for name in other}
    made = [
        {
            "user_id": user,
            "item_id": item,
            "event": event,
            "timestamp": None if minutes is None else START + timedelta(minutes=minutes),
            **{name: other.get(name) for name in names},
        }
        for user, item, event, minutes, other in rows
    ]
    kinds = {"timestamp": pl.Datetime("us", "UTC"), "value": pl.Float64, "position": pl.Int32}
    return pl.DataFrame(made, schema_overrides={k: v for k, v in kinds.items() if k in made[0]})


def told(found: pl.DataFrame) -> list[tuple[object, ...]]:
    return found.select("user_id", "item_id", "click", "conversion", "rating").rows()


def test_an_event_goes_to_the_impression_it_names_and_else_to_the_latest_one_in_time() -> None:
    found = outcomes(
        log(
            ("a", "x", "impression", 0, {"impression_id": "i1", "position": 2, "surface": "home"}),
            ("a", "x", "impression", 10, {"impression_id": "i2", "position": 5, "surface": "search"}),
            ("a", "x", "click", 12, {"impression_id": "i1"}),  # names the first although the second is nearer
            ("b", "x", "impression", 0, {}),
            ("b", "x", "impression", 20, {}),
            ("b", "x", "click", 25, {}),
            ("b", "y", "impression", 0, {}),
            ("b", "y", "click", 31, {}),  # too late
            ("b", "z", "purchase", 1, {}),  # never shown
            ("c", "x", "impression", 5, {}),
            ("c", "x", "click", 4, {}),  # before it was shown
        )
    )
    assert told(found.rows) == [
        ("a", "x", True, False, None),
        ("b", "x", False, False, None),
        ("b", "y", False, False, None),
        ("c", "x", False, False, None),
        ("a", "x", False, False, None),
        ("b", "x", True, False, None),
    ]
    assert found.lost == {"click": 2, "purchase": 1}
    first = found.rows.filter(pl.col("user_id") == "a").row(0, named=True)
    assert first["position"] == 2 and first["surface"] == "home"
    assert first["until"] == START + timedelta(minutes=12), "what it tells of ended then"
    assert found.rows.schema == pl.Schema(SCHEMA)


def test_an_id_of_somebody_elses_impression_is_not_believed() -> None:
    found = outcomes(
        log(
            ("a", "x", "impression", 0, {"impression_id": "i1"}),
            ("b", "x", "impression", 0, {"impression_id": "i2"}),
            ("b", "x", "click", 1, {"impression_id": "i1"}),
        )
    )
    assert told(found.rows) == [("a", "x", False, None, None), ("b", "x", True, None, None)] and not found.lost


def test_what_came_of_a_row_is_not_before_it_where_clocks_disagree() -> None:
    named = {"impression_id": "i1"}
    rows = outcomes(
        log(
            ("a", "x", "impression", 10, named),  # written when the page was closed
            ("a", "x", "purchase", 12, named),
            ("a", "x", "click", 8, named),
            ("a", "y", "impression", 9, {}),
            ("a", "y", "click", 11, {}),
        )
    ).rows
    assert rows["item_id"].to_list() == ["x", "y"] and rows["click"].all()
    assert rows["timestamp"].to_list() == [START + timedelta(minutes=minutes) for minutes in (8, 9)]
    assert rows["until"].to_list() == [START + timedelta(minutes=minutes) for minutes in (12, 11)]
    untimed = outcomes(log(("a", "x", "impression", None, named), ("a", "x", "click", 8, named))).rows
    assert untimed["click"].all() and untimed["timestamp"].null_count() == 1
    late = outcomes(log(("a", "x", "impression", 8, named), ("a", "x", "click", None, named))).rows
    assert late["click"].all() and late["timestamp"].to_list() == [START + timedelta(minutes=8)]


def test_a_whole_list_may_share_an_id() -> None:
    request = {"impression_id": "q1"}
    found = outcomes(
        log(
            *(("a", item, "impression", 0, request) for item in "xyz"),
            ("a", "x", "click", 2, request),
            ("a", "y", "impression", 5, {"impression_id": "q2"}),
            ("a", "y", "purchase", 45, request),  # too late to be joined by time
            ("a", "w", "click", 6, request),  # the list did not show it
            ("b", "z", "click", 6, request),  # nor was it this user's
        )
    )
    assert told(found.rows) == [
        ("a", "x", True, False, None),
        ("a", "y", True, True, None),
        ("a", "z", False, False, None),
        ("a", "y", False, False, None),
    ]
    assert found.lost == {"click": 2}


def test_who_buys_has_clicked_and_unheard_tasks_are_unknown() -> None:
    rows = outcomes(
        log(("a", "x", "impression", 0, {}), ("a", "x", "purchase", 3, {}), ("a", "y", "impression", 1, {}))
    ).rows
    assert told(rows) == [("a", "x", True, True, None), ("a", "y", False, False, None)]
    assert rows["ad_click"].null_count() == 2 and rows["cart"].null_count() == 2
    silent = outcomes(log(("a", "x", "impression", 0, {}))).rows
    assert silent.select("click", "conversion").null_count().row(0) == (1, 1)


def test_a_rating_is_a_row_of_its_own_and_needs_a_value() -> None:
    rows = outcomes(
        log(
            ("a", "x", "impression", 0, {"value": None, "position": 4}),
            ("a", "x", "rating", 900, {"value": 4.0}),
            ("a", "y", "rating", 901, {"value": None}),
        )
    ).rows
    assert told(rows) == [("a", "x", None, None, None), ("a", "x", None, None, 4.0)]
    assert rows["position"].to_list() == [4, None]


def test_views_stand_for_impressions_where_there_are_none() -> None:
    rows = outcomes(log(("a", "x", "view", 0, {}), ("a", "x", "click", 1, {}))).rows
    assert told(rows) == [("a", "x", True, None, None)]
    both = outcomes(log(("a", "x", "view", 0, {}), ("a", "y", "impression", 0, {}), ("a", "y", "click", 1, {}))).rows
    assert [row[1] for row in told(both)] == ["y"]


def test_without_times_the_pairs_first_impression_gets_it() -> None:
    rows = outcomes(
        log(("a", "x", "impression", None, {}), ("a", "x", "click", None, {}), ("a", "y", "impression", None, {}))
    ).rows
    assert sorted(told(rows), key=str) == [("a", "x", True, None, None), ("a", "y", False, None, None)]


def test_likes_are_a_task_only_where_some_are_denied() -> None:
    rows = outcomes(log(("a", "x", "like", 0, {"value": 1.0}), ("a", "y", "like", 1, {"value": 0.0}))).rows
    assert rows["like"].to_list() == [True, False] and rows["click"].null_count() == 2
    assert outcomes(log(("a", "x", "like", 0, {"value": 1.0}), ("a", "y", "like", 1, {"value": 1.0}))).rows.height == 0


def split(spec: object, found: pl.DataFrame, whole: pl.DataFrame) -> list[int]:
    pairs = positive_pairs(whole, {"click": None})
    return place(spec, found, pairs, spec.place(pairs, START.date()), START.date()).to_list()  # type: ignore[attr-defined]


def test_no_row_of_train_tells_of_a_later_positive() -> None:
    whole = log(
        ("a", "x", "impression", 0, {}),
        ("a", "x", "click", 1, {}),
        ("a", "y", "impression", 60, {}),
        ("a", "y", "click", 62, {}),
        ("a", "z", "impression", 119, {}),  # shown before the cut, clicked after it
        ("a", "z", "click", 121, {}),
        ("a", "w", "impression", 119.5, {}),
        ("b", "x", "impression", 500, {}),
    )
    found = outcomes(whole).rows
    assert found["item_id"].to_list() == ["x", "y", "z", "w", "x"]
    cut = GlobalTime(valid_from=START + timedelta(minutes=61), test_from=START + timedelta(minutes=120))
    assert split(cut, found, whole) == [0, 1, 2, 1, 2]
    assert split(LeaveLastOut(), found, whole) == [0, 1, 2, 1, 0], "b has no positive, so nothing of b is asked"
    drawn = RandomPerUser(ratios=(1, 1, 1), seed=3)
    pairs = positive_pairs(whole, {"click": None})
    of_pair = dict(zip(pairs.select("user_id", "item_id").rows(), drawn.place(pairs, None).to_list(), strict=True))
    shown, at = found.select("user_id", "item_id").rows(), split(drawn, found, whole)
    assert [of_pair.get(pair, part) for pair, part in zip(shown, at, strict=True)] == at
    labelled = outcomes(whole.with_columns(x_label=pl.Series([0, 0, 1, 1, 2, 2, 0, 2]))).rows
    pairs = positive_pairs(whole.with_columns(x_label=pl.Series([0, 0, 1, 1, 2, 2, 0, 2])), {"click": None})
    assert place(Given(), labelled, pairs, Given().place(pairs, None), None).to_list() == [0, 1, 2, 0, 2]


@pytest.mark.parametrize("kind", [pl.Int64, pl.String])
def test_no_row_of_train_tells_of_a_choice_that_the_data_give_to_another_part(kind: type[pl.DataType]) -> None:
    whole = log(
        ("a", "x", "impression", 0, {"x_label": 0}),
        ("a", "x", "click", 1, {"x_label": 0}),
        ("a", "y", "impression", 2, {"x_label": 0}),
        ("a", "y", "click", 3, {"x_label": 1}),
        ("a", "z", "impression", 4, {"x_label": 0}),
        ("a", "z", "cart", 5, {"x_label": 0}),
        ("a", "z", "click", 6, {"x_label": 2}),
        ("b", "z", "impression", 7, {"x_label": 0}),
        ("b", "x", "impression", 8, {"x_label": 2}),
        ("b", "x", "click", 9, {"x_label": 0}),
    ).with_columns(pl.col("x_label").cast(kind))
    pairs = positive_pairs(whole, {"click": None})
    parts = divided(Given(), whole, pairs, Given().place(pairs, None), None)
    found = {name: part.select("user_id", "item_id", "click").rows() for name, part in parts.items()}
    assert found == {
        "train": [("a", "x", True), ("b", "z", False)],
        "valid": [("a", "y", True)],
        "test": [("a", "z", True), ("b", "x", True)],
    }


@pytest.mark.parametrize("event", ["click", "purchase", "like"])
def test_a_log_of_choices_alone_has_no_rows(event: str) -> None:
    found = outcomes(log(("a", "x", event, 0, {}), ("b", "y", event, 1, {})))
    assert found.rows.height == 0 and found.rows.schema == pl.Schema(SCHEMA)
    assert found.lost == ({} if event == "like" else {event: 2})


def test_a_given_label_is_kept() -> None:
    rows = outcomes(
        log(("a", "x", "impression", 0, {"x_label": 2}), ("a", "x", "rating", 9, {"x_label": 1, "value": 3.0}))
    ).rows
    assert rows["x_label"].to_list() == [2, 1]
