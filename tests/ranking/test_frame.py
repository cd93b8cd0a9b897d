"""Tables become row numbers and codes: unknown is 0 or -1, never somebody else."""

from __future__ import annotations

import numpy as np
import polars as pl

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
    many = rows(*({"surface": f"page {n}"} for n in range(frame.MOST + 9)), {"surface": "page 3"}, {"surface": "z"})
    kept = frame.surfaces_of(many.vstack(rows({"surface": "z"})))
    assert len(kept) == frame.MOST and {"page 3", "z"} <= {*kept}, "of too many the frequent ones"
    assert frame.surfaces_of(rows({"surface": "home"}, {"surface": None}, {"surface": "ad"})) == ["ad", "home"]
