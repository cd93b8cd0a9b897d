"""Runs that nobody works on any more get an end: Crashed, with the reason.

A run whose process was killed together with its runner stays Running for ever. While the servers are up an automation
notices (``flows/automations.py``); what an earlier session left, and what is still open when the session ends, is swept
here.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import psutil

from flows.api import Api

TAG = "fusionrec"
OPEN = ("RUNNING", "PENDING", "CANCELLING")


def sweep(api: Api, reason: str) -> list[str]:
    """Make open runs of this project's deployments terminal whose process is gone; returns their ids.

    Waiting (Scheduled) and paused runs stay as they are.
    """
    found = api.post("/deployments/filter", {"deployments": {"tags": {"all_": [TAG]}}})
    ids = [deployment["id"] for deployment in found]
    if not ids:
        return []
    runs = api.post(
        "/flow_runs/filter",
        {"flow_runs": {"deployment_id": {"any_": ids}, "state": {"type": {"any_": list(OPEN)}}}},
    )
    alive = working()
    swept = []
    for run in runs:
        if run["id"] not in alive:
            _crash(api, run, reason)
            swept.append(run["id"])
    return swept


def forget(home: Path, runs: list[str]) -> None:
    """Remove the isolated workspaces of swept runs; whatever they had finished is in the cache."""
    for run in runs:
        shutil.rmtree(home / "isolated" / run, ignore_errors=True)


def pause(api: Api) -> None:
    """Pause the deployments that have an active schedule: nobody will be there to run them."""
    for deployment in api.post("/deployments/filter", {"deployments": {"tags": {"all_": [TAG]}}}):
        if any(schedule["active"] for schedule in deployment["schedules"]):
            api.post(f"/deployments/{deployment['id']}/pause_deployment", {})


def _crash(api: Api, run: dict[str, Any], reason: str) -> None:
    state = {"type": "CRASHED", "name": "Crashed", "message": f"{reason} (it was {run['state_name']})"}
    # without force a run that has just ended keeps its end; only from Cancelling Prefect allows no other way
    api.post(f"/flow_runs/{run['id']}/set_state", {"state": state, "force": run["state_type"] == "CANCELLING"})
    tasks = api.post(
        "/task_runs/filter",
        {
            "flow_runs": {"id": {"any_": [run["id"]]}},
            "task_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING"]}}},
        },
    )
    for task in tasks:
        api.post(f"/task_runs/{task['id']}/set_state", {"state": state, "force": True})


def working() -> set[str]:
    """Ids of the flow runs that a live process on this machine works on: Prefect names the run in its environment."""
    found = set()
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and (run := process.environ().get("PREFECT__FLOW_RUN_ID")):
                found.add(run)
        except (psutil.Error, OSError):
            continue
    return found
