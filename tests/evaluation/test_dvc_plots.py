"""`dvc plots show` draws every plot of dvc.yaml, with real DVC on a small project that was trained and evaluated."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import vl_convert
import yaml

from fusionrec.stages import evaluate, rank, train

TITLES = (
    "NDCG@20 by validation while training",
    "recall by list length",
    "loss without a modality",
    "score when modalities are missing",
)


@pytest.fixture(scope="module")
def repository_plots(repository_root: Path) -> dict:
    found = yaml.safe_load((repository_root / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
    assert [next(iter(plot)) for plot in found] == list(TITLES)
    return {"plots": found}


@pytest.fixture(scope="module")
def repository_root() -> Path:
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def shown(tmp_path_factory, repository_root, repository_plots):
    """(project folder, run) of a project with the plots of the repository's dvc.yaml."""
    from tests.evaluation.conftest import World, write_project

    folder = tmp_path_factory.mktemp("plots") / "p"
    tower = {"kind": "two_tower", "training": {"epochs": 5}}
    params, paths = write_project(folder, World(n_users=40, n_items=50, n_cold=9, seed=4), retriever=tower)
    train.run(params, paths)
    rank.run(params, paths)
    evaluate.run(params, paths)
    (folder / "dvc.yaml").write_text(yaml.safe_dump(repository_plots), encoding="utf-8")
    environment = {
        **os.environ,
        "DVC_SITE_CACHE_DIR": str(folder / "site"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *arguments], cwd=folder, env=environment, capture_output=True, text=True,
            timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("init", "--no-scm", "-q")
    shutil.copytree(repository_root / ".dvc" / "plots", folder / ".dvc" / "plots")
    return folder, run


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with open(folder / "data" / name, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_plot_is_drawn_with_every_row(shown):
    folder, run = shown
    found = json.loads(run("plots", "show", "--json"))
    found = found.get("data", found)
    specs = {}
    for name, versions in found.items():
        content = versions[0]["content"]
        specs[name.rpartition("::")[2]] = json.loads(content) if isinstance(content, str) else content
    assert set(specs) == set(TITLES)
    evaluation = folder / "data" / "evaluation" / "plots"
    files = {
        TITLES[0]: folder / "data" / "model" / "curve.csv",
        TITLES[1]: evaluation / "recall_by_k.csv",
        TITLES[2]: evaluation / "knockout.csv",
        TITLES[3]: evaluation / "missing.csv",
    }
    for title, spec in specs.items():
        assert "<DVC_METRIC" not in json.dumps(spec), title
        with open(files[title], encoding="utf-8") as file:
            expected = list(csv.DictReader(file))
        assert len(spec["data"]["values"]) == len(expected) > 0, title
    models = {r["model"] for r in rows(folder, "evaluation/plots/recall_by_k.csv")}
    hidden = {r["hidden"] for r in rows(folder, "evaluation/plots/missing.csv")}
    assert hidden == {"every modality", "text", "image"}
    # a line each, named in the legend; the picture is drawn without a browser and without the network
    for title, names in ((TITLES[1], models), (TITLES[3], hidden)):
        svg = vl_convert.vegalite_to_svg(specs[title], allowed_base_urls=[])
        assert svg.count('aria-roledescription="line mark"') >= len(names), title
        assert all(f">{name}<" in svg for name in names), title
    bars = vl_convert.vegalite_to_svg(specs[TITLES[2]], allowed_base_urls=[])
    assert bars.count('aria-roledescription="bar"') == len(rows(folder, "evaluation/plots/knockout.csv"))
    assert "NaN" not in bars


def test_the_page_of_dvc_is_written(shown):
    folder, run = shown
    run("plots", "show", "-o", "shown")
    html = (folder / "shown" / "index.html").read_text(encoding="utf-8")
    assert all(title in html for title in TITLES)
