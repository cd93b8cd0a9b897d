"""train: models of one kind stay apart, and what cannot be trained is said to the user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from safetensors.numpy import load_file

from fusionrec import config
from fusionrec.config import Params
from fusionrec.errors import ConfigError
from fusionrec.paths import Paths
from fusionrec.recommenders.bpr import BPR
from fusionrec.recommenders.ease import EASE, EASERetriever
from fusionrec.recommenders.popularity import Popularity
from fusionrec.recommenders.training import Training
from fusionrec.recommenders.vbpr import VBPR
from fusionrec.stages import train
from tests.evaluation.conftest import World, write_project

SHORT = Training(epochs=3, batch=64, lr=0.05)


def project(folder: Path, retriever: Any, *baselines: Any) -> tuple[Params, Paths]:
    params, paths = write_project(folder, World(n_users=31, n_items=29, n_cold=5, seed=3))
    change = {"retriever": retriever, "baselines": baselines, "singles": False}
    return params.model_copy(update={"train": params.train.model_copy(update=change)}), paths


def test_a_baseline_of_the_main_models_kind_is_a_model_of_its_own(tmp_path: Path) -> None:
    """``reg`` changes neither the parameters nor how they are drawn: a shared checkpoint would fit both."""
    params, paths = project(tmp_path / "p", VBPR(dim=8, reg=0.0, training=SHORT), VBPR(dim=8, reg=10.0, training=SHORT))
    report = train.run(params, paths)
    assert [row["model"] for row in report.table] == ["vbpr", "vbpr (baseline)"] and len(report.seconds) == 2
    ours, other = (load_file(folder / "model.safetensors") for folder in (paths.model, paths.baselines / "vbpr"))
    assert ours.keys() == other.keys() and any((ours[name] != other[name]).any() for name in ours)


def test_without_anybody_to_validate_on_the_last_epoch_stands_and_the_report_says_so(tmp_path: Path) -> None:
    params, paths = project(tmp_path / "p", BPR(dim=8, training=SHORT.model_copy(update={"epochs": 7, "patience": 1})))
    file = paths.splits / "valid.parquet"
    pl.read_parquet(file).clear().write_parquet(file)
    report = train.run(params, paths)
    assert report.notes[0].startswith("nobody to validate on: ")
    assert report.table[0] | {"seconds": 0} == {"model": "bpr", "steps": 7, "valid NDCG@20": None, "seconds": 0}


def test_two_baselines_of_one_kind_are_refused(tmp_path: Path) -> None:
    params, _ = project(tmp_path / "p", Popularity())
    raw = params.model_dump(mode="json", serialize_as_any=True)
    raw["train"]["baselines"] = [{"kind": "ease"}, {"kind": "popularity"}, {"kind": "ease", "l2": [50.0]}]
    with pytest.raises(
        ConfigError, match="train: baselines: found 2 of kind 'ease', expected at most one of each kind"
    ):
        config.parse(raw)
    raw["train"]["baselines"] = raw["train"]["baselines"][:2]
    assert [spec.kind for spec in config.parse(raw).train.baselines] == ["ease", "popularity"]


@pytest.mark.parametrize(
    "retriever, message",
    [
        (BPR(dim=8, training=SHORT.model_copy(update={"lr": 1e30})), "bpr: the loss is .* lower the learning rate"),
        (EASE(), "ease: EASERetriever serves at most 7 items, found 29"),
    ],
    ids=["diverged", "too large"],
)
def test_what_a_model_cannot_be_fitted_to_is_no_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retriever: Any, message: str
) -> None:
    monkeypatch.setattr(EASERetriever, "max_items", 7)
    params, paths = project(tmp_path / "p", retriever)
    with pytest.raises(ConfigError, match=message):
        train.run(params, paths)
