"""The real films, where their folder is at hand: export FUSIONREC_MOVIES=/path/to/the/folder."""

from __future__ import annotations

import os
import time

import pytest

from fusionrec.data import split, tables

from .conftest import Project

pytestmark = pytest.mark.skipif(
    "FUSIONREC_MOVIES" not in os.environ, reason="set FUSIONREC_MOVIES to the folder of the real films"
)


def test_films_pass_the_gate_and_split(empty: Project) -> None:
    empty.params["source"] = {
        "kind": "folder",
        "root": os.environ["FUSIONREC_MOVIES"],
        "items": {"columns": {"category": "genres", "spoken": "language"}},
        "interactions": {"columns": {"value": "liked"}, "constants": {"event": "like"}},
        "media": {"image": "images/{item_id}.jpg"},
    }
    empty.params["positives"] = {"events": {"like": 1.0}}
    started = time.process_time()
    empty.ingest()
    assert time.process_time() - started < 15
    empty.validate()
    empty.split()
    items = tables.accepted(empty.paths, "items")
    assert items.height == 3883
    assert items["image_sha256"].drop_nulls().len() == 3323  # the posters of the data set's own description
    data = split.load(empty.paths, split.NAMES)
    total = sum(f.height for f in data.frames.values())
    assert total == 575_280  # ratings of 4 and more, as the data set's description says
    assert 0.79 < len(data.train) / total < 0.81
    asked = split.requests(data, "test", ("train", "valid"))
    assert asked.requests.history.multiply(asked.positives).nnz == 0
