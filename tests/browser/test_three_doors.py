"""The three doors of ``make up`` as a person uses them: Prefect's form, MLflow's alias, the reports."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx
import pytest

from flows.api import Api
from tests.browser.conftest import HOSTILE_ID, Up, Watched

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1800)]
T = TypeVar("T")


def until(what: str, check: Callable[[], T | None], seconds: float, pause: float = 0.3) -> T:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := check():
            return found
        time.sleep(pause)
    raise AssertionError(f"{what}: not within {seconds:.0f} s")


def mlflow(up: Up, path: str, **query: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{up.urls['mlflow']}/api/2.0/mlflow/{path}", params=query).json()
    return found


def champion(up: Up) -> str:
    found = mlflow(up, "registered-models/alias", name="fusionrec", alias="champion")
    return str(found.get("model_version", {}).get("version", ""))


def tags(up: Up, version: str) -> dict[str, str]:
    found = mlflow(up, "model-versions/get", name="fusionrec", version=version)["model_version"]
    return {tag["key"]: tag["value"] for tag in found.get("tags", ())}


def open_form(up: Up, watched: Watched, deployment: str) -> None:
    """Deployments -> the deployment -> Run -> Custom run."""
    prefect = up.urls["prefect"]
    name = httpx.get(f"{prefect}/api/deployments/name/{deployment}/{deployment}").json()["id"]
    page = watched.page
    page.goto(f"{prefect}/v2/deployments")
    page.locator(f'a[href*="/deployments/deployment/{name}"]').first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Custom run").click()


def submit(up: Up, watched: Watched, seconds: float) -> dict[str, Any]:
    """Press Submit, follow the run to its end; the run as the API tells it."""
    page = watched.page
    page.get_by_role("button", name="Submit").click()
    page.wait_for_timeout(1500)
    if "/runs/flow-run/" not in page.url:
        page.get_by_role("button", name="View run").or_(page.get_by_role("link", name="View run")).first.click()
    page.wait_for_url("**/runs/flow-run/**")
    run = page.url.split("flow-run/")[1].split("?")[0]

    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = httpx.get(f"{up.urls['prefect']}/api/flow_runs/{run}").json()
        return found if found["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

    return until("the run ends", ended, seconds, 1.0)


def artifacts(up: Up, run: str) -> dict[str, dict[str, Any]]:
    body = {"artifacts": {"flow_run_id": {"any_": [run]}}}
    with Api(up.urls["prefect"]) as api:  # it answers Prefect's CSRF protection
        found = api.post("/artifacts/filter", body)
    return {one["key"]: one for one in found}


def test_up_is_ready_in_a_minute_and_its_start_page_leads_everywhere(up: Up, watched: Watched) -> None:
    page = watched.page
    page.goto(up.urls["page"])
    links = {a.get_attribute("href") or "" for a in page.locator("a").all()}
    for name in ("prefect", "mlflow", "evidently"):
        assert any(link.startswith(up.urls[name]) for link in links), f"{name} is not linked: {links}"
    for ours in ("/evaluation/report.html", "/gate/", "/docs/gate/"):
        assert any(link.endswith(ours) for link in links), f"{ours} is not linked: {links}"
    page.wait_for_timeout(1500)
    watched.shot("start-page", full_page=True)
    assert watched.outside == []
    said = up.log.read_text(encoding="utf-8")
    seconds = int(re.search(r"ready in (\d+) s", said)[1])  # type: ignore[index]
    sys.stdout.write(f"up: ready in {seconds} s\n")
    assert seconds <= 60


def test_hostile_titles_are_inert_in_report_and_data_docs(up: Up, watched: Watched) -> None:
    page = watched.page
    page.goto(f"{up.urls['page']}/evaluation/report.html")
    assert "onerror" in page.locator("body").inner_text() or "<script>" in page.locator("body").inner_text(), (
        "no hostile title is shown: the test would prove nothing"
    )
    cut = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).map(e => e.innerText)"
    assert page.evaluate(cut) == [], f"cut at {page.viewport_size}"
    page.mouse.wheel(0, 5000)
    page.wait_for_timeout(500)
    watched.shot("report", full_page=True)
    for place in ("/gate/", "/docs/gate/"):
        answer = page.goto(f"{up.urls['page']}{place}")
        assert answer.status == 200 and "sandbox" in answer.headers["content-security-policy"]
        if place == "/gate/":
            assert HOSTILE_ID in page.locator("body").inner_text(), "no hostile id is shown: this would prove nothing"
        watched.shot("data-docs" if place == "/docs/gate/" else "gate", full_page=True)
        for link in {a.get_attribute("href") for a in page.locator("a").all()} - {None}:
            if not link.startswith(("#", "http")):
                page.goto(f"{up.urls['page']}{place}{link}")
                page.wait_for_timeout(200)
                page.go_back()
    assert watched.dialogs == [] and watched.outside == []


def test_prefects_form_runs_the_pipeline_with_a_changed_parameter(up: Up, watched: Watched) -> None:
    page = watched.page
    open_form(up, watched, "pipeline")
    page.get_by_role("button", name=re.compile("as in params.yaml|Select retriever", re.I)).first.wait_for()
    boxes = page.get_by_label("retriever", exact=True).or_(
        page.get_by_role("button", name=re.compile("retriever", re.I))
    )
    boxes.first.click()
    page.get_by_role("option", name="popularity").click()
    page.get_by_role("option").first.wait_for(state="hidden")
    # the list fades out: until then it takes the next click as one beside it
    page.wait_for_function("getComputedStyle(document.body).pointerEvents !== 'none'")
    page.wait_for_timeout(500)
    watched.shot("prefect-form", full_page=True)
    run = submit(up, watched, 600)
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    assert run["parameters"]["retriever"] == "popularity"
    found = artifacts(up, run["id"])
    assert {"pipeline", "results"} <= set(found), set(found)
    page.get_by_text("Completed", exact=True).first.wait_for()
    page.wait_for_timeout(1000)
    watched.shot("prefect-run")
    page.get_by_role("tab", name="Artifacts").click()
    page.wait_for_timeout(1500)
    watched.shot("prefect-artifacts")
    page.goto(f"{up.urls['prefect']}/v2/artifacts/artifact/{found['results']['id']}")
    page.get_by_text("popularity").first.wait_for()
    watched.shot("prefect-results")


def test_monitor_reads_the_verdict_on_a_drifted_batch(up: Up, watched: Watched) -> None:
    page = watched.page
    open_form(up, watched, "monitor")
    page.get_by_role("button", name="Submit").wait_for()
    run = submit(up, watched, 600)
    assert (run["state_type"], run["state_name"]) == ("COMPLETED", "Drifted"), run["state"]
    found = artifacts(up, run["id"])
    verdict = found["drift-verdict"]["data"]
    assert "image" in verdict.lower() or "picture" in verdict.lower(), verdict
    page.goto(f"{up.urls['prefect']}/v2/artifacts/artifact/{found['drift-verdict']['id']}")
    page.wait_for_timeout(1500)
    watched.shot("prefect-verdict")
    report = re.search(r"http://127[^)\s\"]+report\.html", json.dumps(found["drift-report"]))
    assert report, found["drift-report"]
    page.goto(report[0])
    assert "picture" in page.locator("body").inner_text().lower()
    watched.shot("drift-report", full_page=True)
    page.goto(up.urls["evidently"])
    page.wait_for_timeout(4000)
    watched.shot("evidently")
    assert watched.dialogs == []


def move_alias(up: Up, watched: Watched, version: str) -> float:
    """Give ``version`` the alias champion by clicks; the time of the last click."""
    page = watched.page
    page.goto(f"{up.urls['mlflow']}/#/models/fusionrec")
    page.reload()
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=f"Version {version}", exact=True))
    row.wait_for()
    row.get_by_role("button").last.click()  # "Add", or a pencil without a name where there is an alias already
    dialog = page.get_by_role("dialog").filter(has_text=re.compile("alias", re.I)).first
    dialog.get_by_role("combobox").first.click()
    page.keyboard.type("champion")
    page.wait_for_timeout(400)
    page.keyboard.press("Enter")
    page.wait_for_timeout(400)
    watched.shot(f"mlflow-alias-{version}")
    dialog.get_by_role("button", name=re.compile("^Save")).first.click()
    return time.monotonic()


def test_mlflow_accepts_the_passed_version_and_puts_back_the_refused_one(up: Up, watched: Watched) -> None:
    versions = mlflow(up, "model-versions/search", filter="name='fusionrec'")["model_versions"]
    by_gate = {
        tags(up, v["version"]).get("gate"): v["version"] for v in sorted(versions, key=lambda v: int(v["version"]))
    }
    assert {"passed", "refused"} <= set(by_gate), by_gate
    assert champion(up) == ""

    start = move_alias(up, watched, by_gate["passed"])
    until("the click arrives", lambda: champion(up) == by_gate["passed"], 10, 0.05)
    until("accepted", lambda: tags(up, by_gate["passed"]).get("champion_event", "").startswith("accepted"), 10, 0.1)
    accepted = time.monotonic() - start
    assert accepted < 5, f"accepted after {accepted:.1f} s"

    start = move_alias(up, watched, by_gate["refused"])
    until(
        "put back",
        lambda: (
            tags(up, by_gate["refused"]).get("champion_event", "").startswith("refused")  # only a real move says so
            and champion(up) == by_gate["passed"]
        ),
        10,
    )
    restored = time.monotonic() - start
    time.sleep(3)
    assert champion(up) == by_gate["passed"]
    sys.stdout.write(f"alias: accepted {accepted:.1f} s, put back {restored:.1f} s after the click\n")
    watched.page.reload()
    watched.page.wait_for_timeout(2500)
    watched.shot("mlflow-models")
    watched.page.goto(f"{up.urls['mlflow']}/#/models/fusionrec/versions/{by_gate['refused']}")
    watched.page.wait_for_timeout(2500)
    watched.shot("mlflow-refused")
    assert watched.dialogs == []


def test_ctrl_c_stops_everything(up: Up) -> None:
    os.kill(up.process.pid, signal.SIGINT)
    assert up.process.wait(30) == 0, up.log.read_text(encoding="utf-8")[-2000:]
    for url in up.urls.values():
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) != 0, f"{url} still answers"
