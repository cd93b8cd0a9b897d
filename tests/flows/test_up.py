"""`fusionrec up` with its real servers on free ports: one start for the module, then ends of every kind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from benchmarks import workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

NAMES = ("PREFECT", "MLFLOW", "EVIDENTLY", "PAGE")
READY, STOPPED = 240.0, 15.0


class Up:
    """A project and a running `fusionrec up`."""

    def __init__(self, folder: Path) -> None:
        workspace.lay_out(folder)
        self.folder = folder
        self.ports = dict(zip(NAMES, free_ports(4), strict=True))
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("FUSIONREC_", "MLFLOW_", "PREFECT_"))},
            **{f"FUSIONREC_{name}_PORT": str(port) for name, port in self.ports.items()},
            "DVC_NO_ANALYTICS": "1",
            "OMP_NUM_THREADS": "1",
        }
        subprocess.run(
            [sys.executable, "-m", "dvc", "config", "core.no_scm", "true"], cwd=folder, env=self.environment, check=True
        )
        self.process: subprocess.Popen[str] | None = None
        self.said = folder.parent / f"{folder.name}.log"

    def start(self, **extra: str) -> None:
        with self.said.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fusionrec", "up"],
                cwd=self.folder,
                env={**self.environment, **extra},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        assert self.process is not None
        until(lambda: "ready in" in self.text() or self.process.poll() is not None, READY)  # type: ignore[union-attr]
        assert self.process.poll() is None, self.text()

    def text(self) -> str:
        return self.said.read_text(errors="replace")

    def once(self, code: int, **extra: str) -> str:
        """Another `up` that must end by itself with this code."""
        done = subprocess.run(
            [sys.executable, "-m", "fusionrec", "up"], cwd=self.folder, env={**self.environment, **extra}, timeout=120,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        return done.stderr

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def members(self) -> list[psutil.Process]:
        """Every live process that has this project's home in its environment."""
        home, found = str(self.folder / ".fusionrec"), []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("FUSIONREC_HOME") == home:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def end(self, number: int) -> float:
        """Signal it and wait; the seconds that took."""
        assert self.process is not None
        begin = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(60)
        return time.monotonic() - begin

    def gone(self) -> bool:
        return not self.members() and all(free(port) for port in self.ports.values())


def free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    found = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return found


