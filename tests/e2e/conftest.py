"""A real project in a temporary folder: the demo at a small size, run once through `fusionrec repro`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import workspace


class Project:
    """A project folder and the commands one types in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("FUSIONREC_", "MLFLOW_TRACKING", "PREFECT_"))},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_SITE_CACHE_DIR": str(folder / ".fusionrec" / "dvc-site"),
            "DVC_NO_ANALYTICS": "1",
            "DO_NOT_TRACK": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "COLUMNS": "200",
        }

    def run(self, *arguments: str, code: int = 0, timeout: float = 300) -> str:
        """`python -m ...`; asserts the exit code and returns what was printed."""
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == code, (
            f"{' '.join(arguments)} ended with {done.returncode}, expected {code}:\n{said[-6000:]}"
        )
        return said

    def digest(self, *relative: str) -> dict[str, str]:
        """sha256 of every file below these places, by relative path."""
        files = [f for r in relative for f in sorted((self.folder / r).rglob("*")) if f.is_file()]
        files += [self.folder / r for r in relative if (self.folder / r).is_file()]
        return {f.relative_to(self.folder).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

    def versions(self) -> list[dict[str, Any]]:
        """Registered versions, newest last: number, digest tag, aliases and the run's params, told by MLflow itself."""
        code = """if True:
            import json, mlflow, pathlib
            mlflow.set_tracking_uri("sqlite:///" + str(pathlib.Path(".fusionrec/mlflow/mlflow.db").resolve()))
            client = mlflow.MlflowClient()
            found = [client.get_model_version("fusionrec", v.version) for v in
                     sorted(client.search_model_versions("name='fusionrec'"), key=lambda v: int(v.version))]
            print("VERSIONS", json.dumps([{
                "version": v.version, "digest": v.tags.get("bundle_digest"), "aliases": list(v.aliases),
                "params": dict(client.get_run(v.run_id).data.params)} for v in found]))
        """
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        found: list[dict[str, Any]] = json.loads(
            next(line for line in done.stdout.splitlines() if line.startswith("VERSIONS"))[9:]
        )
        return found

    def copy(self, folder: Path) -> Project:
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)


def lay_out(folder: Path) -> Project:
    """An empty project without git, as `fusionrec` needs it."""
    workspace.lay_out(folder)
    project = Project(folder)
    project.run("dvc", "config", "core.no_scm", "true")
    return project


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The demo after `fusionrec demo-data` and `fusionrec repro`. Tests must leave it as it is (use `.copy`)."""
    project = lay_out(tmp_path_factory.mktemp("e2e") / "demo")
    project.run("fusionrec", "demo-data", "--items", "90", "--users", "150")
    project.said = project.run("fusionrec", "repro", timeout=600)  # type: ignore[attr-defined]
    return project
