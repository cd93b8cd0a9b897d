"""DVC as our child: codes, causes, staleness, and nothing left alive."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from fusionrec.errors import DataRejected
from fusionrec.paths import Paths
from fusionrec.stages import reproduce
from fusionrec.stages.process import alive
from fusionrec.stages.stale import Step, steps
from tests.stages import toy


@pytest.fixture
def project(tmp_path: Path) -> Paths:
    return toy.make(tmp_path / "p")


def stale(paths: Paths) -> list[str]:
    return [step.address for step in steps(paths.project, paths.home) if step.reason]


def test_what_is_stale_is_what_dvc_runs(project: Paths) -> None:
    assert stale(project) == ["ingest", "train"]
    assert toy.run(project, *reproduce.command()[1:]).returncode == 0
    assert stale(project) == [] and "up to date" in toy.dvc(project, "status")
    (project.project / "params.yaml").write_text(toy.PARAMS.replace("seed: 0", "seed: 3"))
    assert stale(project) == ["train"]
    (project.project / "raw" / "log" / "log.csv").write_text("new\n")
    plan = steps(project.project, project.home)
    assert [s.address for s in plan] == ["ingest", "train"]
    assert "raw/log" in str(plan[0].reason) and plan[1].reason == "after ingest"
    toy.dvc(project, "repro")
    assert stale(project) == []
    assert toy.started(project) == ["ingest", "train"] * 2


def test_a_source_added_with_dvc_is_recorded_as_a_step_of_its_own(project: Paths) -> None:
    toy.dvc(project, "add", "raw/log")
    (project.project / "raw" / "log" / "log.csv").write_text("a\nb\nc\nd\n")
    plan = steps(project.project, project.home)
    assert plan[0] == Step("raw/log.dvc", "the files changed", source=True)
    lines: list[str] = []
    for step in plan:
        reproduce.single(project, step, {}, on_line=lines.append)
    assert "up to date" in toy.dvc(project, "status")


def test_the_exit_code_and_the_cause_come_through_dvc(project: Paths) -> None:
    toy.behave(project, train={"raise": "DataRejected", "message": "train is empty: found 0 rows, expected 1"})
    done = toy.run(project, *reproduce.command()[1:])
    assert done.returncode == 3
    assert (
        done.stderr.strip().splitlines()[-1]
        == "fusionrec: exit 3 (data rejected): train is empty: found 0 rows, expected 1"
    )
    with pytest.raises(DataRejected, match=r"^train: train is empty: found 0 rows, expected 1 \(exit 3\)$"):
        reproduce.single(project, Step("train", "stale"), {}, on_line=lambda line: None)
    assert not (project.data / "second").exists()


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_kill_9_of_dvc_leaves_no_stage_behind(project: Paths, shell: str) -> None:
    if not Path(shell).exists():
        pytest.skip(f"{shell} is not installed here")
    toy.behave(project, ingest={"sleep": 60})
    child = toy.start(project, "-m", "dvc", "repro", SHELL=shell)
    toy.wait_for(lambda: toy.started(project), 60)
    stage = int(toy.journal(project)[0][2])
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    toy.wait_for(lambda: not toy.running(project), 5)
    assert not alive(stage)
    toy.behave(project)
    toy.dvc(project, "repro")
    assert toy.started(project) == ["ingest", "ingest", "train"]


def test_a_shell_between_dvc_and_the_stage_does_not_hide_the_death(project: Paths) -> None:
    pipeline = project.project / "dvc.yaml"
    pipeline.write_text(
        pipeline.read_text().replace("python src/stage.py ingest", "python src/stage.py ingest; exit $?")
    )
    toy.behave(project, ingest={"sleep": 60})
    child = toy.start(project, "-m", "dvc", "repro")
    toy.wait_for(lambda: toy.started(project), 60)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    toy.wait_for(lambda: not toy.running(project), 5)


def test_the_child_group_is_gone_however_the_caller_ends(project: Paths) -> None:
    toy.behave(project, ingest={"sleep": 60})

    class Cancelled(BaseException):
        pass

    def cancel(line: str) -> None:
        if "python src/stage.py" in line:
            toy.wait_for(lambda: toy.started(project), 60)
            raise Cancelled

    with pytest.raises(Cancelled):
        reproduce.single(project, Step("ingest", "stale"), {}, on_line=cancel)
    toy.wait_for(lambda: not toy.running(project), 5)


def test_kill_9_of_the_caller_takes_dvc_and_the_stage_along(project: Paths) -> None:
    toy.behave(project, ingest={"sleep": 60})
    program = (
        "from fusionrec.paths import Paths; from fusionrec.stages import reproduce;"
        "from fusionrec.stages.stale import Step;"
        "reproduce.single(Paths.find(), Step('ingest', 'stale'), {})"
    )
    caller = toy.start(project, "-c", program)
    toy.wait_for(lambda: toy.started(project), 60)
    caller.kill()
    caller.wait()
    toy.wait_for(lambda: not toy.running(project), 5)
