"""What a run costs that has nothing to do: ``dvc repro`` + ``fusionrec register``, and a Prefect run.

Works on the project in the current folder, which must be up to date (``fusionrec repro`` first; it is checked). Cases:
``demo-noop`` the two commands that ``make repro`` runs; ``prefect-noop`` from submission to the terminal state on a
running server;
``prefect-ephemeral-noop`` a flow process with its own temporary API. Bounds: 10, 10 and 25 s. Medians of 3.

    python benchmarks/pipeline.py [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from flows import environment
from flows.api import Api
from flows.up import Services, start_all
from fusionrec.stages.process import child_environment, harden
from fusionrec.stages.stale import steps

BOUNDS = {"dvc-noop": 10.0, "demo-noop": 10.0, "prefect-noop": 10.0, "prefect-ephemeral-noop": 25.0}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    repeats = max(3, parser.parse_args().repeats)
    harden()
    paths = environment.find()
    stale = [s for s in steps(paths.project, paths.home) if s.reason]
    assert not stale, f"not up to date: {stale}; run `fusionrec repro` first"
    child = {**child_environment(paths.home), **environment.settings(paths.home)}

    def run(*arguments: str, **extra: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=paths.project,
            env={**child, **extra},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    def demo() -> None:
        run("dvc", "repro")
        run("fusionrec", "register")

    cases: dict[str, list[float]] = {
        "dvc-noop": measured(lambda: run("dvc", "repro"), repeats), "demo-noop": measured(demo, repeats),
        "prefect-ephemeral-noop": measured(lambda: run("flows.pipeline"), repeats),
    }  # fmt: skip
    os.environ[environment.PREFECT_PORT], os.environ[environment.MLFLOW_PORT] = str(free_port()), str(free_port())
    services = Services(paths, ("prefect", "mlflow", "deployments"))
    try:
        start_all(services)
        submit(services.prefect_url)  # the first run fills the operating system's file cache
        cases["prefect-noop"] = [submit(services.prefect_url) for _ in range(repeats)]
    finally:
        services.stop()
    write(paths.project, cases)


def measured(action: Callable[[], None], repeats: int) -> list[float]:
    """Seconds of each repeat, after one that warms the file cache."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.monotonic()
        action()
        seconds.append(time.monotonic() - start)
    return seconds[1:]


def submit(url: str) -> float:
    """Seconds from creating a run of the deployment pipeline/pipeline to its terminal state, which must be
    COMPLETED."""

    with Api(url) as api:
        deployment = api.get("/deployments/name/pipeline/pipeline")["id"]
        start = time.monotonic()
        run = api.post(f"/deployments/{deployment}/create_flow_run", {"state": {"type": "SCHEDULED"}})["id"]
        while True:
            found = api.get(f"/flow_runs/{run}")
            if found["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                assert found["state_type"] == "COMPLETED", found["state"]
                return time.monotonic() - start
            time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write(project: Path, cases: dict[str, list[float]]) -> None:
    """benchmarks/results/pipeline.json in the format that every benchmark writes."""
    rows = []
    for case, seconds in sorted(cases.items()):
        ours = statistics.median(seconds)
        rows.append({
            "case": case, "ours": round(ours, 2), "peer": None, "peer_name": None, "bound": BOUNDS[case], "unit": "s",
            "ratio_peer": None, "ratio_bound": round(BOUNDS[case] / ours, 2), "runs": [round(s, 2) for s in seconds],
        })  # fmt: skip
        print(f"{case:24s} {ours:6.2f} s (bound {BOUNDS[case]:.0f} s)")
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    ).stdout.strip()
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    machine = {
        "cpus": os.cpu_count(), "system": platform.system(), "python": platform.python_version(),
        "bf16": "avx512_bf16" in flags,
        "load": round(os.getloadavg()[0], 2),
    }  # fmt: skip
    out = Path(__file__).parent / "results" / "pipeline.json"
    out.parent.mkdir(exist_ok=True)
    value = {"machine": machine, "commit": commit, "command": "python benchmarks/pipeline.py", "rows": rows}
    out.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
