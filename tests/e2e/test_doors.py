"""Two doors, one truth, on the real pipeline: a Prefect run and `dvc repro` skip what the other did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.conftest import Project

pytestmark = pytest.mark.timeout(900)

RUN = "import json; from flows.pipeline import pipeline; print('STATES', json.dumps(pipeline({arguments})))"


def flow(project: Project, arguments: str = "") -> dict[str, str]:
    """Run the pipeline flow in a process of its own (ephemeral API); its states by stage."""
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(arguments=arguments)],
        cwd=project.folder,
        env=project.environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("STATES")]
    assert lines, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(lines[0][7:])


def test_a_prefect_run_after_dvc_repro_skips_everything_and_an_isolated_one_leaves_the_project_clean(
    demo: Project, tmp_path: Path
) -> None:
    project = demo.copy(tmp_path / "doors")
    states = flow(project)
    assert {v for k, v in states.items() if k != "register"} == {"Skipped"}
    assert states["register"] == "Known"

    before = project.digest("data", "params.yaml", "dvc.lock")
    states = flow(project, "seed=5")
    assert states["train"] == "Ran" and states["ingest"] == "Skipped" and states["register"] == "Registered"
    assert project.digest("data", "params.yaml", "dvc.lock") == before
    assert "up to date" in project.run("dvc", "status")
    assert "Running stage" not in project.run("dvc", "repro")
    assert len(project.versions()) == 2
    assert project.versions()[-1]["params"]["train.seed"] == "5"


def _port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _until(what: str, check, seconds: float):  # type: ignore[no-untyped-def]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = check()
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError(f"{what}: not within {seconds:.0f} s")


@pytest.mark.faults
def test_cancelling_a_served_run_leaves_no_process(demo: Project, tmp_path: Path) -> None:
    """A real server, the real deployments; the run is cancelled through the API while it trains."""
    project = demo.copy(tmp_path / "cancelled")
    port = _port()
    api = f"http://127.0.0.1:{port}/api"
    environment = {
        **project.environment,
        "PREFECT_HOME": str(project.folder / ".fusionrec" / "prefect"),
        "PREFECT_API_URL": api,
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
    }
    log = (tmp_path / "log").open("wb")
    started = []

    def start(*arguments: str) -> None:
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=project.folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        )

    def stages() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter(["cmdline", "cwd"]):
            line = " ".join(process.info["cmdline"] or ())
            inside = str(process.info["cwd"] or "").startswith(str(project.folder))
            if inside and ("fusionrec run" in line or "dvc" in line or "stages.reproduce" in line):
                found.append(process)
        return found

    try:
        start("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
        client = httpx.Client(base_url=api, timeout=10)

        def healthy() -> bool:
            try:
                return client.get("/health").status_code == 200
            except httpx.HTTPError:
                return False

        _until("the server", healthy, 90)
        start("flows.serve")

        def deployment() -> str | None:
            found = client.get("/deployments/name/pipeline/pipeline")
            return found.json()["id"] if found.status_code == 200 else None

        target = _until("the deployment", deployment, 90)

        def submitted() -> str | None:
            body = {"parameters": {"seed": 11}}
            answer = client.post(f"/deployments/{target}/create_flow_run", json=body)
            return answer.json()["id"] if answer.status_code == 201 else None  # a starting server may say "try again"

        created = _until("the run", submitted, 60)
        _until("a stage running", lambda: any("run train" in " ".join(p.cmdline()) for p in stages()), 120)
        client.post(f"/flow_runs/{created}/set_state", json={"state": {"type": "CANCELLING", "name": "Cancelling"}})
        _until("no stage left", lambda: not stages(), 60)
        state = _until(
            "a terminal state",
            lambda: (
                (s := client.get(f"/flow_runs/{created}").json()["state"])["type"] in ("CANCELLED", "CRASHED") and s
            ),
            60,
        )
        assert state["type"] == "CANCELLED"
    finally:
        for process in reversed(started):
            os.killpg(process.pid, signal.SIGTERM)
        for process in started:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:  # the servers' own manners are not what is tested here
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)
    assert "up to date" in project.run("dvc", "status")
