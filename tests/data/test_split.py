"""Splits known by hand, stable under growth, without leaks (X13), and the smallest data there is (X30)."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from fusionrec.data import split
from fusionrec.data.positives import k_core, positive_pairs
from fusionrec.data.schema import TIME
from fusionrec.errors import ConfigError, DataRejected
from fusionrec.types import item_order

from .conftest import Project

DAY = datetime(2026, 1, 1, tzinfo=UTC)
ANY = TypeAdapter(split.AnySplit)


def pairs(rows: list[tuple[str, str, int | None]]) -> pl.DataFrame:
    """(user, item, day from 1) -> pairs."""
    times = [None if d is None else DAY + timedelta(days=d - 1, hours=3) for *_, d in rows]
    return pl.DataFrame(
        {"user_id": [r[0] for r in rows], "item_id": [r[1] for r in rows], "timestamp": pl.Series(times, dtype=TIME)}
    )


def items(*ids: str) -> pl.DataFrame:
    return pl.DataFrame({"item_id": list(ids)}, schema={"item_id": pl.String})


def held(found: split.Splits) -> dict[str, set[tuple[str, str]]]:
    return {name: set(part.select("user_id", "item_id").iter_rows()) for name, part in found.parts.items()}


def log(rows: list[tuple[str, str, str, float | None, int]]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user_id": [r[0] for r in rows],
            "item_id": [r[1] for r in rows],
            "event": [r[2] for r in rows],
            "value": pl.Series([r[3] for r in rows], dtype=pl.Float64),
            "timestamp": pl.Series([DAY + timedelta(days=r[4]) for r in rows], dtype=TIME),
        }
    )


def test_positives_known_by_hand() -> None:
    frame = log(
        [
            ("u", "a", "view", None, 0),
            ("u", "a", "click", None, 2),
            ("u", "a", "click", None, 1),
            ("u", "b", "rating", 3.5, 1),
            ("u", "c", "rating", 4.0, 3),
            ("u", "d", "rating", None, 3),
            ("v", "a", "purchase", None, 0),
        ]
    )
    found = positive_pairs(frame, {"click": None, "rating": 4.0, "like": None})
    assert found.rows() == [("u", "a", DAY + timedelta(days=1)), ("u", "c", DAY + timedelta(days=3))]
    untimed = positive_pairs(frame.drop("timestamp"), {"click": None})
    assert untimed.rows() == [("u", "a", None)]
    assert untimed["timestamp"].dtype == TIME


def test_a_like_of_zero_is_a_no() -> None:
    frame = log([("u", "a", "like", 1.0, 0), ("u", "b", "like", 0.0, 0), ("u", "c", "like", None, 0),
                 ("u", "d", "like", -1.0, 0), ("u", "e", "click", 0.0, 0)])  # fmt: skip
    assert positive_pairs(frame, {"like": None, "click": None})["item_id"].to_list() == ["a", "c", "e"]
    assert positive_pairs(frame, {"like": 0.0})["item_id"].to_list() == ["a", "b"], "who says so gets it"


def test_k_core_known_by_hand() -> None:
    full = pairs(
        [("u", "a", 1), ("u", "b", 1), ("v", "a", 1), ("v", "b", 1), ("w", "b", 1), ("w", "c", 1), ("x", "c", 1)]
    )
    assert set(k_core(full, 2)["user_id"]) == {"u", "v"}  # x falls, then c, then w
    assert k_core(full, 1).equals(full)
    assert k_core(full, 3).height == 0


def test_k_core_is_cut_from_train_only() -> None:
    rows = [("u", "a", 1), ("u", "b", 1), ("v", "a", 1), ("v", "b", 1), ("w", "a", 1), ("w", "b", 9), ("u", "c", 20)]
    found = split.make(split.GlobalTime(valid_from=5, test_from=15), items("a", "b", "c"), pairs(rows), 2, DAY.date())
    assert held(found) == {
        "train": {("u", "a"), ("u", "b"), ("v", "a"), ("v", "b")},
        "valid": {("w", "b")},
        "test": {("u", "c")},
    }
    assert found.summary["valid"]["cold_users"] == 1
    assert found.summary["test"]["cold_items"] == 1
    assert found.summary["train_pairs_cut_by_k_core"] == 1


def test_global_time_day_numbers_equal_dates() -> None:
    rows = [("u", "a", 1), ("u", "b", 70), ("u", "c", 71), ("v", "a", 80), ("v", "b", 81), ("v", "c", 90)]
    by_number = split.make(
        split.GlobalTime(valid_from=71, test_from=81), items("a", "b", "c"), pairs(rows), 0, DAY.date()
    )
    by_date = split.make(
        ANY.validate_python({"kind": "global_time", "valid_from": "2026-03-12", "test_from": "2026-03-22"}),
        items("a", "b", "c"),
        pairs(rows),
        0,
        date(2020, 5, 5),
    )
    assert (
        held(by_number)
        == held(by_date)
        == {
            "train": {("u", "a"), ("u", "b")},
            "valid": {("u", "c"), ("v", "a")},
            "test": {("v", "b"), ("v", "c")},
        }
    )
    assert by_number.summary["windows"] == {"valid_from": "2026-03-12T00:00:00Z", "test_from": "2026-03-22T00:00:00Z"}


def test_leave_last_out_known_by_hand() -> None:
    rows = [("u", "a", 1), ("u", "b", 3), ("u", "c", 2), ("v", "a", 5), ("v", "b", 4), ("w", "a", 1)]
    found = split.make(split.LeaveLastOut(), items("a", "b", "c"), pairs(rows), 0, DAY.date())
    assert held(found) == {
        "train": {("u", "a"), ("v", "b"), ("w", "a")},
        "valid": {("u", "c")},
        "test": {("u", "b"), ("v", "a")},
    }


def test_pairs_of_unknown_items_move_nothing_and_what_was_shown_is_placed_by_the_others() -> None:
    rows = [("u", "a", 1), ("u", "b", 2), ("u", "c", 3), ("u", "gone", 4)]
    found = split.make(split.LeaveLastOut(), items("a", "b", "c"), pairs(rows), 0, DAY.date())
    assert found.pairs["item_id"].to_list() == ["a", "b", "c"] and found.place.to_list() == [0, 1, 2]
    shown = pairs(rows)
    placed = split.LeaveLastOut().place_rows(shown, found.pairs, found.place, DAY.date())
    assert placed.to_list() == [0, 1, 2, 2]


@pytest.mark.parametrize("kind", ["leave_last_out", "global_time"])
def test_temporal_splits_without_time_say_what_is_possible(kind: str) -> None:
    spec = ANY.validate_python({"kind": kind, **({"valid_from": 2, "test_from": 3} if kind == "global_time" else {})})
    with pytest.raises(ConfigError, match="only random_per_user is possible"):
        split.make(spec, items("a"), pairs([("u", "a", None)]), 0, None)


many = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(1, 30)), min_size=1, max_size=40)


def _unique(raw: list[tuple[int, int, int]]) -> list[tuple[str, str, int]]:
    return [(f"u{u}", f"i{i}", d) for (u, i), d in {(u, i): d for u, i, d in raw}.items()]


@given(many, many, st.integers(0, 3))
def test_random_split_never_moves_an_old_pair(old: list[Any], new: list[Any], seed: int) -> None:
    before = _unique(old)
    known = {(u, i) for u, i, _ in before}
    after = before + [p for p in _unique(new) if p[:2] not in known]
    spec = split.RandomPerUser(seed=seed, ratios=(5, 3, 2))
    places = [
        dict(zip([r[:2] for r in rows], spec.place(pairs(rows), None).to_list(), strict=True))
        for rows in (before, after[::-1])
    ]
    assert all(places[1][pair] == place for pair, place in places[0].items())


def test_random_split_has_the_shares_and_follows_the_seed() -> None:
    rows = pairs([(f"u{n % 40}", f"i{n // 40}", 1) for n in range(4000)])
    share = split.RandomPerUser().place(rows, None).value_counts(normalize=True).sort("place")["proportion"].to_list()
    assert np.allclose(share, [0.8, 0.1, 0.1], atol=0.02)  # 3 standard errors of 4000 draws
    assert not split.RandomPerUser(seed=1).place(rows, None).equals(split.RandomPerUser(seed=2).place(rows, None))


@given(many, st.integers(2, 15), st.integers(1, 15))
def test_global_time_leaks_nothing(raw: list[Any], valid: int, more: int) -> None:
    rows = _unique(raw)
    ids = items(*{i for _, i, _ in rows})
    spec = split.GlobalTime(valid_from=valid, test_from=valid + more)
    try:
        found = split.make(spec, ids, pairs(rows), 0, DAY.date())
    except DataRejected:
        assert all(d >= valid for *_, d in rows)
        return
    latest, parts = None, found.parts
    for name in split.NAMES:
        part = parts[name]
        if part.height:
            assert latest is None or latest <= part["timestamp"].min()
            latest = part["timestamp"].max()
    assert sum(p.height for p in parts.values()) == len(rows)


@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "global_time", "valid_from": 81, "test_from": 71},
        {"kind": "global_time", "valid_from": "2026-01-01", "test_from": 9},
        {"kind": "global_time", "valid_from": "soon", "test_from": "later"},
        {"kind": "random_per_user", "ratios": [0, 1, 1]},
        {"kind": "random_per_user", "ratio": [8, 1, 1]},
        {"kind": "by_mood"},
    ],
)
def test_impossible_specs_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ANY.validate_python(bad)


def _written(project: Project) -> split.SplitData:
    rows = [
        ("u", "a", 1),
        ("u", "b", 2),
        ("v", "a", 2),
        ("u", "c", 6),
        ("w", "a", 7),
        ("u", "d", 11),
        ("w", "b", 12),
        ("x", "d", 13),
    ]
    found = split.make(
        split.GlobalTime(valid_from=5, test_from=10), items("d", "c", "b", "a", "e"), pairs(rows), 0, DAY.date()
    )
    split.write(project.paths, found)
    return split.load(project.paths, ("train", "valid", "test"))


def test_index_form(empty: Project) -> None:
    data = _written(empty)
    assert data.items == tuple(item_order("abcde"))
    assert data.users == ("u", "v")
    assert data.train_end == "2026-01-02T03:00:00Z"
    at = {i: n for n, i in enumerate(data.items)}
    assert list(zip(data.train.user, data.train.item, strict=True)) == [(0, at["a"]), (0, at["b"]), (1, at["a"])]
    assert [(data.valid.user.tolist(), data.valid.item.tolist())] == [([0], [at["c"]])]  # w is not in train
    assert data.valid.n_users == 2
    assert data.valid.n_items == 5
    assert data.train.time is not None
    assert data.train.time[0] == int((DAY + timedelta(hours=3)).timestamp() * 1e6)


def test_requests(empty: Project) -> None:
    data = _written(empty)
    at = {i: n for n, i in enumerate(data.items)}
    asked = split.requests(data, "test", history=("train", "valid"))
    assert sorted(asked.users) == ["u", "w", "x"]
    order = [asked.users.index(user) for user in ("u", "w", "x")]  # users stand in hash order
    assert asked.requests.user[order].tolist() == [0, -1, -1]
    assert asked.positives.shape == asked.requests.history.shape == (3, 5)

    def cells(matrix: Any) -> list[set[int]]:
        rows = [set(matrix.indices[a:b].tolist()) for a, b in zip(matrix.indptr, matrix.indptr[1:], strict=False)]
        return [rows[at] for at in order]

    assert cells(asked.positives) == [{at["d"]}, {at["b"]}, {at["d"]}]
    assert cells(asked.requests.history) == [{at["a"], at["b"], at["c"]}, {at["a"]}, set()]
    assert asked.requests.history.dtype == np.float32
    assert asked.requests.time is not None
    assert asked.requests.time[order].tolist() == [
        int((DAY + timedelta(days=d, hours=3)).timestamp() * 1e6) for d in (10, 11, 12)
    ]
    stamps = asked.requests.history_time
    assert stamps is not None
    assert np.array_equal(stamps.indices, asked.requests.history.indices)
    assert stamps[order[0], at["c"]] == int((DAY + timedelta(days=5, hours=3)).timestamp() * 1e6)
    assert stamps.max() < asked.requests.time.min()
    assert cells(split.requests(data, "test").requests.history) == [{at["a"], at["b"]}, set(), set()]
    with pytest.raises(ValueError, match="its own history"):
        split.requests(data, "test", history=("train", "test"))


def test_training_does_not_need_the_test_split(empty: Project) -> None:
    _written(empty)
    (empty.paths.splits / "test.parquet").unlink()
    data = split.load(empty.paths, ("train", "valid"))
    assert len(data.train) == 3
    with pytest.raises(ValueError, match="'test' was not loaded"):
        _ = data.test
    with pytest.raises(DataRejected, match="run the stage split"):
        split.load(empty.paths, ("test",))


@pytest.mark.parametrize("timed", [True, False])
def test_one_user_one_item_one_interaction(empty: Project, timed: bool) -> None:
    empty.put("items", [{"item_id": "only"}])
    empty.put(
        "interactions",
        [{"user_id": "u", "item_id": "only", "event": "click", **({"timestamp": "2026-01-01"} if timed else {})}],
    )
    empty.params["split"] = {"kind": "leave_last_out"} if timed else {"kind": "random_per_user", "ratios": [1, 0, 0]}
    empty.all()
    data = split.load(empty.paths, split.NAMES)
    assert len(data.train) == 1
    assert len(data.valid) == len(data.test) == 0
    assert (data.train.time is not None) is timed
    asked = split.requests(data, "test", ("train", "valid"))
    assert len(asked.requests) == 0
    assert asked.positives.shape == (0, 1)


def test_all_in_the_test_window_is_nothing_to_train_on() -> None:
    with pytest.raises(
        DataRejected, match="nothing to train on: of 1 positive pairs none is in train; found train 0, valid 0, test 1"
    ):
        split.make(split.GlobalTime(valid_from=2, test_from=3), items("a"), pairs([("u", "a", 9)]), 0, DAY.date())
    with pytest.raises(DataRejected, match="no interaction counts as a positive"):
        split.make(split.RandomPerUser(), items("a"), pairs([]), 0, None)


def test_cold_items_of_a_random_split_never_meet_train_and_stay_when_data_grows() -> None:
    rng = np.random.default_rng(3)
    log = pl.DataFrame(
        {
            "user_id": [f"u{i}" for i in rng.integers(0, 40, 3000)],
            "item_id": [f"i{i}" for i in rng.integers(0, 200, 3000)],
        }
    ).unique(maintain_order=True)
    spec = split.RandomPerUser(cold_items=0.2)
    place = spec.place(log, None)
    by_item = log.with_columns(place=place).group_by("item_id").agg(pl.col("place").unique())
    only = by_item.filter(pl.col("place").list.len() == 1, pl.col("place").list.first() > 0)
    assert 20 <= only.height <= 60  # 200 items, a fifth of them: 40 expected
    assert {1, 2} == set(only["place"].list.first())
    more = pl.concat([log, pl.DataFrame({"user_id": ["new"] * 50, "item_id": [f"i{i}" for i in range(50)]})])
    assert spec.place(more, None).head(log.height).to_list() == place.to_list()


def test_the_order_of_users_is_a_function_of_what_they_did_not_of_their_names() -> None:
    rows = [("p", "a", 1), ("p", "b", 2), ("q", "a", 3), ("r", "c", 4)]
    frame = pairs(rows)
    renamed = pairs([({"p": "z", "q": "m", "r": "b"}[u], i, d) for u, i, d in rows])
    back = {"z": "p", "m": "q", "b": "r"}
    assert [back[u] for u in split.ordered_users(renamed)] == split.ordered_users(frame)
    assert split.ordered_users(frame.reverse()) == split.ordered_users(frame)
