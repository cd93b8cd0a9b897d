"""Reading a folder: mapping, constants, media templates, and messages that name file, column, expected and found
(X15)."""

from __future__ import annotations

import time
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from fusionrec.data.sources.folder import FolderSource
from fusionrec.errors import DataRejected

from .conftest import Project, events, goods


def test_mapping_constants_and_integer_ids(empty: Project) -> None:
    empty.root.mkdir(parents=True)
    pl.DataFrame({"movieId": [7, 8], "name": ["Up", "上"], "year": [2009, 1999]}).write_csv(empty.root / "films.csv")
    pl.DataFrame({"uid": [1, 1, 2], "item_id": [7, 8, 7], "liked": [1, 0, 1]}).write_parquet(
        empty.root / "interactions.parquet"
    )
    empty.params["source"] |= {
        "items": {"file": "films.csv", "columns": {"item_id": "movieId", "title": "name"}},
        "interactions": {"columns": {"user_id": "uid", "value": "liked"}, "constants": {"event": "like"}},
    }
    empty.params["positives"] = {"events": {"like": 1.0}}
    empty.params["split"]["ratios"] = [1, 0, 0]
    empty.all()
    assert empty.paths.splits.joinpath("train.parquet").is_file()
    train = pl.read_parquet(empty.paths.splits / "train.parquet")
    assert sorted(train["item_id"].to_list()) == ["7", "7"]  # liked = 0 is read but is no positive
    assert train["user_id"].n_unique() == 2
    items = pl.concat([pl.read_parquet(p) for p in empty.paths.tables.glob("items/*.parquet")])
    assert items.sort("item_id").select("item_id", "title", "year").rows() == [("7", "Up", 2009), ("8", "上", 1999)]


@pytest.mark.parametrize(
    ("table", "drop", "words"),
    [
        ("items", "item_id", ["items.csv", "'item_id'", "found sku_nr"]),
        ("interactions", "user_id", ["interactions.csv", "'user_id'", "did you mean 'customer_id'"]),
    ],
)
def test_missing_column_names_file_column_found_and_nearest(
    project: Project, table: str, drop: str, words: list[str]
) -> None:
    rename = {"items": "sku_nr", "interactions": "customer_id"}[table]
    rows = [
        {(rename if k == drop else k): v for k, v in r.items()} for r in (goods() if table == "items" else events())
    ]
    project.put(table, rows)
    started = time.monotonic()
    with pytest.raises(DataRejected) as caught:
        project.ingest()
    assert time.monotonic() - started < 5
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert caught.value.exit_code == 3
    assert not project.paths.tables.exists()


def test_mapping_to_a_missing_column_says_which(project: Project) -> None:
    project.params["source"]["items"] = {"columns": {"title": "titel"}}
    with pytest.raises(DataRejected, match=r"items.csv: column 'titel' is missing.*did you mean 'title'"):
        project.ingest()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (
            "timestamp",
            "yesterday",
            "'timestamp': 240 of 240 values do not parse; found e.g. 'yesterday', expected ISO 8601",
        ),
        (
            "position",
            "first",
            "'position': 240 of 240 values do not parse; found e.g. 'first', expected a whole number",
        ),
    ],
)
def test_wrong_type_of_a_whole_column_is_refused_fast(project: Project, column: str, value: str, message: str) -> None:
    project.put("interactions", [{**e, column: value} for e in events()])
    started = time.monotonic()
    with pytest.raises(DataRejected) as caught:
        project.ingest()
    assert time.monotonic() - started < 5
    assert message in str(caught.value)


def test_every_problem_of_both_tables_is_said_at_once(project: Project) -> None:
    project.put("items", [{**g, "price": "cheap"} for g in goods()])
    project.put("interactions", [{**e, "timestamp": "soon"} for e in events()])
    with pytest.raises(DataRejected) as caught:
        project.ingest()
    assert len(str(caught.value).splitlines()) == 2


def test_single_bad_values_cost_their_rows_only(project: Project) -> None:
    rows = events()
    rows[3]["timestamp"], rows[5]["position"] = "soon", "x"  # a column that changes its type in the middle of the file
    project.put("interactions", [{k: str(v) for k, v in r.items()} for r in rows])
    project.ingest()
    lines = pl.read_parquet(project.paths.tables / "quarantine.parquet")
    assert sorted(lines.select("code", "column", "found").rows()) == [
        ("not_a_timestamp", "timestamp", "soon"),
        ("not_an_integer", "position", "x"),
    ]