def free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def until(check: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, f"not within {seconds:.0f} s"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    running = Up(tmp_path_factory.mktemp("up") / "项目 shop")
    running.start()
    try:
        running.wait_ready()
        yield running
    finally:
        if running.process is not None and running.process.poll() is None:
            running.end(signal.SIGTERM)
        for process in running.members():
            process.kill()


def test_it_says_where_everything_is(up: Up) -> None:
    assert all(up.url(name) in up.text() for name in NAMES)
    assert "ready in" in up.text() and "Ctrl-C stops everything" in up.text()


def test_every_listening_socket_is_on_loopback(up: Up) -> None:
    """S01."""
    found = {c.laddr for p in up.members() for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert {*up.ports.values()} <= {address.port for address in found}
    assert {address.ip for address in found} == {"127.0.0.1"}


@pytest.mark.parametrize(
    "name, path",
    [("PREFECT", "/api/health"), ("PREFECT", "/v2/"), ("EVIDENTLY", "/api/version"), ("PAGE", "/"),
     ("MLFLOW", "/api/2.0/mlflow/experiments/search?max_results=1")],
)  # fmt: skip
def test_another_host_or_site_is_refused(up: Up, name: str, path: str) -> None:
    """S05: DNS rebinding gets 403; another site's page gets no header that would let it read an answer."""
    port = up.ports[name]
    assert httpx.get(f"{up.url(name)}{path}").status_code == 200
    for host in ("evil.example", f"evil.example:{port}"):
        assert httpx.get(f"{up.url(name)}{path}", headers={"host": host}).status_code == 403
    answer = httpx.get(f"{up.url(name)}{path}", headers={"origin": "http://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "name, path, body",
    [
        ("PREFECT", "/api/flow_runs/filter", {}), ("PREFECT", "/api/admin/database/clear", {"confirm": True}),
        ("MLFLOW", "/api/2.0/mlflow/experiments/create", {"name": "evil"}),
        ("EVIDENTLY", "/api/projects/", {"name": "x"}),
    ],
)  # fmt: skip
def test_another_sites_page_changes_nothing(up: Up, name: str, path: str, body: dict[str, Any]) -> None:
    for headers in ({"origin": "http://evil.example"}, {"origin": "null"}):
        assert httpx.post(f"{up.url(name)}{path}", json=body, headers=headers).status_code == 403


def test_prefects_csrf_protection_is_on_and_evidently_takes_no_writes_without_its_secret(up: Up) -> None:
    answer = httpx.post(f"{up.url('PREFECT')}/api/flow_runs/filter", json={})
    assert answer.status_code == 403 and "CSRF" in answer.text
    assert httpx.post(f"{up.url('EVIDENTLY')}/api/projects/", json={"name": "x"}).status_code in (401, 403)
    secret = up.folder / ".fusionrec" / "keys" / "evidently.txt"
    assert secret.stat().st_mode & 0o777 == 0o600 and len(secret.read_text()) >= 32


def test_their_pages_may_ask_nobody_else(up: Up) -> None:
    """S26: Prefect's page would ask an analytics host whatever the settings say."""
    for name, path in (("PREFECT", "/v2/"), ("EVIDENTLY", "/")):
        policy = httpx.get(f"{up.url(name)}{path}").headers["content-security-policy"]
        allowed = {word for word in policy.replace(";", " ").split() if "://" in word}
        assert allowed == {f"{s}://{h}:{up.ports[name]}" for s in ("http", "ws") for h in ("127.0.0.1", "localhost")}


def test_telemetry_is_off_in_every_child(up: Up) -> None:
    """S26, the environment's part."""
    from fusionrec.stages.process import TELEMETRY_OFF

    found = up.members()
    assert len(found) >= 6
    for process in found:
        environment = process.environ()
        assert {name: environment.get(name) for name in TELEMETRY_OFF} == TELEMETRY_OFF, process.cmdline()
        assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


def test_the_deployments_are_there_with_paused_schedules_and_the_zombie_automation(up: Up) -> None:
    from flows.api import Api
    from tests.flows.test_deployments import NAMES as WANTED

    with Api(up.url("PREFECT")) as api:
        found = {d["name"]: d for d in api.post("/deployments/filter", {})}
        assert {*found} == {*WANTED} and not any(s["active"] for d in found.values() for s in d["schedules"])
        assert [s["slug"] for s in found["pipeline"]["schedules"]] == ["nightly"]
        automations = api.post("/automations/filter", {})
    assert [a["name"] for a in automations] == ["fusionrec: zombie runs"] and automations[0]["enabled"]


def test_the_start_page_tells_the_projects_state(up: Up) -> None:
    page = httpx.get(up.url("PAGE"), timeout=30).text
    assert "项目 shop" in page and "no bundle yet" not in page
    assert "none yet" in page and up.url("PREFECT") in page and up.url("MLFLOW") in page


def test_a_second_up_is_refused(up: Up) -> None:
    said = up.once(75)
    assert f"pid {up.process.pid}" in said and up.url("PAGE") in said  # type: ignore[union-attr]


def test_a_stale_run_is_ended_by_the_sweep_and_a_finished_one_keeps_its_end(up: Up) -> None:
    from flows.api import Api
    from flows.sweep import sweep

    with Api(up.url("PREFECT")) as api:
        deployment = api.get("/deployments/name/split/split")["id"]
        runs = {}
        for kind in ("RUNNING", "PENDING", "CANCELLING", "COMPLETED", "SCHEDULED"):
            later = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2099-01-01T00:00:00Z"}}
            runs[kind] = api.post(f"/deployments/{deployment}/create_flow_run", {"state": later})["id"]
            if kind != "SCHEDULED":
                state = {"state": {"type": kind, "name": kind.title()}, "force": True}
                api.post(f"/flow_runs/{runs[kind]}/set_state", state)
        swept = sweep(api, "for the test")
        assert {*swept} - {runs["CANCELLING"]} == {runs["RUNNING"], runs["PENDING"]}
        states = {kind: api.get(f"/flow_runs/{run}")["state"] for kind, run in runs.items()}
        assert states.pop("CANCELLING")["type"] in ("CRASHED", "CANCELLED"), "the runner may have been quicker"
        assert {k: s["type"] for k, s in states.items()} == {
            "RUNNING": "CRASHED", "PENDING": "CRASHED", "COMPLETED": "COMPLETED", "SCHEDULED": "SCHEDULED",
        }  # fmt: skip
        assert states["RUNNING"]["message"] == "for the test (it was Running)"
        assert sweep(api, "again") == []


def test_ctrl_c_stops_everything(up: Up) -> None:
    assert up.process is not None
    seconds = up.end(signal.SIGINT)
    assert up.process.returncode == 0 and seconds < STOPPED, up.text()
    assert up.gone() and "stopped in" in up.text()
    assert not (up.folder / ".fusionrec" / "up.json").exists()


def test_a_taken_port_and_a_weak_secret_are_refused_before_anything_starts(up: Up) -> None:
    """S02 and exit codes 75 and 78."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", up.ports["MLFLOW"]))
        other.listen()
        said = up.once(75)
    assert f"port {up.ports['MLFLOW']} for mlflow is taken" in said and "FUSIONREC_MLFLOW_PORT" in said
    assert f"(pid {os.getpid()})" in said
    said = up.once(78, PREFECT_SERVER_API_AUTH_STRING="admin:changeme")
    assert "PREFECT_SERVER_API_AUTH_STRING" in said and "changeme" not in said
    assert up.gone()


@pytest.mark.faults
def test_a_killed_child_a_signal_while_starting_and_a_killed_up_leave_nothing(up: Up) -> None:
    if up.process is not None and up.process.poll() is None:  # the tests before this one end it, where they run
        up.end(signal.SIGINT)
    up.start()
    up.wait_ready()
    record = json.loads((up.folder / ".fusionrec" / "up.json").read_text())
    assert up.process is not None and record["pid"] == up.process.pid
    victim = next(p for p in up.members() if "flows.start_page" in " ".join(p.cmdline()))
    victim.kill()
    up.process.wait(40)
    assert up.process.returncode == 69, up.text()
    assert "page ended with -9" in up.text() and "page.log" in up.text() and up.gone()

    up.start()
    until(lambda: len(up.members()) >= 5, 60)
    assert up.end(signal.SIGTERM) < STOPPED and up.process.returncode == 0, up.text()
    assert up.gone()

    up.start()
    until(lambda: (up.folder / ".fusionrec" / "up.json").exists(), 60)
    up.end(signal.SIGKILL)
    up.start()
    up.wait_ready()
    assert up.end(signal.SIGTERM) < STOPPED and up.gone()
