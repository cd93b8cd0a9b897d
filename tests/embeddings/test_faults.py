"""X01 and X06: a run that is killed, and a full disk. What follows is what an undisturbed run gives, byte for byte."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from fusionrec.embeddings.shards import Shard, cut
from fusionrec.embeddings.store import verify
from fusionrec.modalities.text import Text

from .project import Project

SMALL, LARGE = 600, 2000  # texts: 3 and 10 shards


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """texts -> (a project of so many, run once; how long that took)."""
    made: dict[int, tuple[Project, float]] = {}

    def of(texts: int) -> tuple[Project, float]:
        if texts not in made:
            project, start = Project(tmp_path_factory.mktemp("undisturbed") / "p", texts), time.monotonic()
            project.run()
            made[texts] = project, time.monotonic() - start
        return made[texts]

    return of


def shards(project: Project) -> list[Shard]:
    """All of a project's contents, cut."""
    import polars as pl

    items = pl.read_parquet(project.paths.tables / "items")
    rows = Text().build().rows(items, Path())
    return cut({content: row for row, content in enumerate(rows.content)})


def stored(project: Project) -> list[tuple[str, ...]]:
    """The contents of each shard in the store."""
    return [tuple(json.loads(m.read_text(encoding="utf-8"))["keys"]) for m in project.shards()]


def killed(process: subprocess.Popen[str]) -> None:
    """SIGKILL for its group; none of it, and none of its children, is left five seconds later."""
    try:
        one = psutil.Process(process.pid)
        family = [one, *one.children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=20)
    assert psutil.wait_procs(family, timeout=5)[1] == []


def whole_after(project: Project, wanted: Project) -> int:
    """What a killed run left is whole; the next one encodes the rest and gives what ``wanted`` has. -> shards left."""
    every, there = [s.contents for s in shards(project)], stored(project)
    assert verify(project.paths.store) == []
    for file in project.paths.store.glob("*/[!.]*.npy"):
        assert np.load(file).shape[1] == 384
    # The shards are done one after the other: a run that stored the first k of them lost part of the next, no more.
    assert sorted(there) == sorted(every[: len(there)])
    assert not [f for f in project.files() if not f.startswith(".")] or project.files() == wanted.files()
    project.run()
    report = json.loads((project.paths.reports / "embed@text.json").read_text(encoding="utf-8"))
    reused = sum(map(len, there))
    assert report["counts"]["reused"] == reused
    assert report["counts"]["encoded"] == sum(map(len, every)) - reused
    assert project.files() == wanted.files() and sorted(stored(project)) == sorted(every)
    assert verify(project.paths.store) == []
    return len(every) - len(there)


def test_a_run_that_was_killed_after_its_first_shard_goes_on_there(undisturbed, tmp_path):
    wanted, _ = undisturbed(SMALL)
    project = Project(tmp_path / "p", SMALL)
    process, end = project.start(), time.monotonic() + 60
    while not project.shards() and time.monotonic() < end:
        time.sleep(0.01)
    killed(process)
    left = whole_after(project, wanted)
    assert 0 < left < len(shards(project))


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_a_run_that_was_killed_at_any_moment_goes_on_to_the_same_bytes(undisturbed, tmp_path):
    wanted, seconds = undisturbed(LARGE)
    draw, left = random.Random(20), []
    for number in range(10):
        project = Project(tmp_path / f"{number}", LARGE)
        process = project.start()
        time.sleep(draw.uniform(0, seconds))
        killed(process)
        left.append(whole_after(project, wanted))
    assert len(set(left)) > 2, f"shards that were left: {left}"  # the moments were different ones


FULL = re.compile(r"fusionrec: exit 1 \(bug\): OSError: .*No space left on device.* \((\S+): (\d+) bytes free\)")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here (it takes root): {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def filled(place: Path, free: int) -> Path:
    """A file that leaves about so many bytes."""
    ballast = place / "ballast"
    found = os.statvfs(place)
    ballast.write_bytes(b"x" * (found.f_bavail * found.f_frsize - free))
    return ballast


def told(said: str, place: Path) -> None:
    line = said.strip().splitlines()[-1]
    found = FULL.fullmatch(line)
    assert found and Path(found[1]).is_relative_to(place), said[-2000:]
    assert 0 <= int(found[2]) < 2 << 20


@pytest.mark.faults
@pytest.mark.parametrize("free", [450_000, 5_000, 0])
def test_a_store_on_a_full_disk_ends_the_run_and_the_next_one_goes_on(undisturbed, tmp_path, small_disk, free):
    wanted, _ = undisturbed(SMALL)
    project = Project(tmp_path / "p", SMALL)
    home = small_disk / "home"
    home.mkdir(mode=0o700)
    ballast = filled(small_disk, free)
    told(project.run(code=1, FUSIONREC_HOME=str(home)), home)
    store = home / "store"
    assert verify(store) == [] and not list(home.rglob("*.tmp")) and not project.files()
    before = [m.stem for m in store.glob("*/*.json")]
    assert len(before) == (free > 100_000), "the first shard had room, the second had not"
    ballast.unlink()
    project.run(FUSIONREC_HOME=str(home))
    assert project.files() == wanted.files() and verify(store) == []
    assert {m.stem for m in store.glob("*/*.json")} > set(before) or not before


@pytest.mark.parametrize("free", [500_000, 930_000, 1_000])
def test_a_matrix_on_a_full_disk_ends_the_run_and_leaves_what_was_there(undisturbed, tmp_path, small_disk, free):
    """The matrix has 921,728 bytes: it does not fit; it fits and what comes beside it does not; nothing fits."""
    wanted, _ = undisturbed(SMALL)
    project = Project(tmp_path / "p", SMALL)
    shutil.copytree(wanted.paths.store, project.paths.store, copy_function=shutil.copy2)
    project.paths.embeddings.symlink_to(small_disk)
    (small_disk / "text").mkdir()
    (small_disk / "text" / "old").touch()
    ballast = filled(small_disk, free)
    told(project.run(code=1), project.paths.embeddings)
    assert sorted(f.name for f in small_disk.iterdir()) == ["ballast", "text"]
    assert [f.name for f in (small_disk / "text").iterdir()] == ["old"]
    ballast.unlink()
    project.run()
    assert project.files() == wanted.files()
