"""What the flows share: one task per DVC stage, one that registers, and the artifacts on the run's page."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

from flows.environment import PAGE_URL, TRAINING
from fusionrec.evaluation.table import rows_for_people
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


class Progress:
    """The run's progress bar: an artifact that moves with each finished stage."""

    def __init__(self, names: Sequence[str]) -> None:
        self.total, self.finished = max(1, len(names)), 0
        self.id = create_progress_artifact(progress=0.0, key="progress", description=f"next: {', '.join(names)}")

    def done(self, name: str) -> None:
        self.finished += 1
        update_progress_artifact(
            self.id,
            progress=round(100 * self.finished / self.total, 1),
            description=f"{self.finished} of {self.total} done, last {name}",
        )


def show(paths: Paths, states: dict[str, str], report: dict[str, Any] | None) -> None:
    """Artifacts: what ran (markdown), the results (table), links to report, Data Docs and MLflow."""
    lines = ["| stage | state |", "|---|---|", *(f"| {cell(a)} | {cell(s)} |" for a, s in states.items())]
    create_markdown_artifact(key="pipeline", markdown="\n".join(lines), description="what ran and what was up to date")
    results = paths.evaluation / "table.json"
    if results.is_file():
        tests = results.with_name("tests.json")
        tested = json.loads(tests.read_text(encoding="utf-8")) if tests.is_file() else None
        rows = rows_for_people(json.loads(results.read_text(encoding="utf-8")), tested)
        create_table_artifact(key="results", table=rows[:100], description="metrics with 95 % intervals")
    if paths.home / "isolated" not in paths.project.parents:  # an isolated run's files are gone after it
        for key, (place, file) in {
            "report": (paths.evaluation / "report.html", "evaluation/report.html"),
            "gate": (paths.gate / "docs" / "index.html", "gate/"),
            "data-docs": (paths.home / "docs" / "gate" / "index.html", "docs/gate/"),
        }.items():
            if place.is_file():
                link_to(key, place, file, TEXTS[key])
    _mlflow_links((report or {}).get("links", {}))


TEXTS = {"report": "evaluation report", "gate": "what the gate found", "data-docs": "Great Expectations' Data Docs"}


def link_to(key: str, place: Path, path: str, text: str) -> None:
    """A link artifact to a saved page: on the start page's server where ``up`` runs, else the file."""
    page = os.environ.get(PAGE_URL)
    link = f"{page}/{path}" if page else place.resolve().as_uri()
    create_link_artifact(key=key, link=link, link_text=text, description=text)


def _mlflow_links(links: dict[str, Any]) -> None:
    """Where a registered version and its run are seen."""
    for name, link in links.items():
        if address := in_mlflow(str(link)):
            text = f"MLflow: {cell(name)}"
            create_link_artifact(key="mlflow-" + _key(name), link=address, link_text=text, description=text)


def in_mlflow(link: str) -> str:
    """A report's link as an address: on the server of ``up``, or on the tracking server itself; "" for what no MLflow
    server shows."""
    pages = os.environ.get(MLFLOW_URL)
    if link.startswith(("http://", "https://")):
        return link
    if pages and link.startswith("models:/"):
        model, _, version = link.removeprefix("models:/").partition("/")
        return f"{pages}/#/models/{model}/versions/{version}{TRAINING}"
    return f"{pages}/#/{link}{TRAINING}" if pages and link.startswith("experiments/") else ""


def cell(text: object) -> str:
    """Text that stays text in a Markdown table."""
    return str(text).replace("|", "/").replace("<", "‹").replace(">", "›")


def _key(text: object) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in str(text).lower()).strip("-") or "link"
