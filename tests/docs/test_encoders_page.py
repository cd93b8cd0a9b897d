"""docs/encoders.md: the table is what the code says, and what it shows for params.yaml is accepted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from fusionrec.encoders import AnyEncoder
from fusionrec.kinds import members
from fusionrec.modalities import AnyModality

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "encoders.md"


@pytest.fixture(scope="module")
def tables():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import encoders
    finally:
        sys.path.pop(0)
    return encoders


def test_the_table_is_fresh(tables):
    found = json.loads((ROOT / "benchmarks" / "results" / "encoders.json").read_text(encoding="utf-8"))
    _, _, rest = PAGE.read_text(encoding="utf-8").partition(tables.BEGIN)
    assert rest.partition(tables.END)[0].startswith(tables.table(found["rows"])), (
        "run: python benchmarks/encoders.py --table"
    )


def test_every_kind_has_a_line_and_says_whether_its_vectors_were_compared(tables):
    text = PAGE.read_text(encoding="utf-8")
    for spec in members(AnyEncoder):
        kind = spec.model_fields["kind"].default
        assert f"| `{kind}` | {tables.reads(kind)} |" in text
        if tables.needs_weights(kind):
            assert kind in tables.CHECKED, f"say in benchmarks/encoders.py with which weights {kind} was compared"
        line = next(line for line in text.splitlines() if line.startswith(f"| `{kind}` "))
        assert ("hub, folder or package" in line) == tables.needs_weights(kind)
        assert ("package `" in line) == (hasattr(sys.modules[spec.__module__], "WEIGHTS") and not spec.learnt)
        assert ("learnt here" in line) == spec.learnt


def test_what_the_page_shows_for_params_is_accepted():
    sections = [
        section
        for block in re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
        for section in yaml.safe_load(block).values()
    ]
    kinds = {TypeAdapter(AnyModality).validate_python(section).encoder.kind for section in sections}
    assert kinds == {"timm_image", "transformers_text", "transformers_audio", "transformers_video"}


def test_the_table_is_written_by_its_command(tmp_path):
    """In a copy: a stale table becomes the page as it is."""
    for name in ("benchmarks/encoders.py", "benchmarks/results/encoders.json", "docs/encoders.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    page = tmp_path / "docs" / "encoders.md"
    page.write_text(re.sub(r"\| `minilm` .*\n", "", page.read_text(encoding="utf-8")), encoding="utf-8")
    subprocess.run([sys.executable, str(tmp_path / "benchmarks" / "encoders.py"), "--table"], check=True)
    assert page.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")
