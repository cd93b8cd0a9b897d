"""benchmarks/kept.py: a table comes out of its units again, and where it would not that is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kept
import mmrec_folders
import page_source
import pytest
import recommenders

from fusionrec.data.files import write_json
from fusionrec.studies import benchmark, contestants
from fusionrec.studies.benchmark import Effort
from tests.studies import folders

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder, and results of a real benchmark on it with their units."""
    place = tmp_path_factory.mktemp("kept")
    folder = folders.write(place / "planted")
    models = contestants.chosen(["item_knn", "popularity"], None)
    found = benchmark.run(folder, models, Effort(trials=2, seeds=1, jobs=2), place / "units")
    write_json(place / "recommenders-tiktok.json", {"parts": {"main": found}})
    return folder, place


@pytest.fixture
def asked(made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    folder, place = made
    for module in (kept, recommenders, page_source):
        monkeypatch.setattr(module, "RESULTS", place)
    monkeypatch.setattr(mmrec_folders, "folder", lambda name: folder)
    return place


def unit(place: Path, pattern: str) -> Path:
    return next(iter(sorted(place.glob(f"units/*/item_knn/{pattern}-*.json"))))


@pytest.fixture
def changed(asked: Path) -> Any:
    """Change a JSON file for the length of a test."""
    before: dict[Path, bytes] = {}

    def change(path: Path, how: Callable[[dict[str, Any]], None]) -> None:
        before[path] = path.read_bytes()
        content = json.loads(before[path])
        how(content)
        write_json(path, content)

    yield change
    for path, content in before.items():
        path.write_bytes(content)


def test_a_table_comes_out_of_its_units_again_whatever_code_they_are_of(
    asked: Path, changed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for pattern in ("test", "valid"):
        changed(unit(asked, pattern), lambda one: one.update(code="of another day"))
    assert kept.main(["tiktok"]) == 0
    assert "tiktok, main: as written" in capsys.readouterr().out


def test_another_figure_in_a_unit_is_told(asked: Path, changed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def without_hits(one: dict[str, Any]) -> None:
        n_users = len(one["test"]["all"]["hits"].split(";"))
        one["test"]["all"]["hits"] = ";" * (n_users - 1)

    changed(unit(asked, "test"), without_hits)
    assert kept.main(["tiktok"]) == 3
    assert "item_knn: metrics.all." in (told := capsys.readouterr().out)
    assert "values differ" in told and ", made 0.0" in told


def test_a_choice_that_validation_would_not_make_is_told(
    asked: Path, changed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = unit(asked, "test").name.removeprefix("test")
    other = next(path for path in asked.glob("units/*/item_knn/valid-*.json") if not path.name.endswith(chosen))
    changed(other, lambda one: one.update(valid=1.0))
    assert kept.main(["tiktok"]) == 3
    assert "item_knn: validation of {" in (told := capsys.readouterr().out) and "item_knn: chosen.retriever." in told


def test_a_unit_that_is_not_there_is_not_computed(
    asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = unit(asked, "test")
    path.rename(tmp_path / path.name)
    assert kept.main(["tiktok"]) == 78
    assert "item_knn: test with seed 0 is not among the kept units" in capsys.readouterr().err
    assert not path.exists()
    (tmp_path / path.name).rename(path)


def test_a_comparison_whose_trainings_are_not_there_is_refused(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"model": "lightgcn", "ours": {"seeds": [0.1]}, "reference": {"seeds": [0.1]}}
    write_json(asked / "parity.json", {"rows": [row]})
    try:
        assert kept.main(["tiktok"]) == 78
    finally:
        (asked / "parity.json").unlink()
    assert "lightgcn: test with seed 0 is not among the kept units" in capsys.readouterr().err
