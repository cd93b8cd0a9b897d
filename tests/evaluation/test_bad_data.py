"""Poor splits through the real stages: refused with a reason while the old model stays, or evaluated without a NaN."""

from __future__ import annotations

import hashlib
import json

import polars as pl
import pytest

from fusionrec.errors import DataRejected
from fusionrec.stages import evaluate, rank, train


def bytes_of(*folders):
    return {
        path.as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rewrite(paths, name, change):
    file = paths.splits / f"{name}.parquet"
    change(pl.read_parquet(file)).write_parquet(file)


def no_nan(paths):
    """Every JSON and CSV of the evaluation, read by parsers that refuse NaN."""

    def refuse(word):
        raise AssertionError(f"{word} in a result")

    for file in paths.evaluation.glob("*.json"):
        json.loads(file.read_text(encoding="utf-8"), parse_constant=refuse)
    for file in (paths.evaluation / "plots").glob("*.csv"):
        assert "nan" not in file.read_text(encoding="utf-8").lower().split(","), file.name
    users = pl.read_parquet(paths.evaluation / "per_user.parquet")
    assert users.select(pl.selectors.float().is_nan().any()).sum_horizontal().sum() == 0


def test_an_empty_train_split_is_refused_and_the_old_model_stays(small_project):
    """X29."""
    params, paths = small_project()
    train.run(params, paths)
    rank.run(params, paths)
    before = bytes_of(paths.model, paths.baselines, paths.rankers)
    rewrite(paths, "train", pl.DataFrame.clear)
    for stage in (train, rank, evaluate):
        with pytest.raises(DataRejected, match="^nothing to train on") as caught:
            stage.run(params, paths)
        assert caught.value.exit_code == 3
    assert bytes_of(paths.model, paths.baselines, paths.rankers) == before
    assert not paths.evaluation.exists()


@pytest.mark.parametrize(
    "retriever",
    ["content", {"kind": "blend", "parts": [{"kind": "ease"}, {"kind": "bpr", "training": {"epochs": 2}}]}],
)
def test_training_is_the_same_to_the_byte_when_the_test_split_is_gone(small_project, retriever):
    params, paths = small_project(retriever=retriever)
    train.run(params, paths)
    rank.run(params, paths)
    before = bytes_of(paths.model, paths.baselines, paths.rankers)
    for name in ("test.parquet", "shown_test.parquet"):
        (paths.splits / name).unlink()
    train.run(params, paths)
    rank.run(params, paths)
    assert bytes_of(paths.model, paths.baselines, paths.rankers) == before
    with pytest.raises(DataRejected, match="test.parquet is missing"):
        evaluate.run(params, paths)


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(lambda f: f.head(1), id="one interaction"),
        pytest.param(lambda f: f.filter(pl.col("user_id") == f["user_id"][-1]), id="one user"),
        pytest.param(lambda f: f.with_columns(item_id=pl.lit(f["item_id"][0])).unique("user_id"), id="one item"),
    ],
)
def test_hardly_anything_to_train_on_is_trained_and_evaluated(small_project, cut):
    """X30: every number of every file is one, and slices nobody is in say n = 0."""
    params, paths = small_project(retriever={"kind": "blend", "parts": [{"kind": "ease"}, {"kind": "content"}]})
    rewrite(paths, "train", cut)
    train.run(params, paths)
    rank.run(params, paths)
    told = evaluate.run(params, paths)
    no_nan(paths)
    assert told.counts["users"] == 30
    rows = json.loads((paths.evaluation / "table.json").read_text(encoding="utf-8"))
    assert all((row["mean"] is None) == (row["n"] == 0) for row in rows)
