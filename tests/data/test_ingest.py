"""data/tables is a pure function of the set of rows, and no row vanishes (X12, X14)."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionrec.data import media, tables
from fusionrec.data.ingest import canonical
from fusionrec.data.media import Medium
from fusionrec.data.sources.base import RawTables
from fusionrec.errors import DataRejected

from .conftest import Project, events, goods

KEY = bytes(range(32))
word = st.sampled_from(["a", "A", "é", "e\u0301", "b\0", "", "  ", "c|d", "=x()", "👩‍👩‍👧"])
item_rows = st.fixed_dictionaries(
    {
        "item_id": word,
        "title": st.sampled_from(["x", "y", None]),
        "price": st.sampled_from(["1", "2.5", "abc", None]),
    }
)
event_rows = st.fixed_dictionaries(
    {
        "user_id": word,
        "item_id": word,
        "event": st.sampled_from(["click", "rating", None]),
        "timestamp": st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-02T01:00:00+01:00", "2026-01-02", "bad", None]),
    }
)


def built(items: list[dict[str, Any]], log: list[dict[str, Any]]) -> Any:
    raw = RawTables(
        pl.DataFrame(items, schema={"item_id": pl.String, "title": pl.String, "price": pl.String}),
        pl.DataFrame(log, schema=dict.fromkeys(("user_id", "item_id", "event", "timestamp"), pl.String)),
        None,
        None,
        Path(),
    )
    try:
        return canonical(raw, KEY, lambda paths, kind: [Medium(None, code="missing_file")] * len(paths))
    except DataRejected as error:
        return str(error)


@given(st.lists(item_rows, min_size=1, max_size=12), st.lists(event_rows, min_size=1, max_size=12), st.randoms())
def test_order_does_not_matter_and_every_row_is_accounted_for(
    items: list[dict[str, Any]], log: list[dict[str, Any]], rng: random.Random
) -> None:
    one = built(items, log)
    two = built(rng.sample(items, len(items)), rng.sample(log, len(log)))
    if isinstance(one, str):
        assert isinstance(two, str)
        return
    for table, frame in one.frames.items():
        assert frame.equals(two.frames[table])
        assert [(b, tables.content_hash(r), tables.parquet(r)) for b, r in tables.partitions(frame, table)] == [
            (b, tables.content_hash(r), tables.parquet(r)) for b, r in tables.partitions(two.frames[table], table)
        ]
    assert one.quarantine.equals(two.quarantine)
    for table, account in one.ledger.items():
        assert account["read"] == {"items": len(items), "interactions": len(log)}[table]
        assert account["read"] == account["deduplicated"] + account["quarantined"] + account["written"]
        assert account["quarantined"] == one.quarantine.filter((pl.col("table") == table) & pl.col("row")).height
        assert account["written"] == one.frames[table].height
    ids = one.frames["items"]["item_id"].to_list()
    assert len(ids) == len(set(ids))
    assert all(i == unicodedata.normalize("NFC", i) and i.strip() and "\0" not in i for i in ids)


def test_duplicates_known_by_hand() -> None:
    log = [
        {"user_id": "u", "item_id": "a", "event": "click", "timestamp": t}
        for t in ("2026-01-01T01:00:00Z", "2026-01-01T02:00:00+01:00", "2026-01-03")
    ]  # the first two are one moment
    found = built(
        [
            {"item_id": "a", "title": "x", "price": "1"},
            {"item_id": "a", "title": "x", "price": "1"},
            {"item_id": "a", "title": None, "price": "1"},
            {"item_id": "A", "title": None, "price": None},
        ],
        log,
    )
    assert found.ledger["items"] == {"read": 4, "deduplicated": 1, "quarantined": 1, "written": 2}
    assert found.ledger["interactions"] == {"read": 3, "deduplicated": 1, "quarantined": 0, "written": 2}
    assert found.quarantine.select("key", "code").rows() == [("a", "conflicting_duplicate")]
    assert sorted(found.frames["items"]["title"].to_list(), key=str) == [
        None,
        "x",
    ]  # the fuller row of "a" stays; "A" is another item


def test_files_do_not_depend_on_input_order_or_on_what_was_there_before(
    project: Project, another: Callable[[str], Project]
) -> None:
    project.ingest()
    first = project.digests()
    project.ingest()
    assert project.digests() == first
    other = another("shuffled")
    key = project.paths.keys / "pseudonym.key"
    other.paths.keys.mkdir(parents=True)
    (other.paths.keys / "pseudonym.key").write_bytes(key.read_bytes())
    rng = random.Random(1)
    other.put("items", rng.sample(goods(), len(goods())))
    other.put("interactions", rng.sample(events(), len(events())))
    other.ingest()
    assert other.digests() == first
    assert {name.split("/")[1] for name in first if name.count("/") > 1} == {"items", "interactions"}


def test_one_item_and_ten_events_change_at_most_eleven_partitions(project: Project) -> None:
    project.ingest()
    before = project.digests()
    project.put("items", [*goods(), {"item_id": "fresh", "title": "New", "price": 3.0, "colour": "red"}])
    extra = [{**e, "item_id": "fresh"} for e in events(10, seed=5)]
    project.put("interactions", [*events(), *extra])
    project.ingest()
    after = project.digests()
    partitions = {n for n in after if n.count("/") > 1}
    changed = {n for n in partitions if after[n] != before.get(n)}
    gone = {n for n in before if n.count("/") > 1} - partitions
    assert 2 <= len(changed) <= 11
    assert len(gone) <= 11
    assert len(partitions - changed) >= 15


def test_without_timestamps_the_buckets_are_by_user(project: Project) -> None:
    project.put("interactions", [{k: v for k, v in e.items() if k != "timestamp"} for e in events()])
    project.ingest()
    names = sorted(p.name for p in project.paths.tables.glob("interactions/*.parquet"))
    assert names
    assert all(n[0] == "u" and 0 <= int(n[1:3]) < 64 and len(n) == len("u00-") + 16 + len(".parquet") for n in names)


def test_with_timestamps_the_buckets_are_utc_days(project: Project) -> None:
    project.put(
        "interactions",
        [
            {"user_id": "u", "item_id": "item-1", "event": "click", "timestamp": t}
            for t in ("2026-01-01T23:30:00-02:00", "2026-01-01")
        ],
    )
    project.ingest()
    assert sorted(p.name[:10] for p in project.paths.tables.glob("interactions/*.parquet")) == [
        "2026-01-01",
        "2026-01-02",
    ]


def test_raw_user_ids_are_in_no_file(project: Project) -> None:
    project.put("users", [{"user_id": f"raw-user-{n}", "region": "north"} for n in range(7)])
    project.put("queries", [{"query_id": "q1", "text": "lamp", "user_id": "raw-user-1", "timestamp": "2026-01-02"}])
    rows = [
        *events(),
        {**events()[0], "user_id": "raw-user-\0x"},
        {**events()[0], "user_id": "raw-user-7", "timestamp": "bad"},
    ]
    project.put("interactions", rows)
    project.all()
    files = [p for p in project.paths.data.rglob("*") if p.is_file()]
    private = [p for p in project.paths.home.rglob("*") if p.is_file()]
    assert len(files) > 20
    for file in [*files, *private]:
        assert b"raw-user" not in file.read_bytes(), file
    queries = tables.accepted(project.paths, "queries")
    users = tables.accepted(project.paths, "users")
    assert set(queries["user_id"]) < set(users["user_id"])  # the same pseudonym in every table


HOSTILE = {
    "rtl": "שלום \u202eevil\u202c",
    "zwj": "👩‍👩‍👧‍👦 family",
    "script": "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "formula": "=cmd|'/C calc'!A0",
    "quote": 'He said "hi", then\nleft',
    "big": "x" * 1_000_000,
    "nul": "a\0b",
    "cn": "红色的杯子",
}


def test_hostile_texts_round_trip(empty: Project) -> None:
    empty.root.mkdir(parents=True)
    pl.DataFrame({"item_id": list(HOSTILE), "title": list(HOSTILE.values())}).write_csv(empty.root / "items.csv")
    empty.put("interactions", [{"user_id": "u", "item_id": i, "event": "click"} for i in HOSTILE])
    empty.ingest()
    found = tables.read(empty.paths, "items")
    assert dict(found.select("item_id", "title").iter_rows()) == HOSTILE


def test_a_lone_surrogate_in_an_id_costs_the_row(empty: Project) -> None:
    empty.text("items", "item_id,title\ngood,x\nbad\ud800id,y\n")
    empty.put("interactions", [{"user_id": "u", "item_id": "good", "event": "click"}])
    empty.ingest()
    assert tables.read(empty.paths, "items")["item_id"].to_list() == ["good"]
    lines = pl.read_parquet(empty.paths.tables / "quarantine.parquet")
    assert lines["code"].to_list() == ["invalid_unicode"]


@pytest.mark.parametrize(
    "path",
    [
        "../secret.jpg",
        "/etc/passwd",
        "http://127.0.0.1:9/x.jpg",
        "images/../../secret.jpg",
        "link/secret.jpg",
        "a\\b.jpg",
    ],
)
def test_paths_out_of_the_media_root_are_never_opened(
    project: Project, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.picture("ok.jpg")
    secret = project.paths.project / "secret.jpg"
    secret.write_bytes(b"secret bytes")
    (project.root / "link").symlink_to(project.paths.project)
    project.put("items", [{**g, "image_path": path if n == 0 else "images/ok.jpg"} for n, g in enumerate(goods())])
    opened: list[Path] = []
    original = media._read
    monkeypatch.setattr(media, "_read", lambda path, most: opened.append(path) or original(path, most))
    project.ingest()
    assert {p.name for p in opened} == {"ok.jpg"}
    row = tables.read(project.paths, "items").filter(pl.col("item_id") == "item-0").row(0, named=True)
    assert (row["image_paths"], row["image_sha256"]) == (None, None)
    lines = pl.read_parquet(project.paths.tables / "quarantine.parquet")
    assert lines.select("key", "code", "column", "row").rows() == [("item-0", "unsafe_path", "image_paths", False)]


def test_unchanged_media_are_not_read_again(project: Project) -> None:
    for n in range(3):
        project.picture(f"item-{n}.jpg")
    project.params["source"]["media"] = {"image": "images/{item_id}.jpg"}
    assert project.ingest().counts["media_read"] == 3
    before = project.digests()
    assert project.ingest().counts["media_read"] == 0
    assert project.digests() == before
    project.picture("item-1.jpg", (30, 20))
    assert project.ingest().counts["media_read"] == 1
    assert project.digests() != before


def test_a_failed_run_leaves_the_tables_as_they_were(project: Project) -> None:
    project.ingest()
    before = project.digests()
    project.put("interactions", [{**e, "timestamp": "bad"} for e in events()])
    with pytest.raises(DataRejected):
        project.ingest()
    assert project.digests() == before
    assert [p.name for p in project.paths.data.iterdir()] == ["tables"]
