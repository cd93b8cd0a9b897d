"""The tables of benchmarks/recommenders.py: nothing published is lost, and no part runs on parameters nobody chose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mmrec_folders
import pytest
import recommenders

VALID = {"popularity": 0.1, "feature_ease": 0.3, "mgcn": 0.5, "spectral": 0.4, "house": 0.2}
BASE = list(VALID)[:-1]


def result(labels: list[str]) -> dict[str, Any]:
    chosen = {label: {"retriever": {"kind": "popularity" if label == "house" else label}} for label in labels}
    chosen |= {"spectral": {"retriever": {"kind": "spectral", "user_power": 0.7}}}
    entries = [
        {"label": label, "chosen": chosen[label], "valid_seeds": [VALID[label]], "trials": []} for label in labels
    ]
    return {"models": entries, "commit": "c", "tests": {"all": []}}


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], Any, Any]]:
    """What was asked of the benchmark: labels, effort, rules. It takes hours, so its answer is made up here."""
    made: list[tuple[list[str], Any, Any]] = []

    def run(place: Path, models: Any, effort: Any, units: Path, rules: Any, say: Any) -> dict[str, Any]:
        labels = [one.label for one in models]
        made.append((labels, effort, rules))
        return result(labels)

    monkeypatch.setattr(recommenders.benchmark, "run", run)
    monkeypatch.setattr(recommenders.benchmark, "rows_for_people", lambda found: [])
    monkeypatch.setattr(recommenders, "RESULTS", tmp_path)
    monkeypatch.setattr(mmrec_folders, "folder", lambda name: tmp_path if name != "gowalla" else None)
    specs = ", ".join(f"{label}: {{kind: {label}}}" for label in BASE)
    (tmp_path / "specs.yaml").write_text(f"{{{specs}}}")
    monkeypatch.setattr(recommenders, "SPECS", tmp_path / "specs.yaml")
    return made


def written(folder: Path, name: str = "tiktok") -> dict[str, Any]:
    return dict(json.loads((folder / f"recommenders-{name}.json").read_text()))


def test_some_models_alone_never_replace_a_table(
    tmp_path: Path, calls: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert recommenders.main(["tiktok", "--models", "feature_ease"]) == 0
    assert "no table is written" in capsys.readouterr().out and not list(tmp_path.glob("recommenders-*"))
    assert recommenders.main(["tiktok"]) == 0
    before = (tmp_path / "recommenders-tiktok.json").read_bytes()
    assert recommenders.main(["tiktok", "--models", "feature_ease,mgcn", "--parts", "main,cold"]) == 0
    assert (tmp_path / "recommenders-tiktok.json").read_bytes() == before
    assert [labels for labels, _, _ in calls] == [["feature_ease"], BASE, list(VALID), *[["feature_ease", "mgcn"]] * 2]


def test_a_table_says_which_models_it_lacks(tmp_path: Path, calls: list[Any]) -> None:
    assert recommenders.main(["tiktok", "--without", "popularity"]) == 0
    found = written(tmp_path)["parts"]["main"]
    assert found["without"] == ["popularity"] and "popularity" not in [one["label"] for one in found["models"]]
    assert recommenders.main(["tiktok", "--without", "mgcn"]) == 78, "a part of the house model"
    assert recommenders.main(["tiktok", "--without", "popularity", "--parts", "main,cold"]) == 0
    parts = written(tmp_path)["parts"]
    assert [parts[part]["without"] for part in ("main", "cold")] == [["popularity"], []], "nothing lacks in cold"
    assert "--without" in parts["main"]["command"] and "--without" not in parts["cold"]["command"]


def test_a_name_that_no_model_has_is_refused(
    tmp_path: Path, calls: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert recommenders.main(["tiktok", "--without", "bm4"]) == 78 and not calls
    assert "tiktok, --without: no model bm4; there are popularity, feature_ease" in capsys.readouterr().err
    for name in ("tiktok", "lfm2k"):
        assert recommenders.main([name]) == 0
    assert recommenders.main(["ml1m", "--models", "mgnc"]) == 78
    assert "ml1m: no model mgnc; there are popularity" in capsys.readouterr().err
    assert recommenders.main(["ml1m", "--models", "mgcn"]) == 0


def test_where_parameters_are_carried_over_the_best_are_compared(
    calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tiktok", "lfm2k"):
        assert recommenders.main([name]) == 0
    monkeypatch.setattr(recommenders, "FEWER_MODELS", 3)
    assert recommenders.main(["ml1m"]) == 0
    labels, effort, _ = calls[-1]
    assert labels == ["mgcn", "spectral", "house"] and (effort.trials, effort.seeds) == (0, 3)


def test_a_part_without_a_finished_main_is_refused(calls: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert recommenders.main(["tiktok", "--parts", "cold"]) == 78
    assert "tiktok has no finished main part" in capsys.readouterr().err
    assert recommenders.main(["ml1m"]) == 78, "its parameters are those of two other sets"
    assert "tiktok has no finished main part" in capsys.readouterr().err
    recommenders.main(["tiktok", "--models", "feature_ease"])
    assert recommenders.main(["tiktok", "--parts", "cold"]) == 78 and len(calls) == 1


def test_other_parts_compare_the_house_model_and_the_two_best_of_main(tmp_path: Path, calls: list[Any]) -> None:
    assert recommenders.main(["tiktok", "--parts", "missing30,main"]) == 0
    (labels, effort, rules), found = calls[2], written(tmp_path)["parts"]
    assert labels == ["mgcn", "spectral", "house"] and (effort.seeds, effort.trials, rules.missing) == (3, 0, 0.3)
    assert {part: one["command"].partition("=FOLDER ")[2] for part, one in found.items()} == {
        part: f"python benchmarks/recommenders.py tiktok --parts {part}" for part in ("main", "missing30")
    }
    assert recommenders.main(["tiktok", "--parts", "cold", "--models", "bm3"]) == 78, "main has no such model"


def test_the_parts_of_the_house_model_have_the_parameters_that_their_own_search_chose(
    calls: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert recommenders.main(["tiktok", "--models", "house,spectral"]) == 78
    assert "the house model needs feature_ease, mgcn in the same call" in capsys.readouterr().err
    assert recommenders.main(["tiktok", "--models", "house,mgcn,spectral,feature_ease"]) == 0
    base = ["mgcn", "spectral", "feature_ease"]
    assert [labels for labels, _, _ in calls[1:]] == [base, [*base, "house"]]
    entries = result(["feature_ease", "spectral", "mgcn"])["models"]
    parts = {part.kind: part for part in recommenders.house(entries).spec.parts}
    assert list(parts) == list(recommenders.HOUSE_PARTS) and parts["spectral"].user_power == 0.7
