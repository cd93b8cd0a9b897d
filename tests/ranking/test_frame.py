"""Tables become row numbers and codes: unknown is 0 or -1, never somebody else."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from fusionrec.data.outcomes import SCHEMA
from fusionrec.ranking import frame


def rows(*given: dict[str, object]) -> pl.DataFrame:
    return pl.DataFrame([{name: row.get(name) for name in SCHEMA} for row in given], schema=SCHEMA)


def test_rows_become_numbers() -> None:
    from datetime import UTC, datetime

    at = datetime(2026, 1, 1, tzinfo=UTC)
    found = frame.impressions(
        rows(
            {"user_id": "b", "item_id": "y", "timestamp": at, "position": 3, "surface": "home", "click": True},
            {"user_id": "new", "item_id": "x", "timestamp": at, "surface": "moon", "click": False, "rating": 4.5},
            {"user_id": "a", "item_id": "gone", "timestamp": at},
        ),
        ["x", "y"],
        ["a", "b"],
        ["home", "search"],
    )
    assert found.user.tolist() == [1, -1] and found.item.tolist() == [1, 0]
    assert found.context["position"].tolist() == [3, 0] and found.context["surface"].tolist() == [1, 0]
    assert found.labels["click"].tolist() == [1.0, 0.0]
    np.testing.assert_array_equal(found.labels["conversion"], [np.nan, np.nan])
    np.testing.assert_array_equal(found.labels["rating"], np.array([np.nan, 4.5], np.float32))
    assert found.time is not None and found.time[0] == int(at.timestamp() * 1e6)
    assert frame.impressions(rows({"user_id": "a", "item_id": "x"}), ["x"], ["a"]).time is None
    assert frame.surfaces_of(rows({"surface": "home"}, {"surface": None}, {"surface": "ad"})) == ["ad", "home"]


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
    found = frame.user_set(users, ["a", "b", "c", "nobody"])
    assert found.codes["member"].tolist() == [1, 0, 2, 0] and found.codes["region"].tolist() == [0, 1, 2, 0]
    assert sorted(found.codes) == ["age", "member", "region"], "a list is no attribute"
    assert found.sizes["region"] == 3 and found.sizes["member"] == 3
    assert found.codes["age"][0] < found.codes["age"][2] and not found.codes["age"][[1, 3]].any()
    assert all(codes.max() < found.sizes[name] for name, codes in found.codes.items())
    assert frame.user_set(None, ["a"]).codes == {} and len(frame.user_set(users, [])) == 0


def test_another_user_changes_no_code() -> None:
    users = pl.DataFrame({"user_id": ["a", "b", "z"], "region": ["m", "n", "a"], "age": [1, 2, 1000]})
    one, other = frame.user_set(users, ["a", "b"]), frame.user_set(users.head(2), ["a", "b"])
    assert all((one.codes[name] == other.codes[name]).all() for name in one.codes) and one.sizes == other.sizes


def test_rare_values_read_as_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "MOST_VALUES", 2)
    users = pl.DataFrame({"user_id": list("abcdef"), "region": ["n", "n", "s", "s", "w", "e"]})
    assert frame.user_set(users, list("abcdef")).codes["region"].tolist() == [1, 1, 2, 2, 0, 0]
