"""The Prefect door on a toy project, with a real Prefect API."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fusionrec.paths import Paths
from tests.stages import toy

CAUSE = "train is empty: found 0 rows, expected at least 1"


@pytest.fixture(scope="module", autouse=True)
def api(own_home: None) -> Iterator[None]:
    """One temporary Prefect API for the file."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=110):
        yield


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    paths = toy.make(tmp_path / "p")
    monkeypatch.chdir(paths.project)
    monkeypatch.setenv("FUSIONREC_HOME", str(paths.home))
    monkeypatch.setenv("SHELL", "/bin/sh")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(paths.home / "dvc-site"))
    return paths


def go(**parameters: Any) -> Any:
    """Run the toy's two stages (no bundle, so nothing to register) and return the final state."""
    from flows.pipeline import pipeline

    return pipeline(**{"stages": ["ingest", "train"], "wait_seconds": 0, **parameters}, return_state=True)


def task_runs(state: Any) -> dict[str, str]:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    with get_client(sync_client=True) as client:
        found = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
        )
    return {run.name: run.state_name for run in found}


def test_a_run_does_what_dvc_repro_does_and_the_other_way_round(project: Paths) -> None:
    assert go().result() == {"ingest": "Ran", "train": "Ran"}
    assert "up to date" in toy.dvc(project, "status")
    toy.dvc(project, "repro")
    assert toy.started(project) == ["ingest", "train"], "dvc repro after a flow run executes nothing"
    (project.project / "raw" / "log" / "log.csv").write_text("z\n")
    toy.dvc(project, "repro")
    state = go()
    assert state.result() == {"ingest": "Skipped", "train": "Skipped"}
    assert toy.started(project) == ["ingest", "train"] * 2, "a flow run after dvc repro executes nothing"


def test_a_stages_error_is_the_runs_one_line_cause(project: Paths) -> None:
    toy.behave(project, train={"raise": "DataRejected", "message": CAUSE})
    state = go()
    assert state.is_failed() and state.message.endswith(f"DataRejected: train: {CAUSE} (exit 3)")
    assert "\n" not in state.message
    assert "data/second" not in {str(p.relative_to(project.project)) for p in project.data.rglob("*")}


def test_a_changed_parameter_runs_isolated_and_adopt_brings_it_in(project: Paths) -> None:
    from fusionrec.stages.adopt import adopt

    go()
    before = {n: (project.project / n).read_bytes() for n in ("params.yaml", "dvc.lock", "data/second")}
    state = go(seed=3)
    assert state.result() == {"ingest": "Skipped", "train": "Ran"}, "only what the seed touches"
    assert {n: (project.project / n).read_bytes() for n in before} == before
    assert "up to date" in toy.dvc(project, "status")
    assert toy.journal(project)[-1][3] == "3"
    run = str(state.state_details.flow_run_id)
    names = sorted(p.name for p in (project.home / "runs" / run).iterdir())
    assert names == ["dvc.lock", "finished", "params.yaml", "reports"]
    assert not list((project.home / "isolated").iterdir()), "the workspace is gone"
    ran = len(toy.started(project))
    assert adopt(project, run[:8]) == ["params.yaml", "dvc.lock"]
    assert (project.data / "second").read_text().endswith("seed 3\n")
    assert "up to date" in toy.dvc(project, "status")
    toy.dvc(project, "repro")
    assert len(toy.started(project)) == ran, "adopting trains nothing"


def test_a_failed_isolated_run_leaves_the_project_clean(project: Paths) -> None:
    from fusionrec.errors import ConfigError
    from fusionrec.stages.adopt import adopt

    go()
    toy.behave(project, train={"raise": "ConfigError", "message": "nothing fits"})
    state = go(seed=4)
    assert state.is_failed() and state.message.endswith("ConfigError: train: nothing fits (exit 78)")
    assert "up to date" in toy.dvc(project, "status") and not list((project.home / "isolated").iterdir())
    before = {n: (project.project / n).read_bytes() for n in ("params.yaml", "dvc.lock", "data/second")}
    with pytest.raises(ConfigError, match="did not finish, so there is nothing to adopt"):
        adopt(project, str(state.state_details.flow_run_id))
    assert {n: (project.project / n).read_bytes() for n in before} == before


@pytest.mark.parametrize(
    "parameters",
    [
        {"set": ["train.seed=$(touch pwned)"]}, {"set": ["train.seed=1; touch pwned"]}, {"set": ["`touch pwned`=1"]},
        {"set": ["modalities.x;touch pwned.kind=text"]}, {"set": ["train.retriever.kind=../../../../bin/sh"]},
        {"recipe": "../../etc/passwd"}, {"recipe": "atelier; touch pwned"}, {"retriever": "ease; touch pwned"},
        {"fusion": "$(touch pwned)"}, {"seed": "0; touch pwned"}, {"stages": ["ingest; touch pwned"]}, {"seed": -2},
        {"set": ["train.seed"]}, {"set": ["source.root=raw/log; touch pwned"]}, {"set": ["source.root=$(touch pwned)"]},
    ],
    ids=str,
)  # fmt: skip
def test_no_parameter_reaches_a_shell(project: Paths, parameters: dict[str, Any]) -> None:
    """S27: every hostile value ends in an error of the run; nothing it names is executed."""
    from prefect.exceptions import ParameterTypeError

    try:
        state = go(**parameters)
    except ParameterTypeError:
        state = None
    assert state is None or state.is_failed()
    assert not [p for p in project.project.rglob("pwned*") if ".fusionrec/runs" not in p.as_posix()]
    assert "seed: 0" in (project.project / "params.yaml").read_text()


def test_a_second_run_is_refused_with_the_holder(project: Paths) -> None:
    from fusionrec.stages.lock import project_lock

    with project_lock(project.home, "somebody", 0):
        state = go()
    assert state.is_failed() and "Busy" in state.message and f"pid {os.getpid()}" in state.message


def test_what_was_up_to_date_shows_as_skipped(project: Paths) -> None:
    go()
    assert task_runs(go()) == {"ingest": "Skipped", "train": "Skipped"}
    assert task_runs(go(stages=["train"], force=True)) == {"train": "Ran"}


def test_files_of_a_run_are_private(project: Paths) -> None:
    go()
    for file in (
        project.data / "first",
        project.data / "second",
        project.home,
        project.home / "dvc-site",
        project.reports,
    ):
        assert file.stat().st_mode & 0o077 == 0, file