def test_nested_and_extra_columns(project: Project) -> None:
    (project.root / "items.csv").unlink()
    pl.DataFrame([{**g, "dims": {"w": 1}, "weight": 3} for g in goods()]).write_parquet(project.root / "items.parquet")
    report = project.ingest()
    columns = pl.read_parquet(next(project.paths.tables.glob("items/*.parquet"))).columns
    assert "weight" in columns
    assert "dims" not in columns
    assert report.notes == ["items: the nested column 'dims' is left out"]
    pl.DataFrame([{**g, "title": {"en": "x"}} for g in goods()]).write_parquet(project.root / "items.parquet")
    with pytest.raises(DataRejected, match="column 'title' holds Struct"):
        project.ingest()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "items.csv is empty: nothing to train on"),
        ("item_id,title\ni1,x\n".encode("utf-16"), "found UTF-16, expected UTF-8"),
        (b"item_id,title\ni1,x\ni2,y,z,q\n", "items.csv cannot be read as csv"),
        (b"item_id,title\n", "nothing to train on: the table has no rows"),
    ],
)
def test_unreadable_files(project: Project, content: bytes, message: str) -> None:
    (project.root / "items.csv").write_bytes(content)
    with pytest.raises(DataRejected, match=message):
        project.ingest()


def test_damaged_parquet_is_data_rejected(project: Project) -> None:
    (project.root / "items.csv").unlink()
    (project.root / "items.parquet").write_bytes(b"PAR1 not at all")
    with pytest.raises(DataRejected, match="items.parquet cannot be read"):
        project.ingest()


def test_two_files_of_one_table_ask_which(project: Project) -> None:
    pl.DataFrame(goods()).write_parquet(project.root / "items.parquet")
    with pytest.raises(DataRejected, match="both items.parquet and items.csv exist"):
        project.ingest()


def test_missing_folder_and_missing_table(empty: Project) -> None:
    with pytest.raises(DataRejected, match=r"source.root: cat is not a folder"):
        empty.ingest()
    empty.put("items", goods())
    with pytest.raises(
        DataRejected, match=r"expected interactions.parquet or interactions.csv in cat, found items.csv"
    ):
        empty.ingest()


def test_file_outside_the_root_is_refused(project: Project) -> None:
    (project.paths.project / "secret.csv").write_text("item_id\n1\n")
    project.params["source"]["items"] = {"file": "../secret.csv"}
    with pytest.raises(DataRejected, match="lies outside source.root"):
        project.ingest()


def test_media_template_counts_existing_files_only(project: Project) -> None:
    project.picture("item-3.jpg", (12, 9))
    project.params["source"]["media"] = {"image": "images/{item_id}.jpg"}
    project.ingest()
    items = pl.concat([pl.read_parquet(p) for p in project.paths.tables.glob("items/*.parquet")])
    pictured = items.filter(pl.col("image_paths").is_not_null())
    assert pictured.select("item_id", "image_paths", "image_format").rows() == [
        ("item-3", ["images/item-3.jpg"], ["jpeg 12x9"])
    ]
    assert pl.read_parquet(project.paths.tables / "quarantine.parquet").height == 0


@pytest.mark.parametrize("bad", [{"media": {"image": "images/x.jpg"}}, {"colour": 1}, {"items": {"colums": {}}}])
def test_spec_refuses_what_it_does_not_know(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FolderSource.model_validate({"kind": "folder", "root": "x", **bad})


def test_attribute_types_survive_csv() -> None:
    from fusionrec.data.clean import inferred

    def kind(*values: str | None) -> pl.DataType:
        return inferred(pl.Series(values, dtype=pl.String)).dtype

    assert kind("1", "-20", None) == pl.Int64
    assert kind("1", "2.50") == pl.Float64
    assert kind("True", "false") == pl.Boolean
    assert kind("007", "1") == pl.String  # a leading zero would be lost
    assert kind("1", "n/a") == pl.String
    assert kind(None, None) == pl.String
