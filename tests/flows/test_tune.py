"""The tune flow on a small project, with a real Prefect API: its artifacts and its end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fusionrec import config
from fusionrec.paths import Paths
from fusionrec.recommenders.item_knn import ItemKNN
from tests.evaluation.conftest import World, write_project


@pytest.fixture(scope="module", autouse=True)
def api(own_home: None) -> Iterator[None]:
    """One temporary Prefect API for the file."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=110):
        yield


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    params, paths = write_project(tmp_path / "p", World(n_users=31, n_items=43, n_cold=7, seed=3))
    raw = params.model_dump(mode="json", serialize_as_any=True)
    raw["train"]["retriever"] = ItemKNN(neighbours=1, shrinkage=0).model_dump(mode="json")
    (paths.project / "params.yaml").write_text(json.dumps(raw))
    monkeypatch.chdir(paths.project)
    monkeypatch.setenv("FUSIONREC_HOME", str(paths.home))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    return paths


def artifacts(state: Any) -> dict[str, Any]:
    """Key -> data of what the run left on its page."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    run = state.state_details.flow_run_id
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run])), limit=20
        )
    return {artifact.key: artifact.data for artifact in found}


def test_a_run_searches_shows_its_trials_and_adopts(project: Paths) -> None:
    from flows.tune import tune

    state = tune(trials=3, return_state=True)
    assert state.name == "Searched" and state.message.startswith("best on validation: trial ")
    left = artifacts(state)
    rows = json.loads(left["trials"])
    assert [row["trial"] for row in rows] == [0, 1, 2] and rows[0]["neighbours"] == "1"
    best = next(row for row in rows if row["state"] == "best")
    assert f"| neighbours | {best['neighbours']} |" in left["best-parameters"] and "mlflow-search" not in left
    assert json.loads((project.reports / "tune.json").read_text())["counts"]["trials"] == 3
    state = tune(trials=3, adopt=True, wait_seconds=0, return_state=True)
    assert state.name == "Adopted"
    adopted = config.load(project.project / "params.yaml").train.retriever
    assert str(adopted.neighbours) == best["neighbours"] and best["trial"] > 0  # type: ignore[attr-defined]


def test_bad_input_is_refused_and_a_cause_is_one_line(project: Paths) -> None:
    from flows.tune import tune

    for wrong in ({"trials": 0}, {"trials": 201}, {"minutes": 0}):
        assert "valid" in str(tune(**wrong, return_state=True).message).lower()
    (project.splits / "valid.parquet").unlink()
    state = tune(return_state=True)
    assert state.is_failed() and "data/splits/valid.parquet is missing" in state.message
