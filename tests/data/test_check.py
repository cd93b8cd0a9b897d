"""``fusionrec check``: the mapping is guessed, nothing is written, and what is suggested works."""

from __future__ import annotations

import random

import pytest
import yaml

from fusionrec.data.check import check
from fusionrec.errors import DataRejected

from .conftest import Project, events, goods, make


def test_a_foreign_catalogue_is_mapped_and_the_suggestion_works(empty: Project) -> None:
    plot = "A long story about a shop in which many things happen, and then some more, until it ends. "
    empty.put(
        "movies",
        [{"movieId": f"m{n}", "name": f"Film number {n}", "plot": plot + str(n), "genres": "a|b"} for n in range(23)],
    )
    rng = random.Random(0)
    empty.put(
        "ratings",
        [
            {
                "userId": rng.randrange(9),
                "movieId": f"m{rng.randrange(23)}",
                "rating": rng.choice((0.5, 4.0, 5.0)),
                "timestamp": 1_700_000_000 + 977 * n,
            }
            for n in range(90)
        ],
    )
    for n in range(3):
        empty.picture(f"m{n}.jpg")
    before = sorted(empty.root.rglob("*"))
    found = check(empty.root)
    assert sorted(empty.root.rglob("*")) == before
    assert not empty.paths.home.exists()
    assert found.ok, str(found)
    assert found.source == {
        "kind": "folder",
        "root": str(empty.root),
        "items": {
            "file": "movies.csv",
            "columns": {"item_id": "movieId", "title": "name", "description": "plot", "tags": "genres"},
        },
        "interactions": {
            "file": "ratings.csv",
            "columns": {"user_id": "userId", "item_id": "movieId", "value": "rating"},
            "constants": {"event": "rating"},
        },
        "media": {"image": "images/{item_id}.jpg"},
    }
    other = make(empty.paths.project.parent / "pasted")
    other.params["source"] = yaml.safe_load(found.yaml)["source"]
    other.all()
    assert "interactions: 90 read = " in str(found)


def test_columns_are_guessed_by_their_values(empty: Project) -> None:
    empty.put(
        "items", [{"item_id": f"i{n}", "x": f"A nice enough title {n}", "y": "word " * 20 + str(n)} for n in range(23)]
    )
    empty.put(
        "interactions",
        [{"who": f"p{n % 7}", "what": f"i{n % 23}", "moment": f"2026-01-{n % 28 + 1:02d}T10:00:00"} for n in range(80)],
    )
    found = check(empty.root)
    assert found.source["items"]["columns"] == {"description": "y", "title": "x"}
    assert found.source["interactions"] == {
        "columns": {"item_id": "what", "user_id": "who", "timestamp": "moment"},
        "constants": {"event": "click"},
    }
    assert found.ok


def test_a_canonical_catalogue_needs_no_mapping(project: Project) -> None:
    found = check(project.root)
    assert found.source == {"kind": "folder", "root": str(project.root)}
    assert "the gate would accept this catalogue" in found.lines


def test_what_the_gate_would_stop_is_said(empty: Project) -> None:
    empty.put("items", goods(4))
    empty.put("interactions", events(12))
    found = check(empty.root)
    assert not found.ok
    assert any(line.startswith("REJECTED items: min_items: found 4 accepted rows") for line in found.lines)
    empty.text("items", "title\nx\n")
    assert any("'item_id' is missing" in line for line in check(empty.root).lines)


def test_an_empty_folder_is_rejected(empty: Project) -> None:
    empty.root.mkdir(parents=True)
    with pytest.raises(DataRejected, match="holds no .csv or .parquet file; found nothing"):
        check(empty.root)
