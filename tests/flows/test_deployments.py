"""The deployments: the same in flows/serve.py and prefect.yaml, typed, and importing them is quick."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
NAMES = [
    "pipeline", "ingest", "validate", "split", "learn", "embed", "words", "train", "rank", "evaluate", "bundle",
    "register", "monitor", "tune", "promote", "use-recipe",
]  # fmt: skip


def written() -> dict[str, dict[str, Any]]:
    """prefect.yaml's deployments by name."""
    return {d["name"]: d for d in yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]}


def test_prefect_yaml_and_serve_name_the_same_flows() -> None:
    from flows.serve import served

    assert [one.name for one in served()] == list(written()) == NAMES
    for one in served():
        file, _, attribute = written()[one.name]["entrypoint"].partition(":")
        flow = getattr(import_module(file.removesuffix(".py").replace("/", ".")), attribute)
        assert flow is one.flow and flow.name == one.name and flow.description


def test_a_served_deployment_is_what_prefect_yaml_says() -> None:
    """Tags, limits and schedules, as Prefect itself reads them; every schedule is paused."""
    from flows.serve import deployments

    for made in deployments():
        wanted = written()[made.name]
        assert made.entrypoint == wanted["entrypoint"]
        assert made.tags == wanted["tags"] and made.enforce_parameter_schema is wanted["enforce_parameter_schema"]
        assert made.concurrency_limit == wanted["concurrency_limit"]["limit"]
        schedules = [
            {"slug": s.slug, "cron": s.schedule.cron, "timezone": s.schedule.timezone, "active": s.active}
            for s in made.schedules or []
        ]
        assert schedules == wanted.get("schedules", []) and not any(s["active"] for s in schedules)


def test_a_schedule_that_was_switched_on_stays_on() -> None:
    from flows.serve import deployments

    made = {d.name: d for d in deployments(lambda name, slug: (name, slug) == ("monitor", "daily"))}
    assert [s.active for s in made["monitor"].schedules] == [True]
    assert [s.active for s in made["pipeline"].schedules] == [False]


def properties(name: str) -> dict[str, Any]:
    from flows.serve import served

    return next(one.flow for one in served() if one.name == name).parameters.properties


@pytest.mark.parametrize("name", NAMES)
def test_every_field_has_a_line_of_help(name: str) -> None:
    found = properties(name)
    assert found and all(field.get("description") for field in found.values())


def test_the_form_offers_what_exists() -> None:
    from flows.pipeline import SAME
    from fusionrec.stages import adopt, choices

    found = properties("pipeline")
    recipes = list(adopt.recipes(ROOT))
    assert found["retriever"]["enum"] == [SAME, *choices.retrievers()]
    assert found["fusion"]["enum"] == [SAME, *choices.fusions()]
    assert found["recipe"]["enum"] == [SAME, *recipes] and recipes
    assert found["stages"]["items"]["enum"] == list(choices.stage_names())
    assert found["seed"]["minimum"] == -1 and found["wait_seconds"]["maximum"] == 86_400
    assert properties("use-recipe")["recipe"]["enum"] == recipes
    assert properties("promote")["version"]["minimum"] == 0
    trials = properties("tune")["trials"]
    assert (trials["minimum"], trials["maximum"], trials["default"]) == (1, 200, 12)
    assert properties("tune")["adopt"]["type"] == "boolean" and properties("tune")["minutes"]["maximum"] == 1440


def test_the_forms_own_example_is_valid_with_the_default_parameters() -> None:
    from fusionrec.stages import isolated

    example = re.search(r"e\.g\. (\S+);", properties("pipeline")["set"]["description"])
    assert example
    default = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    changed = isolated.resolved(ROOT / "params.yaml", isolated.parse_overrides([example[1]]))  # raises where it is not
    assert changed != default, "an example that changes nothing runs nothing isolated"


def test_a_reports_links_lead_to_mlflows_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.tasks import in_mlflow

    monkeypatch.delenv("FUSIONREC_MLFLOW_URL", raising=False)
    assert in_mlflow("experiments/1/runs/a") == "" and in_mlflow("") == "" and in_mlflow("models:/m/3") == ""
    assert in_mlflow("http://host/#/experiments/1/runs/a") == "http://host/#/experiments/1/runs/a"
    monkeypatch.setenv("FUSIONREC_MLFLOW_URL", "http://127.0.0.1:5000")
    mode = "?workflowType=machine_learning"
    assert in_mlflow("experiments/1/runs/a") == f"http://127.0.0.1:5000/#/experiments/1/runs/a{mode}"
    assert in_mlflow("models:/m/3") == f"http://127.0.0.1:5000/#/models/m/versions/3{mode}"
    assert in_mlflow("data/evaluation/report.html") == ""


def test_the_monitor_form_offers_the_batches_of_the_project(tmp_path: Path) -> None:
    program = "from flows.monitor import monitor, chosen, PATHS; print(monitor.parameters.properties['batch']['enum'])"
    (tmp_path / "params.yaml").write_text("{}")
    for name in ("autumn", "spring"):
        (tmp_path / "data" / "batches" / name).mkdir(parents=True)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['newest', 'autumn', 'spring']"


def test_which_batch_is_meant(tmp_path: Path) -> None:
    import os

    from flows.monitor import NEWEST, chosen
    from fusionrec.errors import UsageError
    from fusionrec.paths import Paths

    paths = Paths(tmp_path, tmp_path / ".fusionrec")
    with pytest.raises(UsageError, match="data/batches is empty"):
        chosen(paths, NEWEST, "")
    for age, name in enumerate(("new", "older", "oldest")):
        folder = paths.data / "batches" / name
        folder.mkdir(parents=True)
        os.utime(folder, (1_000_000 - age, 1_000_000 - age))
    assert chosen(paths, NEWEST, "").name == "new" and chosen(paths, "older", "").name == "older"
    assert chosen(paths, "older", "elsewhere") == tmp_path / "elsewhere"
    with pytest.raises(UsageError, match="has no folder '../raw'; it has new, older, oldest"):
        chosen(paths, "../raw", "")


def test_a_flow_process_imports_nothing_slow() -> None:
    """A run that has nothing to do must not pay for torch (4 s) or Great Expectations (10 s)."""
    program = (
        "import sys, flows.serve, fusionrec.stages.register, fusionrec.stages.stale;"
        "print({'torch', 'timm', 'great_expectations', 'transformers', 'evidently'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
