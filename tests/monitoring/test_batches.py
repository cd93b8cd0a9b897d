"""Which of the batches that were checked stay under the private state."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fusionrec.stages.monitor import _keep


def batches(folder: Path, ages: list[float]) -> None:
    """Folders ``b0``, ``b1``, ... written so many seconds ago."""
    for k, age in enumerate(ages):
        made = folder / f"b{k}"
        (made / "data").mkdir(parents=True)
        os.utime(made, (time.time() - age,) * 2)


def left(folder: Path) -> list[str]:
    return sorted(f.name for f in folder.iterdir())


def test_the_batch_at_work_stays_though_the_clock_went_back(tmp_path: Path) -> None:
    batches(tmp_path, [-3600, -3599, -3598, 0])
    _keep(tmp_path, "b3", 3)
    assert left(tmp_path) == ["b0", "b1", "b3"]


@pytest.mark.parametrize("most, stay", [(1, ["b2"]), (2, ["b2", "b3"]), (4, ["b0", "b1", "b2", "b3"]), (9, None)])
def test_a_batch_that_is_checked_again_is_the_latest(tmp_path: Path, most: int, stay: list[str] | None) -> None:
    batches(tmp_path, [400, 300, 900, 100])
    _keep(tmp_path, "b2", most)
    assert left(tmp_path) == (stay or ["b0", "b1", "b2", "b3"])
    _keep(tmp_path, "b2", 1)
    assert left(tmp_path) == ["b2"]


def test_it_is_younger_than_the_others_from_then_on(tmp_path: Path) -> None:
    batches(tmp_path, [400, 300, 900])
    _keep(tmp_path, "b2", 3)
    batches(tmp_path / "more", [0])
    (tmp_path / "more" / "b0").rename(tmp_path / "b3")
    (tmp_path / "more").rmdir()
    _keep(tmp_path, "b3", 2)
    assert left(tmp_path) == ["b2", "b3"]
