"""What `make` checks and does before the first command: preflight, environment, and the settings it exports."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINE = "Debian 12: apt install python3 python3-venv git make"


def preflight(venv: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(ROOT / ".ci" / "preflight"), str(venv)],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "PYTHON": sys.executable, **environment},
    )


@pytest.fixture
def tools(tmp_path: Path):
    """A folder to use as PATH: the commands preflight itself uses, and those named."""

    def make(*names: str) -> str:
        folder = tmp_path / "tools"
        folder.mkdir()
        for name in ("uname", "df", "awk", "dirname", *names):
            found = shutil.which(name)
            assert found
            (folder / name).symlink_to(found)
        return str(folder)

    return make


def fake_python(tmp_path: Path, text: str) -> str:
    path = tmp_path / "python-fake"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_machine_with_everything_passes_silently(tmp_path: Path) -> None:
    done = preflight(tmp_path / "venv", NEED_GB="0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_everything_that_is_missing_is_named_at_once(tmp_path: Path, tools) -> None:
    done = preflight(tmp_path / "venv", PATH=tools(), PYTHON="python3", NEED_GB="9999999")
    lines = done.stderr.splitlines()
    assert done.returncode == 69
    assert lines[0] == "This machine lacks:"
    assert [line.split()[1] for line in lines[1:-1]] == ["Python", "git", "make", "9999999"]
    assert lines[-1] == LINE


def test_debian_without_python3_venv(tmp_path: Path, tools) -> None:
    python = fake_python(tmp_path, 'case "$2" in *version_info*) echo 3.11;; *ensurepip*) exit 1;; esac')
    done = preflight(tmp_path / "venv", PATH=tools("git", "make"), PYTHON=python, NEED_GB="0")
    assert done.returncode == 69
    assert "the module ensurepip" in done.stderr
    assert "python3-venv" in done.stderr
    assert len(done.stderr.splitlines()) == 3


def test_another_python(tmp_path: Path, tools) -> None:
    python = fake_python(tmp_path, 'case "$2" in *version_info*) echo 3.12;; esac')
    done = preflight(tmp_path / "venv", PATH=tools("git", "make"), PYTHON=python, NEED_GB="0")
    assert "is 3.12" in done.stderr


def test_another_machine(tmp_path: Path, tools) -> None:
    path = tools("git", "make")
    Path(path, "uname").unlink()
    Path(path, "uname").write_text('#!/bin/sh\n[ "$1" = -m ] && echo aarch64 || echo Linux\n')
    Path(path, "uname").chmod(0o755)
    done = preflight(tmp_path / "venv", PATH=path, NEED_GB="0")
    assert "found Linux aarch64" in done.stderr


def test_the_lock_is_installed_in_parts_that_lose_nothing() -> None:
    script = runpy.run_path(str(ROOT / ".ci" / "environment"))
    entries = script["requirements"](ROOT / "requirements.lock")
    assert "\n".join(entries) + "\n" == (ROOT / "requirements.lock").read_text(encoding="utf-8")
    parts = script["parts"](entries)
    assert sorted(e for part in parts for e in part) == sorted(entries)
    assert max(map(len, parts)) <= 30
    assert all(len(part) == 1 for part in parts if part[0].startswith(("torch==", "nvidia-")))


def test_a_ready_environment_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = runpy.run_path(str(ROOT / ".ci" / "environment"))
    (tmp_path / ".fusionrec-environment.json").write_text(script["stamp_text"](ROOT / "requirements.lock"))
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("something was started"))
    script["main"](str(tmp_path), "requirements.lock")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    with pytest.raises(BaseException, match="something was started"):  # another lock is another environment
        script["main"](str(tmp_path), "requirements-cpu.lock")


def test_make_exports_a_private_quiet_environment(tmp_path: Path) -> None:
    program = "print-%:\n\t@echo '$*=$($*)'; echo \"shell $$$*\"\n"
    (tmp_path / "show.mk").write_text(program)
    names = [
        "MLFLOW_DISABLE_TELEMETRY",
        "DO_NOT_TRACK",
        "PREFECT_SERVER_ANALYTICS_ENABLED",
        "DVC_NO_ANALYTICS",
        "GX_ANALYTICS_ENABLED",
        "RAY_USAGE_STATS_ENABLED",
        "HF_HUB_DISABLE_TELEMETRY",
        "DVC_SITE_CACHE_DIR",
    ]
    done = subprocess.run(
        ["make", "-f", "Makefile", "-f", str(tmp_path / "show.mk"), *[f"print-{n}" for n in names]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"]},
    )
    told = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    shells = [line.removeprefix("shell ") for line in done.stdout.splitlines() if line.startswith("shell")]
    assert (
        [told[n] for n in names]
        == shells
        == ["true", "1", "false", "1", "false", "0", "1", str(ROOT / ".fusionrec/dvc-site")]
    )


def test_ci_runs_preflight_lint_and_the_test_command() -> None:
    text = (ROOT / ".ci" / "run").read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    steps = [line.split(" VENV=")[0] for line in text.splitlines() if line.startswith(("sh ", "make "))]
    assert steps == ['sh .ci/preflight "$venv"', "make lint", "make test"]


def test_nothing_of_a_developers_machine_is_in_the_repository() -> None:
    """Machine paths and index hosts would not work elsewhere."""
    tracked = (
        subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    )
    from pip._internal.models.index import PyPI

    found = []
    words = [f"{ROOT}/".encode(), f"{Path.home()}/".encode(), PyPI.netloc.encode(), PyPI.file_storage_domain.encode()]
    for name in filter(None, tracked):
        path = ROOT / name
        if not path.is_file() or path == Path(__file__) or path.stat().st_size > 2_000_000:
            continue
        text = path.read_bytes()
        found += [f"{name}: {word.decode()}" for word in words if word in text]
    assert found == []
