"""A throw-away project for a benchmark: this repository's files, its own data, a shared embedding store."""

from __future__ import annotations

import csv
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
NEEDED = (
    "dvc.yaml",
    "params.yaml",
    "requirements.lock",
    ".dvcignore",
    "recipes",
    "src",
    "data/embeddings/.gitkeep",
    ".dvc/config",
    ".dvc/plots",
)


def lay_out(folder: Path) -> None:
    """Copy into ``folder`` what a project is made of; no data, no private state, no git."""
    for name in NEEDED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)


def make(folder: Path, home: Path) -> dict[str, str]:
    """Lay out a project at ``folder`` whose private state is ``home``; returns the environment for :func:`run`."""
    lay_out(folder)
    environment = environment_of(home, folder)
    run(folder, environment, "dvc", "config", "core.no_scm", "true")
    return environment


def embedded(place: Path, change: Callable[[dict[str, Any]], None] | None = None, *sizes: str) -> Path:
    """``place/project`` (its home is ``place/home``) with the stages up to embed done: the demo of these ``sizes``, or
    the recipe `movies` after ``change`` of its params."""
    folder = place / "project"
    environment = make(folder, place / "home")
    if change is None:
        run(folder, environment, "fusionrec", "demo-data", *sizes)
    else:
        run(folder, environment, "fusionrec", "use", "movies")
        params = yaml.safe_load((folder / "params.yaml").read_text())
        change(params)
        (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    names = yaml.safe_load((folder / "params.yaml").read_text())["modalities"]
    run(folder, environment, "dvc", "repro", "split", *(f"embed@{name}" for name in names))
    return folder


def environment_of(home: Path, folder: Path) -> dict[str, str]:
    """What :func:`run` needs in a project."""
    found = {**os.environ, "FUSIONREC_HOME": str(home), "DVC_SITE_CACHE_DIR": str(home / "dvc-site")}
    found["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{found['PATH']}"  # DVC runs `python`
    return found | {"PYTHONPATH": str(folder / "src"), "DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1"}


def run(folder: Path, environment: dict[str, str], *arguments: str) -> str:
    """`python -m ...` in the project; raises with the end of its output."""
    done = subprocess.run(  # noqa: S603  (our own interpreter and arguments)
        [sys.executable, "-m", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(arguments)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}"
        )
    return done.stdout + done.stderr


def timed(folder: Path, environment: dict[str, str], *arguments: str) -> tuple[float, float]:
    """-> (wall seconds, peak resident GiB of the largest process below it) of a command."""
    import resource
    import time

    start = time.monotonic()
    run(folder, environment, *arguments)
    return time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20


def results(folder: Path, home: Path) -> dict[str, Any]:
    """What the last evaluation in a workspace found, and what each stage took."""
    read = folder / "data" / "evaluation"
    reports = {p.stem: json.loads(p.read_text()) for p in sorted((home / "reports").glob("*.json"))}
    return {
        "table": json.loads((read / "table.json").read_text()),
        "tests": json.loads((read / "tests.json").read_text()),
        "knockout": json.loads((read / "knockout.json").read_text())["modalities"],
        "beyond": table(read / "plots" / "beyond.csv"),
        "missing": table(read / "plots" / "missing.csv"),
        "counts": {k: v["counts"] for k, v in reports.items()},
        "seconds": {k: round(v["seconds"].get("total", 0.0), 1) for k, v in reports.items()},
    }


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(name: str, content: dict[str, Any]) -> None:
    """benchmarks/results/<name>.json"""
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    path.write_text(json.dumps({**about(), **content}, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def about() -> dict[str, Any]:
    """The machine and the commit, for the head of a results file."""
    git = shutil.which("git") or "git"
    commit = subprocess.run(  # noqa: S603
        [git, "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return {
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "bf16": "avx512_bf16" in flags},
        "commit": commit,
        "command": command(),
    }


def command() -> str:
    """How this was called, without what is told of this machine: ``FOLDER`` stands for every folder, in arguments and
    in those variables FUSIONREC_* that the script reads."""
    script = Path(sys.argv[0])
    text = script.read_text(encoding="utf-8") if script.is_file() else ""
    named = [f"{name}=FOLDER" for name in sorted({*re.findall(r"FUSIONREC_[A-Z0-9]+", text)}) if os.environ.get(name)]
    given = ["FOLDER" if Path(argument).is_dir() else argument for argument in sys.argv[1:]]
    return " ".join([*named, "python", f"benchmarks/{script.name}", *given])
