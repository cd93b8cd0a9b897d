"""The evaluate stage on a small real project: trained models, real files, every out of the contract."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil

import polars as pl
import pytest

from fusionrec.errors import DataRejected
from fusionrec.paths import Paths
from fusionrec.stages import evaluate, rank, train

FILES = {
    "headline.json",
    "metrics.json",
    "table.json",
    "tests.json",
    "knockout.json",
    "ranking.json",
    "per_user.parquet",
    "report.html",
    "plots/models.csv",
    "plots/recall_by_k.csv",
    "plots/knockout.csv",
    "plots/popularity.csv",
    "plots/missing.csv",
    "plots/beyond.csv",
    "plots/categories.csv",
}


def read(paths, name):
    return json.loads((paths.evaluation / name).read_text(encoding="utf-8"))


def contents(paths):
    return {
        p.relative_to(paths.evaluation).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in paths.evaluation.rglob("*")
        if p.is_file()
    }


def test_writes_the_contract(evaluated):
    _, paths, told, world = evaluated
    assert set(contents(paths)) == FILES
    metrics = read(paths, "metrics.json")
    assert set(metrics) == {"model", "popularity", "ease", "only-text", "only-image", "random"}
    assert {"all", "warm", "cold", "cold_only", "cold_users", "missing_image"} <= set(metrics["model"])
    assert told.counts["users"] == 120 and told.counts["pairs"] == 360 and told.counts["models"] == 5
    assert told.links == {"report": "data/evaluation/report.html"} and len(told.table) == 6


def test_numbers_agree_with_each_other(evaluated):
    """Every file is computed from the per-user values; they are recomputed here with polars."""
    _, paths, _, _ = evaluated
    users = pl.read_parquet(paths.evaluation / "per_user.parquet")
    means = users.group_by("model", "slice").agg(pl.exclude("user").mean(), pl.len().alias("n"))
    table = {(r["model"], r["slice"], r["metric"]): r for r in read(paths, "table.json")}
    metrics = read(paths, "metrics.json")
    checked = 0
    for row in means.iter_rows(named=True):
        for metric in ("recall@10", "ndcg@20", "map@20", "mrr@10"):
            found = table[row["model"], row["slice"], metric]
            assert found["mean"] == pytest.approx(row[metric], abs=1e-6) and found["n"] == row["n"]
            assert found["low"] <= found["mean"] <= found["high"]
            assert metrics[row["model"]][row["slice"]][metric] == found["mean"]
            checked += 1
    assert checked >= 5 * 7 * 4
    wide = users.filter(slice="all").pivot("model", index="user", values="ndcg@20")
    for test in read(paths, "tests.json")["comparisons"]:
        assert test["difference"] == pytest.approx((wide["model"] - wide[test["against"]]).mean(), abs=1e-6)
    with open(paths.evaluation / "plots" / "recall_by_k.csv") as file:
        at = {(r["model"], r["k"]): float(r["recall"]) for r in csv.DictReader(file)}
    assert at["model", "20"] == table["model", "all", "recall@20"]["mean"]
    assert at["model", "50"] >= at["model", "20"] >= at["model", "1"]


def test_finds_what_was_planted(evaluated):
    """Both modalities carry taste: fused beats the floor; a model without content finds no cold item."""
    _, paths, _, _ = evaluated
    metrics, tests = read(paths, "metrics.json"), read(paths, "tests.json")
    headline = read(paths, "headline.json")
    assert headline["NDCG@20"] == metrics["model"]["all"]["ndcg@20"] and len(headline) == 7
    p = {t["against"]: t["p_holm"] for t in tests["comparisons"]}
    assert p["popularity"] < 0.05 and p["ease"] < 0.05
    assert metrics["ease"]["cold"]["recall@20"] == metrics["popularity"]["cold"]["recall@20"] == 0
    assert tests["cold_only"]["ratio"]["low"] > 1.2
    knocked = read(paths, "knockout.json")
    assert knocked["metric"] == "ndcg@20" and set(knocked["modalities"]) == {"text", "image"}
    assert knocked["modalities"]["text"]["all"]["low"] > 0
    for parts in knocked["modalities"].values():
        assert parts["all"]["full"] == metrics["model"]["all"]["ndcg@20"]


def test_pseudonyms_stay_in_the_per_user_file(evaluated):
    _, paths, _, world = evaluated
    for file in FILES - {"per_user.parquet"}:
        text = (paths.evaluation / file).read_text(encoding="utf-8")
        assert not any(user in text for user in world.users), file
        assert str(paths.project) not in text


def test_same_inputs_same_bytes(evaluated):
    params, paths, _, _ = evaluated
    before = contents(paths)
    evaluate.run(params, paths)
    assert contents(paths) == before


def copy(paths, target):
    shutil.copytree(paths.project, target)
    return Paths(target, target / ".fusionrec")


def test_uses_the_ceiling_of_these_pairs(evaluated, tmp_path):
    params, paths, _, _ = evaluated
    mine = copy(paths, tmp_path / "p")
    test = pl.read_parquet(mine.splits / "test.parquet")
    lines = sorted(f"{i}|{t}" for i, t in zip(test["item_id"], test["timestamp"].dt.epoch("us"), strict=True))
    (mine.project / "raw" / "ceiling.json").write_text(
        json.dumps(
            {
                "pairs_digest": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
                "protocol": {"history": "train+valid"},
                "scores": {"all": {"ndcg@20": {"mean": 0.5, "low": 0.45, "high": 0.55}}},
                "n": {"all": {"users": 120}},
            }
        )
    )
    told = evaluate.run(params, mine)
    ratio = read(mine, "tests.json")["ceiling"]["ratios"]["all"]["ndcg@20"]["ratio"]
    assert ratio == pytest.approx(read(mine, "metrics.json")["model"]["all"]["ndcg@20"] / 0.5, abs=1e-5)
    assert told.table[0]["model"] == "oracle (ceiling)" and any("of the oracle's 0.500" in n for n in told.notes)


def test_no_baselines_no_test_users_no_pictures(evaluated, tmp_path):
    """The floor is made where nobody trained it; an empty test split gives n = 0 and no NaN anywhere."""
    params, paths, _, _ = evaluated
    mine = copy(paths, tmp_path / "p")
    shutil.rmtree(mine.baselines)
    shutil.rmtree(mine.project / "raw" / "pictures")
    pl.read_parquet(mine.splits / "test.parquet").clear().write_parquet(mine.splits / "test.parquet")
    told = evaluate.run(params, mine)
    assert read(mine, "metrics.json") == {} and any("n = 0" in note for note in told.notes)
    assert {r["n"] for r in read(mine, "table.json")} == {0}
    assert read(mine, "tests.json")["comparisons"][0]["against"] == "popularity"
    assert "nobody to test on" in (mine.evaluation / "report.html").read_text(encoding="utf-8")


def test_one_user(evaluated, tmp_path):
    params, paths, _, _ = evaluated
    mine = copy(paths, tmp_path / "p")
    test = pl.read_parquet(mine.splits / "test.parquet")
    test.filter(user_id=test["user_id"][-1]).write_parquet(mine.splits / "test.parquet")
    evaluate.run(params, mine)
    rows = read(mine, "table.json")
    assert {r["n"] for r in rows if r["slice"] == "all"} == {1}
    assert all(r["low"] is None for r in rows)


def test_without_timestamps(small_project):
    params, paths = small_project(timestamps=False)
    train.run(params, paths)
    rank.run(params, paths)
    evaluate.run(params, paths)
    tests = read(paths, "tests.json")
    assert tests["pairs_digest"] is None and tests["n_pairs"] == 90


def test_model_and_embeddings_must_fit(evaluated, tmp_path):
    params, paths, _, _ = evaluated
    mine = copy(paths, tmp_path / "p")
    fewer = params.model_copy(update={"modalities": {"text": params.modalities["text"]}})
    with pytest.raises(DataRejected, match="reads image"):
        evaluate.run(fewer, mine)
    assert contents(mine) == contents(paths), "what was there stays"


def test_a_mask_of_train_only_leaves_valid_items_in(evaluated, tmp_path):
    params, paths, _, _ = evaluated
    mine = copy(paths, tmp_path / "p")
    only_train = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"history": "train"})})
    evaluate.run(only_train, mine)
    assert read(mine, "metrics.json")["model"] != read(paths, "metrics.json")["model"]
