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
        (["planted", "--models", "popularty"], 78, "did you mean 'popularity'?"),
        (["planted", "--models", "popularity", "--missing", "1.5"], 2, "--missing: "),
        (["planted", "--models", "popularity", "--out", "no/such/r.json"], 2, "--out: "),
        (["planted"], 78, "a benchmark needs models"),
    ],
)
def test_what_is_wrong_is_said(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    folders.write(place / "planted")
    assert cli.main(["bench", *arguments]) == code
    assert message in capsys.readouterr().err
