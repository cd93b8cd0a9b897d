"""X03: kill -9 of the runner and of the run's process: the automation makes the run Crashed, and a new run works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows.api import Api
from fusionrec.errors import Unavailable
from fusionrec.stages.lock import holder
from tests.flows.test_up import free_ports, until
from tests.stages import toy

BOUND = 120.0


class Stack:
    """A Prefect server and the served deployments of a toy project, without `up`, whose own watch would be quicker."""

    def __init__(self, folder: Path) -> None:
        self.paths = toy.make(folder)
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.children: list[subprocess.Popen[bytes]] = []
        self.log = (folder.parent / "log").open("wb")

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        extra = {
            "PREFECT_HOME": str(self.paths.home / "prefect"), "PREFECT_API_URL": f"{self.url}/api",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30", "PREFECT_RUNNER_POLL_FREQUENCY": "1", "SHELL": "/bin/sh",
        }  # fmt: skip
        child = subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=self.paths.project, env=toy.environment(self.paths, **extra),
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True,
        )  # fmt: skip
        self.children.append(child)
        return child

    def members(self, word: str) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                mine = process.environ().get("FUSIONREC_HOME") == str(self.paths.home)
                if mine and process.status() != psutil.STATUS_ZOMBIE and word in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path / "p")
    try:
        yield made
    finally:
        for process in made.members(""):
            process.kill()
        for child in made.children:
            child.wait(10)


@pytest.mark.faults
@pytest.mark.timeout(500)
def test_a_killed_runner_and_run_end_as_crashed_and_the_next_run_works(stack: Stack) -> None:
    toy.behave(stack.paths, ingest={"sleep": 600})
    stack.start("flows.hosted", "prefect", "--port", str(stack.port))
    runner = stack.start("flows.serve")

    def submit(api: Api) -> str:
        deployment = api.get("/deployments/name/pipeline/pipeline")["id"]
        body = {"parameters": {"stages": ["ingest"], "wait_seconds": 0}, "state": {"type": "SCHEDULED"}}
        return str(api.post(f"/deployments/{deployment}/create_flow_run", body)["id"])

    def served() -> bool:
        try:
            with Api(stack.url) as api:
                api.get("/deployments/name/use-recipe/use-recipe")
            return True
        except Unavailable:
            return False

    until(served, 120)
    with Api(stack.url) as api:
        run = submit(api)
        until(lambda: toy.started(stack.paths) == ["ingest"], 90)
        for process in [p for p in stack.members("") if "flows.hosted" not in " ".join(p.cmdline())]:
            process.kill()
        killed = time.monotonic()
        runner.wait(10)
        until(lambda: api.get(f"/flow_runs/{run}")["state_type"] == "CRASHED", BOUND)
        assert time.monotonic() - killed < BOUND
        assert "no heartbeat" in api.get(f"/flow_runs/{run}")["state"]["message"]
        assert holder(stack.paths.home) is None, "the project is free"

        toy.behave(stack.paths)
        again = stack.start("flows.serve")
        second = submit(api)
        until(lambda: api.get(f"/flow_runs/{second}")["state_type"] in ("COMPLETED", "FAILED", "CRASHED"), 90)
        assert api.get(f"/flow_runs/{second}")["state_type"] == "COMPLETED"
        os.killpg(again.pid, signal.SIGINT)
        again.wait(20)
