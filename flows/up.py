"""``python -m flows.up``: Prefect, MLflow and the deployments on loopback, in one terminal, until Ctrl-C.

No run is left in the air: the deployments stop first, so that their runs can still report, then the servers.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from flows import environment
from fusionrec.errors import Busy, Unavailable
from fusionrec.paths import Paths
from fusionrec.stages.process import Terminated, child_environment, on_sigterm
from fusionrec.stages.runner import guarded

READY_SECONDS = 180.0


class Services:
    """The child processes by name, each in its own group, each with a log file."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.logs = paths.home / "logs"
        self.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        prefect, mlflow = environment.ports()
        self.prefect_url, self.mlflow_url = f"http://127.0.0.1:{prefect}", f"http://127.0.0.1:{mlflow}"
        self.environment = child_environment(paths.home, {
            **environment.settings(paths.home), "PREFECT_API_URL": f"{self.prefect_url}/api",
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "FUSIONREC_MLFLOW_URL": self.mlflow_url,
        })  # fmt: skip

    def start(self, name: str, *arguments: str, **extra: str) -> None:
        with (self.logs / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=self.paths.project,
                env={**self.environment, **extra},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raises Unavailable where a service has ended."""
        for name, child in self.running.items():
            if child.poll() is not None:
                raise Unavailable(f"{name} ended with {child.returncode}; its log is {self.logs / name}.log")

    def wait(self, name: str, url: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            self.check()
            with contextlib.suppress(OSError, urllib.error.URLError):
                if urllib.request.urlopen(url, timeout=2).status == 200:  # noqa: S310  (our own loopback address)
                    return
            time.sleep(0.25)
        raise Unavailable(f"{name} was not ready within {READY_SECONDS:.0f} s; its log is {self.logs / name}.log")

    def stop(self) -> None:
        for name, child in reversed(self.running.items()):
            first = signal.SIGINT if name == "deployments" else signal.SIGTERM
            for number, patience in ((first, 20.0), (signal.SIGKILL, 5.0)):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(patience)
                    break


def start_all(services: Services) -> None:
    """Start everything and return when all of it answers."""
    prefect, mlflow = environment.ports()
    for name, port in (("Prefect", prefect), ("MLflow", mlflow)):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                variable = environment.PREFECT_PORT if name == "Prefect" else environment.MLFLOW_PORT
                raise Busy(f"port {port} for {name} is taken; stop what listens there or set {variable}")
    services.start("prefect", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(prefect))
    store = services.paths.home / "mlflow"
    store.mkdir(mode=0o700, parents=True, exist_ok=True)
    services.start(
        "mlflow", "mlflow", "server", "--host", "127.0.0.1", "--port", str(mlflow), "--workers", "1",
        "--backend-store-uri", os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{store / 'mlflow.db'}"),
        "--default-artifact-root", (store / "artifacts").as_uri(), "--no-serve-artifacts",
    )  # fmt: skip
    services.wait("prefect", f"{services.prefect_url}/api/health")
    services.start("deployments", "flows.serve")
    services.wait("mlflow", f"{services.mlflow_url}/health")
    log = services.logs / "deployments.log"
    deadline = time.monotonic() + READY_SECONDS
    while b"deployments are being served" not in log.read_bytes() and time.monotonic() < deadline:
        services.check()
        time.sleep(0.25)


def main() -> int:
    """Until SIGINT or SIGTERM; 0 then, 69 where a service dies."""
    on_sigterm()
    paths = environment.find()
    os.umask(0o077)

    def action() -> int:
        services = Services(paths)
        try:
            start_all(services)
            print(
                f"Prefect  {services.prefect_url}/v2/deployments\nMLflow   {services.mlflow_url}\nCtrl-C stops",
                flush=True,
            )
            while True:
                services.check()
                time.sleep(0.5)
        except (KeyboardInterrupt, Terminated):
            print("stopping", flush=True)
            return 0
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            services.stop()

    return guarded("up", action, lambda: Path(paths.home))


if __name__ == "__main__":
    sys.exit(main())
