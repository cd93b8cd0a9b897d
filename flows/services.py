"""The children of ``up``: which there are, when they are ready, how they are stopped."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx
import psutil

from flows import databases, environment
from flows.api import Api
from flows.sweep import forget, pause, sweep
from fusionrec.errors import Busy, FusionrecError, Unavailable
from fusionrec.paths import Paths
from fusionrec.stages.process import alive, descendants, group_members

READY_SECONDS = 180.0
STOP_SECONDS = 7.5
_PR_SET_CHILD_SUBREAPER = 36
_LINES = 15


@dataclass(frozen=True)
class Service:
    """One child, ``python -m <arguments>``. It is ready when ``answers`` does with 200, or its log holds ``says``, or,
    with neither, when it has started; ``page`` is what people open."""

    name: str
    arguments: tuple[str, ...]
    page: str = ""
    answers: str = ""
    says: str = ""
    port: int = 0
    variable: str = ""


def planned(paths: Paths, where: environment.Ports) -> dict[str, Service]:
    """Every child by name, in the order in which they start; they are stopped the other way round."""
    store = paths.home / "mlflow"
    backend = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not backend or backend.startswith(("http://", "https://")):
        backend = f"sqlite:///{store / 'mlflow.db'}"
    hosts = ",".join(f"{name}:{where.mlflow}" for name in ("127.0.0.1", "localhost"))
    mlflow = (
        "mlflow", "server", "--host", "127.0.0.1", "--port", str(where.mlflow), "--workers", "1",
        "--backend-store-uri", backend, "--default-artifact-root", (store / "artifacts").as_uri(),
        "--no-serve-artifacts", "--allowed-hosts", hosts, "--cors-allowed-origins", where.mlflow_url,
        "--x-frame-options", "DENY", "--uvicorn-opts", "--timeout-graceful-shutdown 2",
    )  # fmt: skip
    found = [
        Service(
            "prefect", ("flows.hosted", "prefect", "--port", str(where.prefect)), f"{where.prefect_url}/v2/deployments",
            f"{where.prefect_url}/api/health", port=where.prefect, variable=environment.PREFECT_PORT,
        ),
        Service(
            "mlflow", mlflow, f"{where.mlflow_url}/#/models", f"{where.mlflow_url}/health", port=where.mlflow,
            variable=environment.MLFLOW_PORT,
        ),
        Service("deployments", ("flows.serve",), says="deployments are being served"),
        Service(
            "evidently",
            ("flows.hosted", "evidently", "--port", str(where.evidently), "--workspace", str(paths.home / "evidently")),
            where.evidently_url, f"{where.evidently_url}/api/version", port=where.evidently,
            variable=environment.EVIDENTLY_PORT,
        ),
        Service("guard", ("fusionrec", "guard", "--watch", "2")),
        Service(
            "page", ("flows.start_page",), where.page_url, f"{where.page_url}/health", port=where.page,
            variable=environment.PAGE_PORT,
        ),
    ]  # fmt: skip
    return {s.name: s for s in found if s.name != "guard" or find_spec("fusionrec.stages.guard")}


class Services:
    """The running children by name, each in its own process group with its own log.

    Raises ConfigError where the environment holds a weak secret or a database cannot be used, Busy where a port is
    taken.
    """

    def __init__(self, paths: Paths, names: Sequence[str] | None = None) -> None:
        self.paths = paths
        self.where = environment.ports()
        self.prefect_url, self.mlflow_url = self.where.prefect_url, self.where.mlflow_url
        every = planned(paths, self.where)
        self.planned = {name: every[name] for name in every if names is None or name in names}
        self.environment = environment.servers(paths, self.where)
        self.logs = paths.home / "logs"
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.seconds: dict[str, float] = {}

    def examine(self) -> None:
        """What can be known before anything starts."""
        for service in self.planned.values():
            if service.port and (who := listener(service.port)) is not None:
                raise Busy(
                    f"port {service.port} for {service.name} is taken by {who}; stop that program or set "
                    f"{service.variable} to a free port"
                )
        if "prefect" in self.planned:
            databases.check("prefect", self.paths.home / "prefect" / "prefect.db")
        if "mlflow" in self.planned:
            databases.check("mlflow", self.paths.home / "mlflow" / "mlflow.db")

    def start(self) -> None:
        """Start every child, all at once: most of the time goes into their imports. They are not ready yet."""
        self.examine()
        for folder in (self.logs, self.paths.home / "mlflow", self.paths.home / "evidently"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for service in self.planned.values():
            self._spawn(service)

    def wait(self) -> None:
        """Return when all are ready. Raises Unavailable where one ends or takes too long."""
        begin = time.monotonic()
        waiting = dict(self.planned)
        with httpx.Client(timeout=2.0, trust_env=False) as http:
            while waiting:
                self.check()
                for name in [n for n, service in waiting.items() if self._ready(service, http)]:
                    self.seconds[name] = time.monotonic() - begin
                    del waiting[name]
                if waiting and time.monotonic() - begin > READY_SECONDS:
                    name = next(iter(waiting))
                    raise Unavailable(f"{name} was not ready within {READY_SECONDS:.0f} s{self._end_of_log(name)}")
                time.sleep(0.1)

    def _spawn(self, service: Service) -> None:
        log = self.logs / f"{service.name}.log"
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            self.running[service.name] = subprocess.Popen(
                [sys.executable, "-m", *service.arguments],
                cwd=self.paths.project,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _ready(self, service: Service, http: httpx.Client) -> bool:
        if service.answers:
            with contextlib.suppress(httpx.HTTPError):
                return http.get(service.answers).status_code == 200
            return False
        return service.says in self._log(service.name)

    def check(self) -> None:
        """Raises Unavailable, with the end of its log, where a child has ended."""
        for name, child in self.running.items():
            if child.poll() is not None:
                raise Unavailable(f"{name} ended with {child.returncode}{self._end_of_log(name)}")

    def _log(self, name: str) -> str:
        return (self.logs / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def _end_of_log(self, name: str) -> str:
        lines = [line for line in self._log(name).splitlines() if line.strip()][-_LINES:]
        return "".join(f"\n  | {line[:300]}" for line in lines) + f"\n  the whole log: {self.logs / name}.log"

    def stop(self) -> list[int]:
        """Stop every child within :data:`STOP_SECONDS`; returns the processes that had to be killed.

        The deployments go first, so that their runs can still report; then open runs are swept; then the servers go.
        """
        deadline = time.monotonic() + STOP_SECONDS
        every = {pid for child in self.running.values() for pid in (child.pid, *descendants(child.pid))}
        last = [name for name in ("prefect", "mlflow") if name in self.running]
        for name in [n for n in self.running if n not in last]:
            _signal(self.running[name], signal.SIGINT if name == "deployments" else signal.SIGTERM)
        if runner := self.running.get("deployments"):
            every |= {*descendants(runner.pid)}
            with contextlib.suppress(subprocess.TimeoutExpired):
                runner.wait(max(0.1, deadline - 4.0 - time.monotonic()))
            kill({runner.pid, *descendants(runner.pid)} | {p for p in every if _belongs(p, self.paths)})
            self._sweep()
        for name in last:
            _signal(self.running[name], signal.SIGTERM)
        while time.monotonic() < deadline and any(c.poll() is None for c in self.running.values()):
            time.sleep(0.05)
        for child in self.running.values():
            every |= {child.pid, *descendants(child.pid), *group_members(child.pid)}
        left = kill(every)
        for child in self.running.values():
            child.wait(5)
        return left

    def _sweep(self) -> None:
        """A run that is still open now will not be worked on again."""
        server = self.running.get("prefect")
        if server is None or server.poll() is not None or "prefect" not in self.seconds:
            return
        with contextlib.suppress(FusionrecError), Api(self.prefect_url, timeout=2.0) as api:
            forget(self.paths.home, sweep(api, "fusionrec up was stopped while this run was open"))
            pause(api)


def start_all(services: Services) -> None:
    """Start everything and return when all of it answers."""
    services.start()
    services.wait()


def adopt_orphans() -> None:
    """Make this process the parent of every orphan below it, so that none can escape its end (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill(pids: set[int]) -> list[int]:
    """SIGKILL what is left of ``pids`` and wait until it is gone; returns those that were alive."""
    left = []
    for pid in pids - {os.getpid()}:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                process.kill()
                left.append(process)
    end = time.monotonic() + 2
    while time.monotonic() < end and any(alive(process.pid) for process in left):
        time.sleep(0.02)
    return [process.pid for process in left]


def _belongs(pid: int, paths: Paths) -> bool:
    """Whether a process works on a flow run of this project."""
    with contextlib.suppress(psutil.Error, OSError):
        found = psutil.Process(pid).environ()
        return "PREFECT__FLOW_RUN_ID" in found and found.get("FUSIONREC_HOME") == str(paths.home)
    return False


def _signal(child: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)


def listener(port: int) -> str | None:
    """Who listens on ``port`` ("NAME (pid N)"), None where it is free."""
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
            if connection.pid is None:
                return "another user's program"
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(connection.pid)
                return f"{' '.join(process.cmdline())[:120] or process.name()} (pid {process.pid})"
            return f"pid {connection.pid}"
    return None


def leftovers(file: Path) -> list[int]:
    """Processes that an ``up`` left which was itself killed: those of its record that are still the same processes."""
    import json

    try:
        children = json.loads(file.read_text(encoding="utf-8"))["children"]
    except (OSError, ValueError, KeyError):
        return []
    found = []
    for pid, started in children:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if abs(process.create_time() - started) < 0.1:
                found += [pid, *descendants(pid), *group_members(pid)]
    return found
