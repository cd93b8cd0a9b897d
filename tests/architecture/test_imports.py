"""Importing is cheap and changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture import rules

HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "mlflow",
    "great_expectations",
    "prefect",
    "evidently",
    "sklearn",
    "ray",
    "pandas",
    "altair",
    "av",
)

WATCH = """
import json, logging, os, sys, warnings
before = dict(os.environ)
writes = []
def audit(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and not arguments[0].startswith("/dev/"):
            writes.append(arguments[0])
    elif event in ("os.mkdir", "os.remove", "os.rename", "os.chmod", "socket.connect"):
        writes.append(f"{event} {arguments[0]}")
sys.addaudithook(audit)
import importlib
for name in NAMES:
    importlib.import_module(name)
json.dump({
    "writes": writes,
    "environment": sorted(k for k in {**before, **os.environ} if before.get(k) != os.environ.get(k)),
    "handlers": len(logging.getLogger().handlers),
    "modules": sorted({m.split(".")[0] for m in sys.modules}),
}, sys.stdout)
"""


def watched(names: list[str], cwd: Path) -> dict[str, list[str]]:
    """Import modules in a fresh interpreter in an empty folder and say what that did."""
    environment = {
        **os.environ,
        "HOME": str(cwd),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(rules.ROOT / "src"),
    }
    code = WATCH.replace("NAMES", repr(names))
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def modules() -> list[str]:
    """All modules of the library; running __main__ is not importing."""
    return sorted(
        "fusionrec." + ".".join(p.relative_to(rules.SRC).with_suffix("").parts).removesuffix(".__init__")
        for p in rules.SRC.rglob("*.py")
        if p.stem != "__main__" and p != rules.SRC / "__init__.py"
    )


def test_config_and_command_line_import_nothing_heavy(tmp_path: Path) -> None:
    told = watched(["fusionrec.config", "fusionrec.cli"], tmp_path)
    assert [m for m in HEAVY if m in told["modules"]] == []


def test_importing_any_module_changes_nothing(tmp_path: Path) -> None:
    told = watched(modules(), tmp_path)
    assert told["writes"] == []
    assert told["handlers"] == 0
    assert [v for v in told["environment"] if v != "_RJEM_MALLOC_CONF"] == []  # that one is polars' allocator
    assert list(tmp_path.iterdir()) == []


def test_the_watch_notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "noisy_module.py"
    package.write_text(
        "import os, logging\nos.environ['X_NOISY'] = '1'\nlogging.basicConfig()\nopen('left', 'w').close()\n"
    )
    monkeypatch.setattr(rules, "ROOT", tmp_path)
    told = watched(["noisy_module"], tmp_path)
    assert told["environment"] == ["X_NOISY"]
    assert told["handlers"] == 1
    assert any(w.endswith("left") for w in told["writes"])
