"""The curve of every trained model reaches MLflow, each under its own name."""

from __future__ import annotations

from pathlib import Path

from fusionrec.paths import Paths
from fusionrec.stages.register import curves


def test_curves_of_the_model_and_of_those_it_is_compared_with(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path / ".fusionrec")
    for folder, text in (
        (paths.bundle / "model", "step,epoch,loss,valid_ndcg@20\n0,0,0.5,\n1,1,0.25,0.125\n"),
        (paths.baselines / "only-image", "step,epoch,loss\n0,0,0.75\n"),
        (paths.baselines / "popularity", "epoch,loss\n"),  # a model without epochs
    ):
        folder.mkdir(parents=True)
        (folder / "curve.csv").write_text(text)
    assert curves(paths) == [
        {"step": 0, "epoch": 0, "loss": 0.5},
        {"step": 1, "epoch": 1, "loss": 0.25, "valid_ndcg@20": 0.125},
        {"step": 0, "epoch": 0, "only-image.loss": 0.75},
    ]
