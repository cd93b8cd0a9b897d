"""Media at ingest: each content is decoded once, verdicts are remembered, and the gate judges sounds of queries too."""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
import wave
from typing import Any

import polars as pl
import pytest

from fusionrec import config
from fusionrec.data import media, tables
from fusionrec.errors import ConfigError
from fusionrec.media import bounded
from fusionrec.media.base import MediaError

from .conftest import Project, events, goods


def sound(seconds: float = 0.2) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(range(256)) * round(seconds * 125))
    return buffer.getvalue()


@pytest.fixture
def pictured(project: Project) -> Project:
    """item-0 and item-1 share a content under two names, item-2 has another, item-3 is broken."""
    for n in (0, 2):
        project.picture(f"{n}.jpg", (12 + n, 9))
    images = project.root / "images"
    shutil.copy(images / "0.jpg", images / "1.jpg")
    (images / "3.jpg").write_bytes((images / "2.jpg").read_bytes()[:-40])
    project.put("items", [{**g, "image_path": f"images/{n}.jpg" if n < 4 else None} for n, g in enumerate(goods())])
    return project


def test_each_content_is_decoded_once_and_remembered(pictured: Project) -> None:
    counts = pictured.ingest().counts
    assert (counts["media_read"], counts["media_decoded"]) == (4, 3)
    assert bounded.shared().pids() == []  # no decoder outlives the stage
    again = pictured.ingest().counts
    assert (again["media_read"], again["media_decoded"]) == (0, 0)
    images = pictured.root / "images"
    shutil.copy(images / "2.jpg", images / "1.jpg")  # a known content under another name: read, not decoded
    counts = pictured.ingest().counts
    assert (counts["media_read"], counts["media_decoded"]) == (1, 0)
    row = tables.read(pictured.paths, "items").filter(pl.col("item_id") == "item-3").row(0, named=True)
    assert (row["image_format"], row["image_fault"]) == ([None], ["truncated"])


def test_a_file_that_kept_its_size_and_its_time_is_another_file_all_the_same(pictured: Project) -> None:
    pictured.put("items", [{**g, "audio_path": "a.wav" if n == 0 else None} for n, g in enumerate(goods())])
    file = pictured.root / "a.wav"
    file.write_bytes(sound())
    os.utime(file, ns=(10**18, 10**18))
    pictured.ingest()
    before = tables.read(pictured.paths, "items")["audio_sha256"].drop_nulls().to_list()
    assert pictured.ingest().counts["media_read"] == 0
    file.write_bytes(sound()[:-1] + b"x")
    os.utime(file, ns=(10**18, 10**18))
    assert pictured.ingest().counts["media_read"] == 1
    assert tables.read(pictured.paths, "items")["audio_sha256"].drop_nulls().to_list() != before


def test_the_gate_names_item_column_reason_and_file(pictured: Project) -> None:
    pictured.ingest()
    pictured.validate()
    lines = pl.read_csv(pictured.paths.gate / "quarantine.csv")
    assert lines.select("table", "key", "code", "column", "found", "expected", "element").rows() == [
        ("items", "item-3", "truncated", "image_paths", "images/3.jpg", "a whole file; this one ends too early", 0)
    ]


def test_another_version_of_a_reader_decodes_again(pictured: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    pictured.ingest()
    monkeypatch.setattr(media.image, "RECIPE", "another")
    counts = pictured.ingest().counts
    assert (counts["media_read"], counts["media_decoded"]) == (0, 3)


@pytest.mark.parametrize("code", sorted(media.PASSING))
def test_what_a_busy_machine_may_cause_is_asked_again(
    pictured: Project, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    def busy(kind: str, data: bytes) -> str:
        raise MediaError(code, "not now")

    with monkeypatch.context() as patch:
        patch.setattr(bounded, "probe", busy)
        pictured.ingest()
        pictured.validate()
        assert pl.read_csv(pictured.paths.gate / "quarantine.csv")["code"].to_list() == [code] * 4
    counts = pictured.ingest().counts
    assert (counts["media_read"], counts["media_decoded"]) == (0, 3)
    pictured.validate()
    assert pl.read_csv(pictured.paths.gate / "quarantine.csv")["code"].to_list() == ["truncated"]


def test_a_damaged_or_older_memory_is_started_afresh(pictured: Project) -> None:
    pictured.ingest()
    before = pictured.digests()
    file = pictured.paths.home / "media-hashes" / "hashes.sqlite"
    file.write_bytes(b"not a database, whatever it may say" * 99)
    assert pictured.ingest().counts["media_decoded"] == 3
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE media (path TEXT)")
    assert pictured.ingest().counts["media_decoded"] == 0
    assert pictured.digests() == before


def test_a_file_over_the_limit_of_its_kind_is_hashed_and_not_decoded(
    pictured: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (pictured.root / "images" / "0.jpg").stat().st_size
    monkeypatch.setattr(media.image, "MAX_BYTES", size - 1)
    assert pictured.ingest().counts["media_decoded"] >= 1
    rows = {r["item_id"]: r for r in tables.read(pictured.paths, "items").to_dicts()}
    assert rows["item-0"]["image_fault"] == ["too_many_bytes"] and len(rows["item-0"]["image_sha256"][0]) == 64


def test_sounds_of_queries_are_hashed_and_judged(project: Project) -> None:
    folder = project.root / "audio"
    folder.mkdir()
    (folder / "good.wav").write_bytes(sound())
    (folder / "cut.wav").write_bytes(sound()[:3000])
    names = ["audio/good.wav", "audio/cut.wav", "audio/gone.wav", "../secret.wav", None]
    project.put("queries", [{"query_id": f"q{n}", "text": "oak", "audio_path": p} for n, p in enumerate(names)])
    project.ingest()
    project.validate()
    kept = {r["query_id"]: r for r in tables.accepted(project.paths, "queries").to_dicts()}
    assert len(kept) == 5 and kept["q0"]["audio_format"] == "wav, 0.2 s" and len(kept["q0"]["audio_sha256"]) == 64
    assert [kept[f"q{n}"]["audio_path"] for n in range(1, 5)] == [None] * 4
    lines = pl.read_parquet(project.paths.gate / "quarantine.parquet").sort("key")
    assert lines.select("table", "key", "code", "column", "stage", "row").rows() == [
        ("queries", "q1", "truncated", "audio_path", "validate", False),
        ("queries", "q2", "missing_file", "audio_path", "ingest", False),
        ("queries", "q3", "unsafe_path", "audio_path", "ingest", False),
    ]


def test_the_rating_scale_is_a_setting(project: Project) -> None:
    rated = [{**e, "event": "rating", "value": value} for e, value in zip(events(), [0.5, 1, 5, 5.5], strict=False)]
    project.put("interactions", [*({**e, "value": None} for e in events()), *rated])
    project.params["gate"] |= {"lowest_rating": 1, "highest_rating": 5}

    def codes() -> dict[str, Any]:
        project.ingest()
        project.validate()
        return dict(pl.read_csv(project.paths.gate / "quarantine.csv").select("found", "code").iter_rows())

    assert codes() == {0.5: "rating_out_of_range", 5.5: "rating_out_of_range"}
    project.params["gate"] |= {"lowest_rating": 0, "highest_rating": 10}
    assert codes() == {}
    with pytest.raises(ConfigError, match=r"lowest_rating \(7\) must be below highest_rating \(3\)"):
        config.parse({**project.params, "gate": {"lowest_rating": 7, "highest_rating": 3}})
