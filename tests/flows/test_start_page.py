"""What the start page tells of a project whose servers are off: files and reports alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from flows import environment, start_page
from fusionrec.paths import Paths
from fusionrec.serving.words import chinese
from fusionrec.stages.doctor import LIGHT, examine
from tests.stages import toy

NOWHERE = environment.Ports(9, 10, 11, 12)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return toy.make(tmp_path / "p")


def check(paths: Paths, name: str, status: str, blamed: str | None, batch: str) -> None:
    folder = paths.home / "monitor" / name
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("<h1>drift</h1>")
    facts = {"batch": f"{batch} (0123456789ab)", "when": "2026-01-02 03:04 UTC"}
    told = {"status": status, "blamed": blamed, "sentence": f"said of {batch}", "reasons": [], "facts": facts}
    (folder / "verdict.json").write_text(json.dumps(told))


def facts(paths: Paths) -> dict[str, Any]:
    return {fact.topic: fact for fact in start_page.Page(paths, NOWHERE).facts()}


def test_the_last_stage_is_told_whichever_door_it_came_through(paths: Paths) -> None:
    assert "stage" not in facts(paths)
    paths.reports.mkdir(parents=True)
    for age, name in enumerate(("monitor", "tune", "embed@text", "train")):  # no stages, then the newest stage
        (paths.reports / f"{name}.json").write_text("{}")
        os.utime(paths.reports / f"{name}.json", (1_000_000 - age, 1_000_000 - age))
    assert facts(paths)["stage"].text == f"embed@text · {start_page.when(1_000_000 - 2)}"


def test_the_command_for_a_drift_check_is_one_that_works(paths: Paths) -> None:
    page = start_page.Page(paths, NOWHERE)
    assert page.how_to_monitor() == "`fusionrec monitor BATCH`", "an own catalogue has no batches to generate"
    file = paths.project / "params.yaml"
    file.write_text(file.read_text().replace("root: raw/log", "root: data/raw/atelier"))
    assert page.how_to_monitor().startswith("`fusionrec demo-batch darker_pictures` + ")
    for name in ("spring", "autumn", ".new"):
        (paths.data / "batches" / name).mkdir(parents=True)
    assert page.how_to_monitor() == "`fusionrec monitor data/batches/autumn`"


def test_drift_reports_name_their_batch_and_verdict(paths: Paths) -> None:
    check(paths, "20260101T000000Z-a", "drift", "image", "dark")
    check(paths, "20260102T000000Z-b", "no drift", None, "calm")
    found = [(d.about, d.zh) for d in start_page.documents(paths) if d.topic == "drift"]
    assert found == [("calm: no drift", "calm：无漂移"), ("dark: drift in image", "dark：image 出现漂移")]
    fact = facts(paths)["monitor"]
    assert fact.text.startswith("said of calm calm (") and fact.level == "ok" and fact.zh.startswith("无漂移 calm (")
    (paths.home / "monitor/20260102T000000Z-b/verdict.json").write_text("torn")
    assert next(d for d in start_page.documents(paths) if d.topic == "drift").about == ""


def test_mlflows_card_leads_to_models_where_no_server_answers(paths: Paths) -> None:
    card = next(card for card in start_page.Page(paths, NOWHERE).cards() if card.topic == "mlflow")
    assert card.url == "http://127.0.0.1:10/#/models?workflowType=machine_learning" and card.good is False


def test_a_server_that_does_not_answer_is_named(paths: Paths) -> None:
    found = facts(paths)
    for topic, who in (("champion", "MLflow at http://127.0.0.1:10"), ("pipeline", "Prefect at http://127.0.0.1:9")):
        assert found[topic].level == "warn" and found[topic].text.startswith(who)
        assert " did not answer: " in found[topic].text


def test_what_the_doctor_says_of_a_sound_project_is_told_in_chinese_too(paths: Paths) -> None:
    for finding in examine(paths, LIGHT):
        assert chinese(finding.topic) != finding.topic
        if finding.topic != "weights":  # kinds and digests, no words
            assert chinese(finding.text) != finding.text
    assert chinese("something new") == "something new"
