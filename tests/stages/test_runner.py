"""One stage through the real runner: causes, codes, reports, privacy."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from fusionrec.paths import Paths
from fusionrec.stages.lock import TOKEN, holder, project_lock
from fusionrec.stages.runner import LAST_LINE, prune_embeddings
from tests.stages import toy


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    return toy.make(tmp_path_factory.mktemp("toy") / "p")


def last(stderr: str) -> str:
    return stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "error, code, label",
    [("DataRejected", 3, "data rejected"), ("ConfigError", 78, "configuration"), ("Unavailable", 69, "unavailable"),
     ("ZeroDivisionError", 1, "bug")],
)  # fmt: skip
def test_a_failed_stage_ends_with_its_code_and_its_cause_as_the_last_line(
    project: Paths, error: str, code: int, label: str
) -> None:
    toy.behave(project, ingest={"raise": error, "message": "first line\nsecond line"})
    done = toy.run(project, "src/stage.py", "ingest")
    prefix = "ZeroDivisionError: " if code == 1 else ""
    assert done.returncode == code
    assert last(done.stderr) == f"fusionrec: exit {code} ({label}): {prefix}first line"
    assert done.stderr.count("first line") == 1 and ("second line" in done.stderr) is (code != 1)
    found = LAST_LINE.search(last(done.stderr))
    assert found and found.groups() == (str(code), f"{prefix}first line")
    if code == 1:
        assert "Traceback" not in done.stderr
        assert "ZeroDivisionError" in (project.home / "logs" / "ingest.log").read_text()


def test_a_good_stage_leaves_a_report_that_only_its_owner_reads(project: Paths) -> None:
    toy.behave(project)
    done = toy.run(project, "src/stage.py", "ingest")
    assert done.returncode == 0, done.stderr
    report = project.reports / "ingest.json"
    found = json.loads(report.read_text())
    assert found["counts"] == {"rows": 3} and found["seconds"]["total"] >= 0 and found["peak_mib"] > 1
    assert report.stat().st_mode & 0o777 == 0o600
    assert (project.data / "first").stat().st_mode & 0o777 == 0o600, "umask 077"
    for folder in (project.home, project.reports):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_signal_gives_its_code(project: Paths) -> None:
    toy.behave(project, ingest={"sleep": 60})
    before = len(toy.journal(project))
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        child = toy.start(project, "src/stage.py", "ingest")
        toy.wait_for(lambda seen=before: len(toy.journal(project)) > seen, 30)
        before = len(toy.journal(project))
        child.send_signal(number)
        _, stderr = child.communicate(timeout=10)
        assert child.returncode == code
        assert last(stderr).startswith(f"fusionrec: exit {code} (")


def test_an_unknown_stage_and_a_missing_modality_are_usage_errors(project: Paths) -> None:
    for arguments, words in (
        (["trian"], "did you mean 'train'?"), (["train", "--modality", "text"], "takes no modality"),
        (["embed"], "none"),
    ):  # fmt: skip
        done = toy.run(project, "-m", "fusionrec", "run", *arguments)
        assert done.returncode == 2 and words in last(done.stderr), done.stderr


def test_a_busy_project_is_refused_with_the_holder(project: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    toy.behave(project)
    with project_lock(project.home, "the test", 0) as token:
        found = holder(project.home)
        assert found and found["pid"] == os.getpid() and found["what"] == "the test"
        refused = toy.run(project, "src/stage.py", "ingest", FUSIONREC_LOCK_WAIT="0")
        assert refused.returncode == 75
        assert f"pid {os.getpid()}" in last(refused.stderr) and "the test" in last(refused.stderr)
        wrong = toy.run(project, "src/stage.py", "ingest", FUSIONREC_LOCK_WAIT="0", **{TOKEN: "0" * 32})
        assert wrong.returncode == 75, "only the holder's own token lets a child in"
        child = toy.run(project, "src/stage.py", "ingest", FUSIONREC_LOCK_WAIT="0", **token)
        assert child.returncode == 0, child.stderr
    assert holder(project.home) is None


def test_a_second_run_waits_for_the_first(project: Paths) -> None:
    toy.behave(project, ingest={"sleep": 0.5})
    (project.project / "journal").unlink(missing_ok=True)
    runs = [toy.start(project, "src/stage.py", "ingest", FUSIONREC_LOCK_WAIT="60") for _ in range(3)]
    for run in runs:
        _, stderr = run.communicate(timeout=90)
        assert run.returncode == 0, stderr
    lines = toy.journal(project)
    assert len(lines) == 6
    for start, end in zip(lines[::2], lines[1::2], strict=True):
        assert (start[0], end[0]) == ("start", "end") and start[2] == end[2], f"interleaved: {lines}"


@pytest.mark.faults
def test_two_pipelines_at_once_never_interleave(project: Paths) -> None:
    toy.behave(project, ingest={"sleep": 0.1}, train={"sleep": 0.1})
    command = [
        "-c",
        "import sys; from fusionrec.cli import main; sys.argv[1:] = []; sys.exit(main(['repro', '--force']))",
    ]
    for _ in range(20):
        (project.project / "journal").unlink(missing_ok=True)
        runs = [toy.start(project, *command, FUSIONREC_LOCK_WAIT="120") for _ in range(2)]
        for run in runs:
            run.communicate(timeout=120)
        lines = toy.journal(project)
        assert [line[0] for line in lines] == ["start", "end"] * 4
        assert [line[1] for line in lines] == ["ingest", "ingest", "train", "train"] * 2


def test_leftover_matrices_of_other_recipes_are_pruned_before_train(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path / ".fusionrec")
    for name in ("text", "audio"):
        (paths.embeddings / name).mkdir(parents=True)
    (paths.embeddings / ".gitkeep").touch()
    assert prune_embeddings(paths, {"text"}) == ["audio"]
    assert sorted(p.name for p in paths.embeddings.iterdir()) == [".gitkeep", "text"]
