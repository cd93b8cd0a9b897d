"""`fusionrec search`, as it is called: a table, JSON, and exit codes for what cannot be answered."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fusionrec.cli import main
from tests.search.conftest import Shop


@pytest.fixture
def inside(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(shop.paths.project)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", os.environ.get("DVC_SITE_CACHE_DIR", ""))  # the command sets it
    return shop.paths.project


def test_a_table_says_why(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--text", "wedding gift", "--k", "2"]) == 0
    out = capsys.readouterr().out
    assert "Bridal vase" in out and "en-1" in out
    assert "keyword +" in out and "(wedding, gift)" in out and "vector +" in out


def test_json_holds_the_same(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--text", "结婚礼物", "--k", "3", "--category", "VASE", "--max-price", "20", "--json"]
    assert main(["search", *arguments]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["found"] == 2 and told["heard"] is None
    assert [hit["item_id"] for hit in told["hits"]] == ["zh-1", "en-1"]
    assert told["hits"][0]["title"] == "新婚花瓶" and "结婚" in told["hits"][0]["words"]


def test_a_picture(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--image", "cat/images/3.png", "--in-stock", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["hits"][0]["item_id"] == "en-3" and set(told["hits"][0]["sides"]) == {"picture"}


def test_nothing_found_is_an_answer(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--text", "mug", "--min-price", "9999"]) == 0
    assert "no item meets the query and the filters" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        ([], 2, "the query is empty"),
        (["--text", "  "], 2, "the query is empty"),
        (["--text", "mug", "--k", "0"], 2, "--k"),
        (["--image", "nowhere.png"], 2, "nowhere.png is no file"),
        (["--image", "cat"], 2, "cat is no file"),
        (["--image", "cat/items.csv"], 3, "cat/items.csv: first bytes"),
        (["--audio", "cat/images/3.png"], 3, "(unknown_type)"),
        (["--text", "mug", "--category", "mugg"], 2, "did you mean 'mug'"),
        (["--text", "mug", "--min-price", "abc"], 2, "--min-price"),
    ],
)
def test_what_cannot_be_answered(
    inside: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert main(["search", *arguments]) == code
    assert message in capsys.readouterr().err


def test_before_the_embeddings_the_command_that_makes_them_is_named(
    inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there, away = inside / "data" / "embeddings" / "text", inside / "data" / "embeddings" / "away"
    there.rename(away)
    try:
        assert main(["search", "--text", "mug"]) == 78
        assert "fusionrec repro" in capsys.readouterr().err
    finally:
        away.rename(there)


def test_before_anything_was_ingested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], inside: Path
) -> None:
    (tmp_path / "params.yaml").write_text((inside / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    assert main(["search", "--text", "mug"]) == 78
    assert "nothing to search yet: run `fusionrec repro` first" in capsys.readouterr().err


def test_hostile_titles_do_not_reach_the_terminal_as_codes(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    from fusionrec.cli.searching import _show
    from fusionrec.search.index import Answer, Hit

    _show(Answer([Hit(1, "id[red]", "\x1b[2J[bold]x\u202e", 1.0, {"vector": 1.0}, ["\x07"])], 1, "\x1b]0;x\x07"))
    out = capsys.readouterr().out
    assert "\x1b]" not in out and "\x07" not in out and "\u202e" not in out
    assert "[bold]x" in out and "id[red]" in out
