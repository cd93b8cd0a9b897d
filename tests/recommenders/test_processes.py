"""D14, X05: training in two processes that torchrun starts, on CPUs (gloo)."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fusionrec.stages.lock import holder
from fusionrec.stages.process import alive, descendants
from tests.recommenders.trainings import project

EPOCHS = 60
TORCHRUN = str(Path(sys.executable).parent / "torchrun")

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]


def curve(folder: Path) -> list[dict[str, float]]:
    with (folder / "data" / "model" / "curve.csv").open(newline="", encoding="utf-8") as file:
        return [{name: float(text) for name, text in row.items()} for row in csv.DictReader(file)]


def group(folder: Path, *options: str, epochs: int = EPOCHS) -> subprocess.Popen[str]:
    project(folder, epochs)
    command = [TORCHRUN, "--nproc-per-node", "2", *options, "-m", "fusionrec", "run", "train"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **streams)


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> tuple[Path, str, str]:
    """(project, stdout, stderr) of two processes that nobody disturbed."""
    folder = tmp_path_factory.mktemp("straight")
    run = group(folder)
    out, err = run.communicate(timeout=300)
    assert run.returncode == 0, err
    return folder, out, err


def test_two_processes_learn_what_one_learns(straight, tmp_path: Path) -> None:
    folder, out, err = straight
    project(tmp_path, EPOCHS)
    one = subprocess.run([sys.executable, "-m", "fusionrec", "run", "train"], cwd=tmp_path, timeout=300, check=False)
    assert one.returncode == 0
    alone, two = curve(tmp_path), curve(folder)
    assert [row["epoch"] for row in two] == list(range(EPOCHS))
    for a, b in zip(alone[:5], two[:5], strict=True):  # before rounding adds up
        assert b == pytest.approx(a, rel=1e-4)
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in alone], rel=1e-2)
    assert out.count("valid NDCG@20") == 1  # one of them talks
    assert "Warning" not in err and "fusionrec: exit" not in err
    assert sorted(f.name for f in (folder / "data").iterdir()) == ["model", "splits"]
    assert not list((folder / ".fusionrec" / "checkpoints").iterdir())
    assert holder(folder / ".fusionrec") is None


def newest(folder: Path) -> int:
    """Epochs of the newest checkpoint; 0 where there is none."""
    return max((int(f.name[6:]) for f in (folder / ".fusionrec").glob("checkpoints/*/bpr/01/epoch-*")), default=0)


def worker(run: subprocess.Popen[str], rank: int) -> int | None:
    for pid in descendants(run.pid):
        try:
            if f"RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return pid
        except OSError:
            continue
    return None


def watched(run: subprocess.Popen[str], folder: Path, act: Callable[[int], None]) -> Iterator[int]:
    """The newest checkpoint's epochs, each time they change, until the group ends."""
    last, deadline = -1, time.monotonic() + 300
    while run.poll() is None and time.monotonic() < deadline:
        now = newest(folder)
        if now != last:
            last = now
            act(now)
            yield now
        time.sleep(0.02)


def test_x05_a_killed_process_restarts_the_group_which_goes_on(straight, tmp_path: Path) -> None:
    run = group(tmp_path, "--max-restarts", "1")
    killed: list[int] = []

    def act(epochs: int) -> None:
        if epochs >= 10 and not killed:
            pid = worker(run, 1)
            assert pid is not None
            killed.append(epochs)
            os.kill(pid, signal.SIGKILL)

    seen = list(watched(run, tmp_path, act))
    _, err = run.communicate(timeout=60)
    assert run.returncode == 0, err
    after = seen[seen.index(killed[0]) :]
    assert [epochs for epochs in after if 0 < epochs < killed[0]] == []  # went on from there, not from the beginning
    assert curve(tmp_path) == curve(straight[0])
    assert (tmp_path / "data/model/model.safetensors").read_bytes() == (
        straight[0] / "data/model/model.safetensors"
    ).read_bytes()


def test_x05_it_fails_cleanly_when_the_restarts_are_used_up_and_goes_on_later(straight, tmp_path: Path) -> None:
    run = group(tmp_path, "--max-restarts", "0")
    killed: list[int] = []

    def act(epochs: int) -> None:
        if epochs >= 5 and not killed:
            killed.extend(pid for pid in descendants(run.pid))
            pid = worker(run, 1)
            assert pid is not None
            os.kill(pid, signal.SIGKILL)

    list(watched(run, tmp_path, act))
    _, err = run.communicate(timeout=60)
    assert run.returncode not in (0, None)
    assert "exitcode: -9" in err.replace("\n", " ")
    assert [pid for pid in killed if alive(pid)] == []
    assert holder(tmp_path / ".fusionrec") is None
    assert not (tmp_path / "data" / "model").exists()
    at = newest(tmp_path)
    assert at >= 5
    again = group(tmp_path)
    seen = list(watched(again, tmp_path, lambda epochs: None))
    _, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    assert min(epochs for epochs in seen if epochs) >= at
    assert curve(tmp_path) == curve(straight[0])


def test_only_training_runs_in_several_processes(tmp_path: Path) -> None:
    project(tmp_path, 1)
    command = [TORCHRUN, "--nproc-per-node", "2", "-m", "fusionrec", "run", "split"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode != 0
    assert "torchrun started 2 processes; split runs in one: fusionrec run split" in done.stderr
