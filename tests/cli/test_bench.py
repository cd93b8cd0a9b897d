"""fusionrec bench: a table, a file, and exit codes for what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusionrec import cli
from tests.studies import folders


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: None) -> Iterator[Path]:
    """An empty working directory that is no project; commands run in this process."""
    import signal

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FUSIONREC_HOME", raising=False)
    yield tmp_path
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_folder_gives_a_table_and_a_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders.write(place / "planted")
    code = cli.main(["bench", "planted", "--models", "popularity", "--seeds", "1", "--cold", "0.2", "--out", "r.json"])
    out = capsys.readouterr().out
    assert code == 0
    assert "planted: all" in out and "planted: cold_only" in out and "popularity: test with seed 0" in out
    results = json.loads((place / "r.json").read_text())
    mean = results["models"][0]["metrics"]["all"]["recall@20"]["mean"]
    assert f"{mean:.4f}" in out and results["rules"]["cold"] == 0.2
    home = place / ".fusionrec"
    assert home.stat().st_mode & 0o077 == 0 and len(list((home / "bench").rglob("test-0-*.json"))) == 1
    assert cli.main(["bench", "planted", "--spec", "r.json", "--seeds", "1", "--cold", "0.2"]) == 0
    assert "popularity: test" not in capsys.readouterr().out  # the unit was there


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["nowhere", "--models", "popularity"], 3, "nowhere is not a folder"),
        (["planted", "--models", "popularty"], 2, "did you mean 'popularity'?"),
        (["planted", "--models", "popularity", "--missing", "1.5"], 2, "--missing: "),
        (["planted", "--models", "popularity", "--out", "no/such/r.json"], 2, "--out: "),
        (["planted", "--models", "popularity", "--out", "planted/planted.inter"], 2, "lies in the folder that is read"),
        (["planted"], 2, "name the models to compare: --models"),
        (
            ["planted", "--spec", "twice.yaml"],
            78,
            "cannot be read: line 2, column 1: found the key 'a' twice",
        ),
        (["planted", "--spec", "key.yaml"], 78, "a: retriever.neighbour: unknown key (did you mean 'neighbours'?)"),
        (["planted", "--spec", "fusion.yaml"], 78, "a: fusion.kind: unknown kind 'atention'"),
        (["planted", "--models", "item_knn", "--trials", "2", "--join", "--missing", "2"], 2, "--missing: "),
    ],
)
def test_what_is_wrong_is_said(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    folder = folders.write(place / "planted")
    before = {file: file.read_bytes() for file in folder.iterdir()}
    (place / "twice.yaml").write_text("a: {kind: ease}\na: {kind: bpr}\n")
    (place / "key.yaml").write_text("a: {kind: item_knn, neighbour: 3}\n")
    (place / "fusion.yaml").write_text("a: {retriever: {kind: two_tower}, fusion: {kind: atention}}\n")
    assert cli.main(["bench", *arguments]) == code
    assert {file: file.read_bytes() for file in folder.iterdir()} == before
    assert message in capsys.readouterr().err
    assert not (place / ".fusionrec").exists()


def test_nobody_to_choose_or_to_test_by_is_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = folders.write(place / "planted") / "planted.inter"
    whole = log.read_text()
    log.write_text(whole.replace("\t1\n", "\t0\n"))
    assert cli.main(["bench", "planted", "--models", "item_knn", "--trials", "2"]) == 3
    assert "planted: no user has a validation positive (x_label 1), by which item_knn would" in capsys.readouterr().err
    assert cli.main(["bench", "planted", "--models", "popularity", "--trials", "2", "--seeds", "1"]) == 0, "no choice"
    capsys.readouterr()
    log.write_text(whole.replace("\t2\n", "\t0\n"))
    assert cli.main(["bench", "planted", "--models", "item_knn"]) == 3
    assert "planted: no user has a test positive: there is nothing to compare; found" in capsys.readouterr().err


def test_a_model_that_failed_beside_others_is_told_by_the_exit_code_too(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders.write(place / "planted")
    (place / "bad.yaml").write_text("bad: {kind: bpr, training: {lr: 1.0e+30}}\npopularity: {kind: popularity}\n")
    assert cli.main(["bench", "planted", "--spec", "bad.yaml", "--seeds", "1", "--out", "r.json"]) == 78
    out, error = capsys.readouterr()
    assert "planted: all" in out and "failed: ValueError: the loss is" in out
    assert "bad: 1 of 1 fits failed, the first: ValueError: the loss is" in error and "popularity: 1 of" not in error
    assert [bool(entry["metrics"]) for entry in json.loads((place / "r.json").read_text())["models"]] == [False, True]
