"""The five recipes on the small demo, from the command line and from Prefect; the project stays as it was."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import Project
from tests.e2e.test_doors import flow

pytestmark = pytest.mark.timeout(900)

PACKAGED = "modalities.image.encoder={kind: efficientnet_lite0}"
QUICK = ("rank.ranker.training.epochs=2", "evaluate.bootstrap=50", "evaluate.samples=2")
SHORT = (*QUICK, "train.retriever.training.epochs=2", "rank.baselines=[]", "rank.singles=false", "rank.without=[]")
LEARN = "modalities.{}.encoder.learning.epochs=1"
RECIPES = {
    "ctr_net": QUICK,
    "self_attention_graph": SHORT,
    "attention_search": (*SHORT, PACKAGED),
    "deepfm_conversion": (*SHORT, LEARN.format("image")),
    "cross_modal_alignment": (*SHORT, PACKAGED, LEARN.format("text"), LEARN.format("audio")),
}
BOTH_DOORS = "cross_modal_alignment"


@pytest.fixture(scope="module")
def project(demo: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return demo.copy(tmp_path_factory.mktemp("recipes") / "project")


def settings(name: str) -> list[str]:
    return [word for pair in RECIPES[name] for word in ("--set", pair)]


@pytest.mark.parametrize("name", RECIPES)
def test_one_command_runs_it_to_a_table_and_a_version(project: Project, name: str) -> None:
    before = project.digest("data", "params.yaml", "dvc.lock")
    versions = len(project.versions())
    said = project.run("fusionrec", "repro", "--recipe", name, *settings(name), timeout=600)
    assert project.digest("data", "params.yaml", "dvc.lock") == before
    assert len(project.versions()) == versions + 1
    recipe = yaml.safe_load((project.folder / "recipes" / f"{name}.yaml").read_text(encoding="utf-8"))
    rows = [line for line in said.splitlines() if line.startswith("│")]
    assert any(f"({recipe['train']['retriever']['kind']}: " in line for line in rows), said[-3000:]
    for modality in recipe["modalities"]:
        assert any(f"{modality} alone" in line for line in rows)
    assert re.search(r"fusionrec adopt [0-9a-f]{8}", said)


def test_prefects_run_of_it_is_the_same_model(project: Project) -> None:
    """Of the command line's run nothing is in the project, and yet nothing is registered twice."""
    versions = project.versions()
    states = flow(project, f"recipe={BOTH_DOORS!r}, set={list(RECIPES[BOTH_DOORS])!r}")
    assert states["ingest"] == "Skipped" and states["register"] == "Known"
    assert project.versions() == versions


def test_every_recipe_is_on_prefects_form() -> None:
    from flows.pipeline import RECIPES as offered

    assert set(RECIPES) < set(offered)


def test_what_is_adopted_is_up_to_date(project: Project, tmp_path: Path) -> None:
    own = project.copy(tmp_path / "adopted")
    said = own.run("fusionrec", "repro", "--recipe", "ctr_net", *settings("ctr_net"), timeout=600)
    (run,) = re.findall(r"fusionrec adopt ([0-9a-f]{8})", said)
    own.run("fusionrec", "adopt", run)
    assert "up to date" in own.run("dvc", "status")
    assert yaml.safe_load((own.folder / "params.yaml").read_text())["rank"]["ranker"]["kind"] == "concat_dense"
