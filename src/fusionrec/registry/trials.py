"""A search for hyper-parameters in MLflow: a run for the study, inside it a run for each trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from fusionrec.registry import tracking
from fusionrec.registry.recording import flatten, safe_name
from fusionrec.registry.registering import experiment_of

_STUDY, _TRIAL, _PARENT = "study", "trial", "mlflow.parentRunId"
_STATUS = {"done": "FINISHED", "failed": "FAILED", "pruned": "KILLED"}
_ENDS = {"running": "RUNNING", "done": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}


@dataclass(frozen=True)
class TrialRecord:
    """One finished trial. ``curve``: (epoch, value); ``reason``: why it has no value."""

    number: int
    params: Mapping[str, Any]
    state: Literal["done", "failed", "pruned"]
    value: float | None = None
    reason: str = ""
    seconds: float = 0.0
    curve: Sequence[tuple[int, float]] = ()


@dataclass(frozen=True)
class StudyRecord:
    """A study as far as it has come. ``id`` is its own for ever; ``params``: what all its trials share; ``best``: the
    number of the best trial where there is one; ``state``: "stopped" is one that somebody interrupted."""

    id: str
    name: str
    metric: str
    trials: Sequence[TrialRecord]
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    best: int | None = None
    state: Literal["running", "done", "failed", "stopped"] = "running"


def record(home: Path, experiment: str, study: StudyRecord) -> str:
    """Make sure that MLflow has the study's run and one run for each of its trials; returns the address of the run.

    What is there already is left alone, so this can be called after every trial and after every interruption. A run
    that was half written when its writer died is replaced. Raises Unavailable where MLflow does not answer.
    """
    with tracking.client(home) as (client, where):
        place = experiment_of(client, where, experiment)
        parent = _parent(client, place, study)
        whole = set()
        for run in client.search_runs([place], f"tags.`{_PARENT}` = '{parent}'", max_results=5000):
            if run.info.status == "RUNNING":
                client.delete_run(run.info.run_id)
            else:
                whole.add(run.data.tags.get(_TRIAL))
        for trial in study.trials:
            if str(trial.number) not in whole:
                _child(client, place, parent, study, trial)
        _close(client, parent, study)
        page = f"experiments/{place}/runs/{parent}"
        return f"{where.shown}/#/{page}" if where.is_server else page


def _parent(client: Any, place: str, study: StudyRecord) -> str:
    found = client.search_runs([place], f"tags.{_STUDY} = '{study.id}'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    tags = {**study.tags, _STUDY: study.id, "metric": study.metric}
    parent = str(client.create_run(place, tags=tags, run_name=f"search {study.name}").info.run_id)
    _log(client, parent, study.params, {}, 0)
    return parent


def _child(client: Any, place: str, parent: str, study: StudyRecord, trial: TrialRecord) -> None:
    tags = {_PARENT: parent, _TRIAL: str(trial.number)}
    if trial.reason:
        tags["reason"] = trial.reason[:500]
    run = client.create_run(place, tags=tags, run_name=f"{study.name} trial {trial.number}")
    metric = safe_name(study.metric)
    child, now = str(run.info.run_id), int(run.info.start_time)
    _log(client, child, trial.params, {"seconds": [(0, trial.seconds)], f"curve/{metric}": trial.curve}, now)
    if trial.value is not None:
        _log(client, child, {}, {metric: [(0, trial.value)]}, now)
        started = int(client.get_run(parent).info.start_time)  # one time for all: written again, it is the same point
        _log(client, parent, {}, {metric: [(trial.number, trial.value)]}, started)
    client.set_terminated(child, _STATUS[trial.state])


def _close(client: Any, parent: str, study: StudyRecord) -> None:
    """Give the study's run its best trial and its end, or open it again where the study goes on."""
    status, wanted = client.get_run(parent).info.status, _ENDS[study.state]
    best = next((trial for trial in study.trials if trial.number == study.best), None)
    if best is not None:
        for key, value in (("best_trial", str(best.number)), *_texts(best.params, "best.")):
            client.set_tag(parent, key, value)
    if status == wanted:
        return
    if wanted == "RUNNING":
        client.update_run(parent, status=wanted)
    else:
        client.set_terminated(parent, wanted)


def _log(
    client: Any, run: str, params: Mapping[str, Any], curves: Mapping[str, Sequence[tuple[int, float]]], now: int
) -> None:
    from mlflow.entities import Metric, Param

    written = [Param(key, value) for key, value in _texts(params)]
    points = [
        Metric(name, float(value), now, step)
        for name, curve in curves.items()
        for step, value in curve
        if isfinite(value)
    ]
    for start in range(0, len(written), 100):
        client.log_batch(run, params=written[start : start + 100])
    for start in range(0, len(points), 1000):
        client.log_batch(run, metrics=points[start : start + 1000])


def _texts(params: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    return [(f"{prefix}{key}"[:250], str(value)[:5000]) for key, value in flatten(params)]
