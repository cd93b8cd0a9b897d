"""A toy project: the real runner, lock, DVC and params.yaml, with stages that take milliseconds.

``behaviour.json`` (no dependency of any stage) says what a stage does besides copying its input: sleep, raise, die.
``journal`` gets a line at each start and end of a stage, so that a test sees what ran, and whether two runs
interleaved.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fusionrec.paths import Paths
from fusionrec.stages.process import child_environment, private_home, private_site_cache

ROOT = Path(__file__).resolve().parents[2]

STAGE = """
import json, os, sys, time
from fusionrec import errors
from fusionrec.stages import STAGES, Stage, runner
from fusionrec.types import Report

def work(name):
    def run(params, paths):
        wanted = json.loads((paths.home.parent / "behaviour.json").read_text()).get(name, {})
        def note(what):
            with open(paths.home.parent / "journal", "a") as file:
                file.write(f"{what} {name} {os.getpid()} {params.train.seed}\\n")
        note("start")
        time.sleep(wanted.get("sleep", 0))
        if "raise" in wanted:
            kind = getattr(errors, wanted["raise"], None) or getattr(__import__("builtins"), wanted["raise"])
            raise kind(wanted["message"])
        source = paths.project / (params.source.root + "/log.csv" if name == "ingest" else "data/first")
        out = paths.data / {"ingest": "first", "train": "second"}[name]
        out.parent.mkdir(exist_ok=True)
        out.write_text(source.read_text() + (f"seed {params.train.seed}\\n" if name == "train" else ""))
        note("end")
        return Report(name, counts={"rows": len(out.read_text().splitlines())}, notes=["toy"])
    return run

class Toy(Stage):
    def function(self):
        return work(self.name)

for name in ("ingest", "train"):
    STAGES[name] = Toy(name, (), (), ())
if __name__ == "__main__":
    sys.exit(runner.main(sys.argv[1]))
"""

PIPELINE = """
stages:
  ingest:
    cmd: python src/stage.py ingest
    deps: [src/stage.py, "${source.root}"]
    params: [source]
    outs: [data/first]
  train:
    cmd: python src/stage.py train
    deps: [src/stage.py, data/first]
    params: [train]
    outs: [data/second]
"""

PARAMS = """
source: {kind: folder, root: raw/log}
split: {kind: random_per_user}
modalities: {}
train:
  retriever: {kind: ease}
  fusion: {kind: concat}
  seed: 0
gate: {}
positives: {}
rank: {ranker: {kind: dcn_v2}}
evaluate: {}
"""


def make(folder: Path) -> Paths:
    """A toy project in ``folder`` (no git)."""
    (folder / "raw" / "log").mkdir(parents=True)
    (folder / "src").mkdir()
    (folder / "raw" / "log" / "log.csv").write_text("a\nb\nc\n")
    for name, text in (
        ("src/stage.py", STAGE),
        ("dvc.yaml", PIPELINE),
        ("params.yaml", PARAMS),
        ("behaviour.json", "{}"),
    ):
        (folder / name).write_text(text.lstrip())
    shutil.copy(ROOT / ".dvcignore", folder)
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    paths = Paths(folder, folder / ".fusionrec")
    private_home(paths.home)
    private_site_cache(folder, paths.home)
    return paths


def behave(paths: Paths, **stages: dict[str, Any]) -> None:
    (paths.project / "behaviour.json").write_text(json.dumps(stages))


def journal(paths: Paths) -> list[list[str]]:
    file = paths.project / "journal"
    return [line.split() for line in file.read_text().splitlines()] if file.is_file() else []


def started(paths: Paths) -> list[str]:
    """Names of the stages that ran, in order."""
    return [line[1] for line in journal(paths) if line[0] == "start"]


def environment(paths: Paths, **extra: str) -> dict[str, str]:
    return child_environment(paths.home, {"SHELL": "/bin/sh", **extra})


def start(paths: Paths, *arguments: str, **extra: str) -> subprocess.Popen[str]:
    """``python <arguments>`` in the project, in its own process group, output captured as text."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=paths.project,
        env=environment(paths, **extra),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def run(paths: Paths, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=paths.project,
        env=environment(paths, **extra),
        text=True,
        capture_output=True,
        timeout=90,
        check=False,
    )


def dvc(paths: Paths, *arguments: str) -> str:
    done = run(paths, "-m", "dvc", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_for(what: Callable[[], Any], seconds: float) -> Any:
    """Poll until ``what()`` is true and return it; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


def running(paths: Paths) -> list[int]:
    """Live processes whose working directory is the project or a workspace below it, this one excepted."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            here = Path(os.readlink(process / "cwd"))
        except OSError:
            continue
        if state not in "ZX" and here.is_relative_to(paths.project):
            found.append(int(process.name))
    return found
