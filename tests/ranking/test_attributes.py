"""Attributes of users become codes by a coding that is learnt once: unknown is 0, no value tells who somebody is."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from fusionrec.ranking import attributes
from fusionrec.ranking.attributes import Coding
from fusionrec.ranking.base import UserSet


def learnt(users: pl.DataFrame, ids: list[str], fewest: int = 1) -> UserSet:
    return Coding.learn(users, ids, fewest).of(users, ids)


def test_attributes_become_codes_with_an_unknown_one() -> None:
    users = pl.DataFrame(
        {
            "user_id": ["c", "a", "b"],
            "region": ["south", None, "north"],
            "age": [30.0, 20.0, None],
            "member": [True, False, None],
            "tags": [["x"], ["y"], None],
        }
    )
    found = learnt(users, ["a", "b", "c", "nobody"])
    assert found.codes["member"].tolist() == [1, 0, 2, 0] and found.codes["region"].tolist() == [0, 1, 2, 0]
    assert sorted(found.codes) == ["age", "member", "region"], "a list is no attribute"
    assert found.sizes["region"] == 3 and found.sizes["member"] == 3
    assert found.codes["age"][0] < found.codes["age"][2] and not found.codes["age"][[1, 3]].any()
    assert all(codes.max() < found.sizes[name] for name, codes in found.codes.items())
    assert learnt(pl.DataFrame({"user_id": ["a"]}), ["a"]).codes == {} and len(learnt(users, [])) == 0


def test_what_the_coding_never_met_reads_as_unknown() -> None:
    ids = list("abcdef")
    users = pl.DataFrame(
        {"user_id": ids, "region": ["n", "s"] * 3, "age": [20.0, 30.0, float("nan"), 40.0, None, 50.0]}
    )
    coding = Coding.learn(users, ids, 1)
    assert all(np.isfinite(cut) for cut in coding.edges["age"]) and len(coding.edges["age"]) > 2
    assert coding.of(users, ids).codes["age"].tolist()[2::2] == [0, 0], "NaN is no age"
    region, age = ["elsewhere", "", None, "N", "s", "<b>"], ["x", "31", "", "nan", None, "-5"]
    later = pl.DataFrame({"user_id": ids, "region": region, "age": age})
    found = coding.of(later, ids)
    assert found.codes["region"].tolist() == [0, 0, 0, 0, 2, 0]
    assert (found.codes["age"] > 0).tolist() == [False, True, False, False, False, True]
    assert all(codes.max() < found.sizes[name] for name, codes in found.codes.items())


def test_a_column_that_has_turned_into_lists_reads_as_unknown() -> None:
    ids = ["a", "b"]
    coding = Coding.learn(pl.DataFrame({"user_id": ids, "region": ["south", "north"], "age": [30, 20]}), ids, 1)
    lists = pl.DataFrame({"user_id": ids, "region": [["south"], ["north"]], "age": [[30], [20]]})
    assert {name: codes.tolist() for name, codes in coding.of(lists, ids).codes.items()} == {
        "age": [0, 0], "region": [0, 0]
    }  # fmt: skip


def test_another_user_changes_no_code() -> None:
    users = pl.DataFrame({"user_id": ["a", "b", "z"], "region": ["m", "n", "a"], "age": [1, 2, 1000]})
    one, other = learnt(users, ["a", "b"]), learnt(users.head(2), ["a", "b"])
    assert all((one.codes[name] == other.codes[name]).all() for name in one.codes) and one.sizes == other.sizes


def test_rare_values_read_as_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    users = pl.DataFrame({"user_id": list("abcdef"), "region": ["n", "n", "s", "s", "w", "e"]})
    assert learnt(users, list("abcdef"), fewest=2).codes["region"].tolist() == [1, 1, 2, 2, 0, 0]
    monkeypatch.setattr(attributes, "MOST", 1)
    assert learnt(users, list("abcdef")).codes["region"].tolist() == [1, 1, 0, 0, 0, 0]


def test_a_value_of_few_users_is_not_kept() -> None:
    ids = [f"u{n}" for n in range(12)]
    users = pl.DataFrame({"user_id": ids, "name": [f"name {n}" for n in range(12)], "region": ["n", "s"] * 6})
    coding = Coding.learn(users, ids)
    assert coding.values == {"name": (), "region": ("n", "s")}
    assert not coding.of(users, ids).codes["name"].any()


def test_a_coding_that_was_written_codes_others_in_the_same_way() -> None:
    users = pl.DataFrame({"user_id": ["a", "b", "c"], "region": ["n", "s", "n"], "age": [1.0, 5.0, 9.0]})
    coding = Coding.learn(users, ["a", "b", "c"], 1)
    again = Coding.from_json(json.loads(json.dumps(coding.as_json())))
    assert again == coding
    others = pl.DataFrame({"user_id": ["y", "x"], "age": [1.0, None], "region": ["s", "moon"], "new": ["1", "2"]})
    found = again.of(others, ["x", "y", "z"])
    assert found.codes["region"].tolist() == [0, 2, 0] and found.codes["age"].tolist() == [0, found.codes["age"][1], 0]
    assert found.codes["age"][1] == coding.of(users, ["a"]).codes["age"][0]
    nothing = again.of(others.select("user_id"), ["x"])
    assert nothing.sizes == found.sizes and not any(codes.any() for codes in nothing.codes.values())
