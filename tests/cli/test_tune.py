"""`fusionrec tune` as people call it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusionrec import cli, config
from fusionrec.paths import Paths
from fusionrec.recommenders.item_knn import ItemKNN
from tests.evaluation.conftest import World, write_project


@pytest.fixture(autouse=True)
def quiet_process(umask: None) -> Iterator[None]:
    """Commands run in this process; what they set must not outlive the test."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    before = dict(os.environ)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    params, paths = write_project(tmp_path / "p", World(n_users=31, n_items=43, n_cold=7, seed=3))
    raw = params.model_dump(mode="json", serialize_as_any=True)
    raw["train"]["retriever"] = ItemKNN(neighbours=1, shrinkage=0).model_dump(mode="json")
    (paths.project / "params.yaml").write_text("# mine\n" + json.dumps(raw, indent=1))
    (paths.project / ".dvc").mkdir()
    monkeypatch.chdir(paths.project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    return paths


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(list(arguments))
    out, err = capsys.readouterr()
    return code, " ".join(out.split()), (err.strip().splitlines() or [""])[-1]


def test_tune_shows_its_trials_goes_on_and_adopts(project: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "tune", "--trials", "2")
    assert (
        code == 0 and "best on validation: trial" in out and "fusionrec tune --adopt" in out and "not in MLflow" in out
    )
    before = (project.project / "params.yaml").read_bytes()
    code, out, _ = call(capsys, "tune", "--trials", "3", "--adopt")
    report = json.loads((project.reports / "tune.json").read_text())
    assert code == 0 and report["counts"]["from earlier calls"] == 2 and len(report["table"]) == 3
    best = next(row for row in report["table"] if row[""] == "best")
    written = config.load(project.project / "params.yaml").train.retriever
    assert str(written.neighbours) == best["neighbours"]  # type: ignore[attr-defined]
    assert best["trial"] > 0 and before != (project.project / "params.yaml").read_bytes(), (
        "(1, 0) is the worst point of this world"
    )
    code, _, last = call(capsys, "tune", "--trials", "3")
    assert (
        code == 78
        and "another spec" in last
        and last.endswith("`fusionrec tune --fresh` throws the earlier trials away")
    )
    code, out, _ = call(capsys, "tune", "--trials", "1", "--fresh")
    assert code == 0 and "params.yaml has the best parameters already" in out


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["--trials", "0"], 2, "greater than or equal to 1"), (["--trials", "x"], 2, "valid integer"),
        (["--minutes", "-1"], 2, "greater than or equal to"), (["--fersh"], 2, "No such option"),
    ],
)  # fmt: skip
def test_mistakes_end_in_their_code(
    project: Paths, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    found = call(capsys, "tune", *arguments)
    assert found[0] == code and words in found[2]


def test_what_is_missing_and_who_holds_the_project(
    project: Paths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fusionrec.stages.lock import TOKEN, project_lock

    monkeypatch.setenv("FUSIONREC_LOCK_WAIT", "0")
    with project_lock(project.home, "somebody", 0):
        monkeypatch.delenv(TOKEN, raising=False)
        code, _, last = call(capsys, "tune")
    assert code == 75 and "somebody" in last
    (project.splits / "valid.parquet").unlink()
    code, _, last = call(capsys, "tune")
    assert code == 3 and "data/splits/valid.parquet is missing" in last


def test_the_live_table_shows_trials_and_epochs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal; elsewhere nothing is drawn."""
    import sys

    from fusionrec.stages.trials import shown
    from fusionrec.studies.search import Trial

    with shown("ndcg@20", 5) as (watch, epoch):
        watch(Trial(0, {"dim": 32}, "running"))
        epoch(0, 0.5)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")
    with shown("ndcg@20", 5) as (watch, epoch):
        watch(Trial(0, {"layers": (8, [1]), "name": "[red]a"}, "done", 0.25))
        watch(Trial(1, {"layers": (), "name": "b"}, "running"))
        epoch(3, 0.125)
    err = capsys.readouterr().err
    assert "1 of 5 trials" in err and "epoch 3: 0.1250" in err and "0.25" in err and "[red]a" in err and "best" in err
