"""Attributes of items through the whole pipeline: embedded, fused, trained on, judged, monitored, like any modality."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fusionrec import config
from fusionrec.config import Params
from fusionrec.embeddings import base as embeddings
from fusionrec.paths import Paths
from fusionrec.registry.bundle import load_bundle
from fusionrec.registry.ranker import load_ranker
from fusionrec.stages import bundle, embed, evaluate, ingest, monitor, rank, split, train, validate

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]  # imports Great Expectations
PARAMS = """
source: {kind: folder, root: shop}
gate: {min_items: 10, min_interactions: 50}
split: {kind: global_time, valid_from: 7, test_from: 8}
modalities:
  facts: {kind: attributes, categories: [category, brand, tags]}
  vectors: {kind: precomputed, file: vectors.npz}
train:
  retriever: {kind: two_tower, dim: 8, training: {epochs: 25, batch: 32}}
  fusion: {kind: gated}
  baselines: [{kind: popularity}, {kind: generated, of: {kind: content}, training: {epochs: 20}}]
rank:
  ranker: {kind: deepfm, training: {epochs: 4, batch: 256, lr: 0.01}}
evaluate: {k: [5, 10], main_k: 10, bootstrap: 200}
monitor: {draws: 999}
"""
START = datetime(2026, 1, 1, tzinfo=UTC)
KINDS, BRANDS = ["lamp", "vase", "杯", "<b>bowl</b>", "rug"], ["Ada", "Bo", "Cy"]
NEW = 15  # items that nobody touched before the last two days


def shop(folder: Path, seed: int, kinds: list[str] = KINDS, n_items: int = 90, n_users: int = 120) -> Path:
    """Every user wants one kind of things; brand, price and the precomputed vectors say nothing. Some cells are empty,
    and the last item has no attribute at all."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    ids = [f"s{seed}-{n}" for n in range(n_items)]
    kind = rng.integers(0, len(kinds), n_items)
    known = rng.random(n_items) > 0.1
    brand = [str(rng.choice(BRANDS)) if here else None for here in known]
    price = [f"{p:.2f}" if rng.random() > 0.1 else None for p in rng.lognormal(3, 1, n_items)]
    tags = [["new", BRANDS[int(n) % 3]] if n % 2 else [] for n in range(n_items)]
    items = pl.DataFrame(
        {
            "item_id": ids,
            "category": [kinds[k] for k in kind[:-1]] + [None],
            "brand": [*brand[:-1], None],
            "price": [*price[:-1], None],
            "tags": [*tags[:-1], []],
        }
    )
    items.write_parquet(folder / "items.parquet")
    np.savez(folder / "vectors.npz", ids=np.array(ids), vectors=rng.normal(size=(n_items, 5)).astype(np.float32))
    log = []
    for user in range(n_users):
        chance = np.where(kind == user % len(kinds), 1.0, 0.02)
        for day in range(10):
            on = chance.copy()
            if day < 8:
                on[-NEW:] = 0
            shown = rng.choice(n_items, 2, replace=False, p=on / on.sum())
            for item in (*shown, rng.integers(0, n_items - (NEW if day < 8 else 0))):
                common = {"user_id": f"u{user}", "item_id": ids[item], "impression_id": f"{seed}-{user}-{day}-{item}"}
                at = START + timedelta(days=day, minutes=user)
                log.append({**common, "event": "impression", "timestamp": at})
                if item in shown:
                    log.append({**common, "event": "click", "timestamp": at + timedelta(seconds=9)})
    pl.DataFrame(log).unique(["impression_id", "event"], maintain_order=True).write_parquet(
        folder / "interactions.parquet"
    )
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
    for stage in (train, rank, evaluate, bundle):
        stage.run(params, paths)
    return params, paths


def test_they_are_embedded_and_the_item_without_any_is_absent(project: tuple[Params, Paths]) -> None:
    params, paths = project
    items = embeddings.load(paths, ("facts",))
    assert items.features["facts"].shape == (90, 3 * 65 + 43)
    assert [items.ids[n] for n in np.flatnonzero(~items.present["facts"])] == ["s1-89"]
    assert embed.run(params, paths, modality="facts").counts["encoded"] == 0, "everything is in the store"


def test_models_find_new_items_by_them_and_the_evaluation_tells(project: tuple[Params, Paths]) -> None:
    _, paths = project
    read = {name: json.loads((paths.evaluation / f"{name}.json").read_text()) for name in ("metrics", "knockout")}
    cold = {model: slices["cold"]["recall@10"] for model, slices in read["metrics"].items() if "cold" in slices}
    assert cold["only-facts"] > 3 * cold["only-vectors"], "the kind of things is planted in the category alone"
    assert cold["generated"] > cold["popularity"] == 0, "a retriever inside another one comes back from its folder too"
    lost = read["knockout"]["modalities"]["facts"]["all"]
    assert lost["loss"] > 0.1 and lost["low"] > 0
    curve = pl.read_csv(paths.evaluation / "plots" / "missing.csv").filter(pl.col("hidden") == "facts").sort("share")
    assert curve["share"].to_list() == [0.0, 0.15, 0.3, 0.45, 0.6] and curve["score"][-1] < 0.8 * curve["score"][0]
    assert "facts" in (paths.evaluation / "report.html").read_text(encoding="utf-8")


def test_rankers_and_the_bundle_read_them(project: tuple[Params, Paths]) -> None:
    _, paths = project
    assert load_ranker(paths.rankers / "ranker").modalities == ("facts", "vectors")
    rows = json.loads((paths.evaluation / "ranking.json").read_text())["rows"]
    auc = {row["ranker"]: row["metrics"]["auc"] for row in rows}
    assert auc["ranker"][1] > 0.6, "which of the shown things is clicked is told by their category"
    assert load_bundle(paths.bundle).about["metrics"]


def test_the_monitor_compares_them(project: tuple[Params, Paths], tmp_path: Path) -> None:
    params, paths = project
    calm = monitor.run(params, paths, shop(tmp_path / "calm", 2))
    assert calm.counts["drift"] == 0, calm.notes
    other = monitor.run(params, paths, shop(tmp_path / "other", 3, kinds=["sofa", "bed", "desk"]))
    verdict = json.loads((paths.project / other.links["verdict"]).read_text(encoding="utf-8"))
    assert verdict["status"] == "drift" and "facts" in {row["part"] for row in verdict["ranking"]}
    assert any("items have other attributes" in words for words in verdict["reasons"])
