"""What the flows share: one task per DVC stage, one that registers, and the artifacts on the run's page."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

from fusionrec.paths import Paths
from fusionrec.stages import reproduce
from fusionrec.stages.runner import run_stage
from fusionrec.stages.stale import Step

MLFLOW_URL = "FUSIONREC_MLFLOW_URL"
OPTIONS: dict[str, Any] = {"persist_result": False, "cache_policy": NO_CACHE}


@task(name="stage", task_run_name="{address}", **OPTIONS)
def stage_task(address: str, step: Step, paths: Paths, token: dict[str, str], force: bool) -> State[Any]:
    """Reproduce one stage if it is stale. Raises its one-line cause; the child is gone when this returns."""
    if step.reason is None and not force:
        return Completed(name="Skipped", message="up to date in dvc.lock")
    log = get_run_logger()
    log.info("%s: %s", address, step.reason or "forced")
    name = reproduce.single(paths, step, token, force=force, on_line=log.info)
    return Completed(name=name, message=step.reason or "forced")


@task(name="register", task_run_name="register", **OPTIONS)
def register_task(paths: Paths, token: dict[str, str]) -> dict[str, Any]:
    """Make sure that the bundle is registered in MLflow; the stage's report."""
    with _environment(token):
        report = run_stage("register", paths)
    log = get_run_logger()
    for note in report["notes"]:
        log.info(note)
    return report


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def show(paths: Paths, states: dict[str, str], report: dict[str, Any] | None) -> None:
    """Artifacts: what ran (markdown), the results (table), links to the report and to MLflow."""
    lines = ["| stage | state |", "|---|---|", *(f"| {_cell(a)} | {_cell(s)} |" for a, s in states.items())]
    create_markdown_artifact(key="pipeline", markdown="\n".join(lines), description="what ran and what was up to date")
    results = paths.evaluation / "table.json"
    if results.is_file():
        rows = json.loads(results.read_text(encoding="utf-8"))
        if isinstance(rows, list) and rows:
            create_table_artifact(key="results", table=rows[:400], description="metrics with 95 % intervals")
    page = paths.evaluation / "report.html"
    if page.is_file():
        create_link_artifact(key="report", link=page.resolve().as_uri(), link_text="evaluation report")
    for name, link in (report or {}).get("links", {}).items():
        text = str(link)
        if text.startswith("models:/") and os.environ.get(MLFLOW_URL):  # a database behind, and its pages are up
            model, _, version = text.removeprefix("models:/").partition("/")
            text = f"{os.environ[MLFLOW_URL]}/#/models/{model}/versions/{version}"
        if text.startswith(("http://", "https://")):
            create_link_artifact(key="mlflow-" + _key(name), link=text, link_text=f"MLflow: {_cell(name)}")


def _cell(text: object) -> str:
    return str(text).replace("|", "/").replace("<", "‹").replace(">", "›")


def _key(text: object) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in str(text).lower()).strip("-") or "link"
