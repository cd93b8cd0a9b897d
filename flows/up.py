"""``fusionrec up``: Prefect, MLflow, Evidently, deployments, guard and start page, in one terminal, until Ctrl-C.

Everything listens on loopback alone. A child that dies ends the others; no process and no open run is left behind.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from flows import environment
from flows.services import Service, Services, adopt_orphans, kill, leftovers, start_all
from fusionrec.errors import Busy
from fusionrec.paths import Paths
from fusionrec.stages.process import Terminated, descendants, harden, on_sigterm
from fusionrec.stages.runner import guarded, write_json

__all__ = ["Services", "main", "start_all"]

TITLES = {
    "page": "start page",
    "prefect": "Prefect",
    "mlflow": "MLflow",
    "evidently": "Evidently",
    "deployments": "deployments",
    "guard": "alias guard",
}


@contextmanager
def only_one(paths: Paths) -> Iterator[Path]:
    """Hold the project's ``up.lock``; yields the file that tells others about this ``up``. Raises Busy."""
    record = paths.home / "up.json"
    lock = FileLock(paths.home / "up.lock", mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        try:
            found = json.loads(record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = {}
        raise Busy(
            f"this project is up already (pid {found.get('pid', 'unknown')}): {found.get('page', 'it is starting')}; "
            f"stop it with Ctrl-C in its terminal, or: kill {found.get('pid', 'PID')}"
        ) from None
    try:
        killed = kill({*leftovers(record)})  # of an `up` that was itself killed
        if killed:
            print(f"ended {len(killed)} processes that a killed `up` had left")
        yield record
    finally:
        record.unlink(missing_ok=True)
        lock.release()


def tell(record: Path, services: Services) -> None:
    """Who runs, for a second ``up`` and for one that comes after a kill."""
    children = []
    for child in services.running.values():
        if child.poll() is None:
            children.append([child.pid, psutil.Process(child.pid).create_time()])
    write_json(record, {"pid": os.getpid(), "page": services.where.page_url, "children": children})


def table(services: Services, seconds: float) -> None:
    """Names, addresses, seconds; then how to stop."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=f"ready in {seconds:.0f} s", title_justify="left")
    shown.add_column("")
    shown.add_column("open")
    shown.add_column("after (s)", justify="right")
    for name in TITLES:
        service: Service | None = services.planned.get(name)
        if service is not None:
            shown.add_row(TITLES[name], service.page, f"{services.seconds[name]:.0f}")
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    console.print(shown)
    console.print(f"logs: {services.logs}\nCtrl-C stops everything", soft_wrap=True)  # a path is copied whole
    sys.stdout.flush()


def main() -> int:
    """Until SIGINT or SIGTERM; 0 then, 69 where a child dies, 75 where a port or the project is taken, 78 where the
    environment or a database is not usable."""
    harden()
    on_sigterm()
    adopt_orphans()
    paths = environment.find()

    def action() -> int:
        with only_one(paths) as record:
            services = Services(paths)
            begin = time.monotonic()
            try:
                print("starting; the first time takes longer", flush=True)
                services.start()
                tell(record, services)
                services.wait()
                table(services, time.monotonic() - begin)
                while True:
                    services.check()
                    time.sleep(0.3)
            except (KeyboardInterrupt, Terminated):
                print("stopping", flush=True)
                return 0
            finally:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                begin = time.monotonic()
                killed = {*services.stop(), *kill({*descendants(os.getpid())})}
                if services.running:
                    print(
                        f"stopped in {time.monotonic() - begin:.1f} s"
                        + (f"; {len(killed)} processes had to be killed" if killed else ""),
                        flush=True,
                    )

    return guarded("up", action, lambda: Path(paths.home))


if __name__ == "__main__":
    sys.exit(main())
