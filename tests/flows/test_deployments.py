"""The deployments: the same in flows/serve.py and prefect.yaml, typed, and importing them is quick."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_prefect_yaml_and_serve_name_the_same_flows() -> None:
    from flows.serve import SINGLE

    found = {d["name"]: d["entrypoint"] for d in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}
    assert list(found) == ["pipeline", *SINGLE]
    for name, entrypoint in found.items():
        file, _, attribute = entrypoint.partition(":")
        flow = getattr(import_module(file.removesuffix(".py").replace("/", ".")), attribute)
        assert flow.name == name and flow.description


def test_the_form_offers_what_exists() -> None:
    from flows.pipeline import pipeline
    from fusionrec.stages import choices

    properties = pipeline.parameters.properties
    assert properties["retriever"]["anyOf"][0]["enum"] == list(choices.retrievers())
    assert properties["fusion"]["anyOf"][0]["enum"] == list(choices.fusions())
    assert properties["stages"]["anyOf"][0]["items"]["enum"] == list(choices.stage_names())
    assert properties["seed"]["anyOf"][0]["minimum"] == 0
    assert all("description" in found for found in properties.values()), "each has a line of help"


def test_a_flow_process_imports_nothing_slow() -> None:
    """A run that has nothing to do must not pay for torch (4 s) or Great Expectations (10 s)."""
    program = (
        "import sys, flows.serve, fusionrec.stages.register, fusionrec.stages.stale;"
        "print({'torch', 'timm', 'great_expectations', 'transformers', 'evidently'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
