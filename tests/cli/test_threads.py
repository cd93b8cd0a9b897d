"""The command line lets waiting threads sleep soon, unless its user has said how they wait."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

ASK = "import os, sys; from fusionrec.cli import main; main(['--version']); print(os.environ.get('GOMP_SPINCOUNT'))"


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, "20000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_threads_wait_briefly_unless_the_user_has_a_policy(given: dict[str, str], found: str) -> None:
    bare = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", ASK], env=bare | given, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == found
