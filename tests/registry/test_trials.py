"""A search in MLflow: nested runs, written once, whatever was interrupted on the way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fusionrec.errors import Unavailable
from fusionrec.registry import tracking, trials
from fusionrec.registry.trials import StudyRecord, TrialRecord

TRIALS = (
    TrialRecord(0, {"second.training.lr": 0.006, "dim": 64}, "done", 0.25, seconds=1.5, curve=((0, 0.125), (1, 0.25))),
    TrialRecord(1, {"second.training.lr": 0.01, "dim": 64}, "failed", reason="ValueError: the loss is nan"),
    TrialRecord(2, {"second.training.lr": 0.01, "dim": 32}, "done", 0.5, curve=((0, 0.5), (3, float("nan")))),
    TrialRecord(3, {"second.training.lr": 0.001, "dim": 32}, "pruned", reason="worse", curve=((0, 0.0625),)),
)
STUDY = StudyRecord("a" * 32, "blend", "valid_ndcg@20", TRIALS, {"retriever": {"kind": "blend", "dim": 64}})


def runs(home: Path) -> list[Any]:
    with tracking.client(home) as (client, _):
        place = client.get_experiment_by_name("exp").experiment_id
        return sorted(client.search_runs([place]), key=lambda r: r.data.tags.get("trial", ""))


def test_a_study_is_a_run_with_a_run_for_each_trial(home: Path) -> None:
    page = trials.record(home, "exp", replace(STUDY, best=2, state="done"))
    parent, *children = runs(home)
    assert page == f"experiments/{parent.info.experiment_id}/runs/{parent.info.run_id}"
    assert {c.data.tags["mlflow.parentRunId"] for c in children} == {parent.info.run_id}
    assert [c.info.status for c in children] == ["FINISHED", "FAILED", "FINISHED", "KILLED"]
    assert children[0].data.params == {"second.training.lr": "0.006", "dim": "64"}
    assert [c.data.metrics.get("valid_ndcg_at_20") for c in children] == [0.25, None, 0.5, None]
    assert (
        children[0].data.metrics["seconds"] == 1.5 and children[1].data.tags["reason"] == "ValueError: the loss is nan"
    )
    assert parent.info.status == "FINISHED" and parent.data.params == {"retriever.kind": "blend", "retriever.dim": "64"}
    assert parent.data.tags["best_trial"] == "2" and parent.data.tags["best.dim"] == "32"
    with tracking.client(home) as (client, _):
        curve = client.get_metric_history(children[0].info.run_id, "curve/valid_ndcg_at_20")
        best = client.get_metric_history(parent.info.run_id, "valid_ndcg_at_20")
    assert [(m.step, m.value) for m in curve] == [(0, 0.125), (1, 0.25)]
    assert sorted((m.step, m.value) for m in best) == [(0, 0.25), (2, 0.5)]


def test_recording_again_adds_only_what_is_new(home: Path) -> None:
    trials.record(home, "exp", replace(STUDY, trials=TRIALS[:2]))
    first = runs(home)
    assert len(first) == 3 and first[0].info.status == "RUNNING"
    trials.record(home, "exp", replace(STUDY, trials=TRIALS[:2], best=0, state="done"))
    assert runs(home)[0].info.status == "FINISHED"
    trials.record(home, "exp", STUDY)
    assert runs(home)[0].info.status == "RUNNING", "it goes on"
    trials.record(home, "exp", replace(STUDY, best=2, state="done"))
    last = runs(home)
    assert [r.info.run_id for r in last[:3]] == [r.info.run_id for r in first] and len(last) == 5
    trials.record(home, "exp", replace(STUDY, id="b" * 32, best=2, state="done"))
    assert len(runs(home)) == 10, "another study has runs of its own"


def test_a_half_written_trial_is_written_anew(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer dies after the run was made: once before the parent has its point, once before its end."""
    for at, lost in enumerate(("log_batch", "set_terminated")):
        study = replace(STUDY, id=f"{at}" * 32)
        with tracking.client(home) as (client, _), monkeypatch.context() as patch:
            trials.record(home, "exp", replace(study, trials=TRIALS[:1]))

            def die(*_: object, **__: object) -> None:
                raise KeyboardInterrupt

            patch.setattr(type(client), lost, die)
            with pytest.raises(KeyboardInterrupt):
                trials.record(home, "exp", study)
        trials.record(home, "exp", replace(study, best=2, state="done"))
        found = [r for r in runs(home) if study.id in (r.data.tags.get("study"),)]
        inside = [r for r in runs(home) if r.data.tags.get("mlflow.parentRunId") == found[0].info.run_id]
        assert len(found) == 1 and [r.data.tags["trial"] for r in inside] == ["0", "1", "2", "3"]
        assert "RUNNING" not in {r.info.status for r in inside}


def test_a_server_that_is_down_is_told_in_seconds(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(Unavailable, match="did not answer"):
        trials.record(home, "exp", STUDY)


@pytest.mark.slow
def test_a_server_answers_with_an_address_of_its_own(server: Any, tmp_path: Path) -> None:
    page = trials.record(tmp_path, "exp-server", replace(STUDY, best=2, state="done"))
    assert page.startswith(f"{server.uri}/#/experiments/")
    run = server.call(f"runs/get?run_id={page.rpartition('/')[2]}", "GET")["run"]
    assert run["info"]["status"] == "FINISHED" and "best_trial" in json.dumps(run["data"])
