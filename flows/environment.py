"""Prefect's settings for this project. Prefect reads them when it is imported, so they are set before."""

from __future__ import annotations

import os
from pathlib import Path

from fusionrec.paths import Paths
from fusionrec.stages.process import child_environment, private_home, private_site_cache

PREFECT_PORT, MLFLOW_PORT = "FUSIONREC_PREFECT_PORT", "FUSIONREC_MLFLOW_PORT"


def find() -> Paths:
    """The project of the working directory, else the one this file lies in, with its private folders."""
    try:
        paths = Paths.find()
    except Exception:  # outside a project: the flows' own
        paths = Paths.find(Path(__file__).parents[1])
    private_home(paths.home)
    private_site_cache(paths.project, paths.home)
    return paths


def settings(home: Path) -> dict[str, str]:
    """Databases under the home, JSON results, no telemetry, a quick runner; what the environment sets wins."""
    wanted = {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_LOGGING_LEVEL": "INFO",
    }
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


def apply(paths: Paths) -> None:
    """Set them in this process, with everything a child of the project gets."""
    os.umask(0o077)
    os.environ.update({**child_environment(paths.home), **settings(paths.home)})


def ports() -> tuple[int, int]:
    """Prefect's and MLflow's ports on loopback."""
    return int(os.environ.get(PREFECT_PORT, "4200")), int(os.environ.get(MLFLOW_PORT, "5000"))
