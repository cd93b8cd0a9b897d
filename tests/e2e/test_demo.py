"""From a catalogue on disk to a registered model, on a small demo, through the commands that users type."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from tests.e2e.conftest import Project

pytestmark = pytest.mark.timeout(900)


def test_the_pipeline_ends_with_a_table_and_a_registered_challenger(demo: Project) -> None:
    rows = json.loads((demo.folder / "data/evaluation/table.json").read_text())
    assert {"popularity", "ease", "only-text", "only-image", "model"} <= {r["model"] for r in rows}
    assert any("oracle" in r["model"] for r in rows), "the demo's ceiling is missing"
    assert all(0 <= r["low"] <= r["mean"] <= r["high"] <= 1 for r in rows if r["n"])
    report = (demo.folder / "data/evaluation/report.html").read_text()
    assert "data:image/jpeg" in report and "<script" not in report
    (version,) = demo.versions()
    assert version["aliases"] == ["challenger"]
    assert "NDCG@20" in demo.run("fusionrec", "table")


def test_every_row_is_accounted_for(demo: Project) -> None:
    summary = json.loads((demo.folder / "data/gate/summary.json").read_text())
    for name, counts in summary["tables"].items():
        assert counts["read"] == counts["accepted"] + counts["deduplicated"] + counts["quarantined"], name
    assert summary["tables"]["interactions"]["read"] > 1000


def test_a_second_run_executes_nothing_and_registers_nothing(demo: Project) -> None:
    before = demo.digest("data")
    said = demo.run("dvc", "repro")
    assert "Running stage" not in said
    demo.run("fusionrec", "register")
    assert len(demo.versions()) == 1
    assert demo.digest("data") == before
    assert "up to date" in demo.run("dvc", "status")


def test_a_wiped_mlflow_gets_its_version_back_without_training(demo: Project, tmp_path: Path) -> None:
    project = demo.copy(tmp_path / "wiped")
    digest = demo.versions()[0]["digest"]
    shutil.rmtree(project.folder / ".fusionrec" / "mlflow")
    model = project.digest("data/model", "data/bundle")
    project.run("fusionrec", "register")
    assert [v["digest"] for v in project.versions()] == [digest]
    assert project.digest("data/model", "data/bundle") == model


def test_push_and_pull_restore_a_deleted_data_folder_bit_for_bit(demo: Project, tmp_path: Path) -> None:
    project = demo.copy(tmp_path / "pushed")
    before = project.digest("data")
    project.run("dvc", "remote", "add", "-d", "here", str(tmp_path / "remote"))
    project.run("dvc", "push")
    for entry in (project.folder / "data").iterdir():  # all but the .dvc pointer of the raw data, which git holds
        if entry.name != "raw":
            shutil.rmtree(entry)
    shutil.rmtree(project.folder / "data/raw/atelier")
    shutil.rmtree(project.folder / ".dvc" / "cache")
    (project.folder / "data/embeddings").mkdir()
    (project.folder / "data/embeddings/.gitkeep").touch()
    project.run("dvc", "pull")
    assert project.digest("data") == before


def test_training_needs_no_test_split(demo: Project, tmp_path: Path) -> None:
    project = demo.copy(tmp_path / "blind")
    before = project.digest("data/model", "data/baselines")
    (project.folder / "data/splits/test.parquet").unlink()
    shutil.rmtree(project.folder / "data/evaluation")
    shutil.rmtree(project.folder / "data/model")
    shutil.rmtree(project.folder / "data/baselines")
    project.run("fusionrec", "run", "train")
    assert project.digest("data/model", "data/baselines") == before


def test_one_item_and_ten_events_encode_one_item_and_change_eleven_partitions(demo: Project, tmp_path: Path) -> None:
    project = demo.copy(tmp_path / "grown")
    root = project.folder / "data/raw/atelier"
    items = pl.read_csv(root / "items.csv", infer_schema=False)
    new = (
        items.filter(pl.col("description").is_not_null() & pl.col("image_path").is_not_null())
        .head(1)
        .with_columns(
            item_id=pl.lit("brand-new"),
            description=pl.lit("A lamp that was not there before."),
            image_path=pl.lit(None, pl.String),
            audio_path=pl.lit(None, pl.String),
            video_path=pl.lit(None, pl.String),
        )
    )
    pl.concat([items, new]).write_csv(root / "items.csv")
    log = pl.read_parquet(root / "interactions.parquet")
    clicks = log.filter(pl.col("event") == "click")
    day = pl.col("timestamp").dt.date()
    ten = (
        clicks.group_by(day.alias("day"), maintain_order=True)
        .first()
        .sort("day")
        .tail(10)
        .drop("day")
        .with_columns(
            item_id=pl.lit("brand-new"),
            impression_id=pl.lit(None, log.schema["impression_id"]),
        )
        .select(log.columns)
    )
    assert len(ten) == 10
    pl.concat([log, ten]).write_parquet(root / "interactions.parquet")
    project.run("dvc", "add", "-q", "data/raw/atelier")
    before = project.digest("data/tables")
    said = project.run("fusionrec", "repro", timeout=600)
    for stage in ("ingest", "validate", "split", "embed@text", "train", "evaluate"):
        assert f"Running stage '{stage}'" in said, stage
    after = project.digest("data/tables")
    partitions = [
        name
        for name in after
        if name.endswith(".parquet") and before.get(name) != after[name] and "quarantine" not in name
    ]
    assert 1 <= len(partitions) <= 11, partitions
    encoded = {
        m: json.loads((project.folder / f".fusionrec/reports/embed@{m}.json").read_text())["counts"]["encoded"]
        for m in ("text", "image")
    }
    assert encoded == {"text": 1, "image": 0}
    assert len(project.versions()) == 2
