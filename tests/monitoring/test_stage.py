"""The monitor stage on a small project: a calm batch, a dark one, a broken one, and no reference at all."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from fusionrec import config
from fusionrec.cli import main
from fusionrec.config import Params
from fusionrec.errors import DataRejected, UsageError
from fusionrec.paths import Paths
from fusionrec.stages import embed, ingest, monitor, split, validate

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]  # imports Great Expectations and Evidently, encodes pictures
PARAMS = """
source: {kind: folder, root: shop}
gate: {min_items: 10, min_interactions: 50}
split: {kind: random_per_user}
modalities:
  image: {kind: image, encoder: {kind: efficientnet_lite0}}
  behaviour: {kind: precomputed, file: vectors.npz, encoder: {kind: identity}}
train:
  retriever: {kind: popularity}
  fusion: {kind: concat}
monitor: {draws: 999}
"""
HOSTILE = "<img src=x onerror=alert(1)>"
DAY = datetime(2026, 1, 1, tzinfo=UTC)


def shop(folder: Path, seed: int, n_items: int = 90, n_users: int = 70, light: int = 160, prefix: str = "a") -> Path:
    """A catalogue with a picture of 40 x 32 pixels and 5 numbers for each item, and 9 clicks of each user."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    ids = [f"{prefix}{k}" for k in range(n_items)]
    for item in ids:
        pixels = np.clip(rng.normal(light, 30, (32, 40, 3)) + rng.normal(0, 12), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{item}.jpg", quality=85)
    category = rng.choice(["mug", "vase", HOSTILE], n_items).tolist()
    items = pl.DataFrame(
        {
            "item_id": ids,
            "title": [f"{HOSTILE} {i}" for i in ids],
            "category": category,
            "image_path": [f"images/{i}.jpg" for i in ids],
            HOSTILE: rng.choice(["x", "y"], n_items).tolist(),
        }
    )
    items.write_csv(folder / "items.csv")
    np.savez(folder / "vectors.npz", ids=np.array(ids), vectors=rng.normal(size=(n_items, 5)).astype(np.float32))
    log = [
        {
            "user_id": f"{prefix}{u}@example.org",
            "item_id": ids[i],
            "event": "click",
            "timestamp": DAY + timedelta(hours=int(u + n)),
        }
        for u in range(n_users)
        for n, i in enumerate(rng.choice(n_items, 9, replace=False))
    ]
    pl.DataFrame(log).write_parquet(folder / "interactions.parquet")
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Params, Paths]:
    folder = tmp_path_factory.mktemp("project")
    (folder / "params.yaml").write_text(PARAMS)
    params, paths = config.load(folder / "params.yaml"), Paths(folder, folder / ".fusionrec")
    shop(folder / "shop", 1)
    for stage in (ingest, validate, split):
        stage.run(params, paths)
    for name in params.modalities:
        embed.run(params, paths, modality=name)
    return params, paths


def before(paths: Paths) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in paths.data.rglob("*") if p.is_file()}


def test_a_calm_batch_and_a_dark_one(project: tuple[Params, Paths], tmp_path: Path) -> None:
    params, paths = project
    untouched = before(paths)
    calm = monitor.run(params, paths, shop(tmp_path / "calm", 2, 80, 60, prefix="b"))
    assert calm.counts["drift"] == 0, calm.notes
    assert any("width" in note and "constant" in note for note in calm.notes)
    assert any("there is no model" in n or "is missing" in n for n in calm.notes if "predictions" in n)

    dark = monitor.run(params, paths, shop(tmp_path / "dark", 3, 80, 60, light=70, prefix="c"))
    assert dark.counts["drift"] == 1 and "pictures are darker: mean brightness 0.6" in dark.notes[0]
    assert before(paths) == untouched  # data/ is not monitor's

    verdict = json.loads((paths.project / dark.links["verdict"]).read_text(encoding="utf-8"))
    assert (verdict["status"], verdict["blamed"]) == ("drift", "image")
    page = (paths.project / dark.links["report"]).read_text(encoding="utf-8")
    assert "<img src=x" not in page and "data:image/jpeg" in page and "<script" not in page
    described = (paths.project / dark.links["descriptors"]).read_text(encoding="utf-8")
    assert HOSTILE not in described
    assert dark.links["evidently"].startswith("http://127.0.0.1:8000/projects/")
    stored = "".join(
        p.read_text(encoding="utf-8", errors="replace") for p in (paths.home / "evidently").rglob("*.json")
    )
    assert HOSTILE not in stored and "example.org" not in stored
    ingested = "".join(
        str(pl.read_parquet(p)["user_id"].to_list()) for p in (paths.home / "batches").rglob("interactions/*")
    )
    assert "example.org" not in ingested


def test_a_batch_that_breaks_a_hard_rule_is_rejected(project: tuple[Params, Paths], tmp_path: Path) -> None:
    params, paths = project
    with pytest.raises(DataRejected, match="min_items"):
        monitor.run(params, paths, shop(tmp_path / "few", 4, 9, 60, prefix="d"))
    with pytest.raises(UsageError, match="not a folder"):
        monitor.run(params, paths, tmp_path / "nowhere")


def test_a_modality_that_the_batch_lacks_is_not_computable_and_its_absence_drifts(
    project: tuple[Params, Paths], tmp_path: Path
) -> None:
    params, paths = project
    batch = shop(tmp_path / "bare", 5, 80, 60, prefix="e")
    (batch / "vectors.npz").unlink()
    items = pl.read_csv(batch / "items.csv").with_columns(image_path=pl.lit(None, pl.String))
    items.write_csv(batch / "items.csv")
    found = monitor.run(params, paths, batch)
    verdict = json.loads((paths.project / found.links["verdict"]).read_text(encoding="utf-8"))
    assert verdict["blamed"] == "image" and "missing more often" in verdict["reasons"][0]
    assert any(line.startswith("image, embedding") for line in verdict["not_computable"])
    assert any(line.startswith("behaviour, embedding") for line in verdict["not_computable"])


def test_without_a_reference_it_says_so_and_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "params.yaml").write_text(PARAMS)
    batch = shop(tmp_path / "batch", 6, 40, 30)
    monkeypatch.chdir(tmp_path / "p")
    assert main(["monitor", str(batch)]) == 0
    assert "Drift could not be computed: reference, tables: data/tables is missing" in " ".join(
        capsys.readouterr().out.split()
    )
    assert main(["monitor", str(tmp_path / "nowhere")]) == 2


def test_the_command_ends_with_5_on_drift(
    project: tuple[Params, Paths], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, paths = project
    monkeypatch.chdir(paths.project)
    assert main(["monitor", str(shop(tmp_path / "dark", 7, 80, 60, light=60, prefix="f"))]) == 5
    out, err = capsys.readouterr()
    assert err.splitlines()[-1].startswith("fusionrec: exit 5 (drift): Drift in image: pictures are darker")
    assert (out + err).count("Drift in image") == 1
    assert float(re.search(r"monitor  (\d+\.\d) s", out)[1]) > 0  # type: ignore[index]
    assert "while `fusionrec up` runs" in out
