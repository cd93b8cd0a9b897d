"""MLflow's sqlite file locked, read-only, damaged, or of another MLflow: the fix is said, and nothing hangs."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

from fusionrec.errors import ConfigError, Unavailable
from fusionrec.registry import guard, mlflow_store, tracking

from .conftest import register


def database(home):
    return home / "mlflow/mlflow.db"


def elsewhere(home, tmp_path):
    """The client keeps one store for each address, so a changed database gets another one."""
    return home.rename(tmp_path / "changed")


@pytest.mark.parametrize(
    "revision, fix", [("0a8213491aaa", "mlflow db upgrade sqlite:///"), ("f" * 12, "newer MLflow")]
)
def test_a_schema_of_another_mlflow(home, tmp_path, revision, fix):
    with closing(sqlite3.connect(database(home))) as db, db:
        db.execute("update alembic_version set version_num = ?", [revision])
    home = elsewhere(home, tmp_path)
    with pytest.raises(ConfigError, match=fix) as caught:
        guard.settle(home, "fusionrec")
    assert caught.value.exit_code == 78 and str(database(home)) in str(caught.value)


@pytest.mark.parametrize("content", [b"not a database at all" * 99, None])
def test_a_damaged_database(home, tmp_path, content):
    whole = database(home).read_bytes()
    database(home).write_bytes(content or whole[:4096] + b"\xff" * 8192 + whole[12288:])
    with pytest.raises(ConfigError, match="is damaged: restore") as caught:
        guard.settle(elsewhere(home, tmp_path), "fusionrec")
    assert caught.value.exit_code == 78


def test_a_locked_database_is_said_in_seconds(home, monkeypatch):
    monkeypatch.setattr(tracking, "_PROBE_SECONDS", 0.5)
    with closing(sqlite3.connect(database(home), isolation_level=None)) as other:
        other.execute("begin exclusive")
        start = time.monotonic()
        with pytest.raises(Unavailable, match="locked by another process") as caught:
            guard.settle(home, "fusionrec")
        assert time.monotonic() - start < 10 and caught.value.exit_code == 69
        assert "nothing is lost" in str(caught.value)
        other.execute("rollback")
    assert guard.settle(home, "fusionrec") is None


@pytest.mark.faults
def test_a_database_that_another_process_writes_to(home, ease_bundle, capfd):
    """Reading works, writing waits for SQLite's 20 s (MLflow sets them) and then says who is in the way."""
    assert mlflow_store.find(home, "fusionrec", version=1) is None
    with closing(sqlite3.connect(database(home), isolation_level=None)) as other:
        other.execute("begin immediate")
        start = time.monotonic()
        with pytest.raises(Unavailable, match="locked by another process"):
            register(home, ease_bundle)
        assert time.monotonic() - start < 60
        other.execute("rollback")
    assert "Traceback" not in capfd.readouterr().err
    assert register(home, ease_bundle).version == 1


def test_a_database_that_may_only_be_read(home, ease_bundle, monkeypatch, capfd):
    """Mounted read-only, as SQLite sees it; file modes say nothing to root."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///file:{database(home)}?mode=ro&uri=true")
    with pytest.raises(ConfigError, match=r"is read-only: make .* writable .* nothing is lost") as caught:
        register(home, ease_bundle)
    assert caught.value.exit_code == 78 and "Traceback" not in capfd.readouterr().err


def test_the_last_line_names_the_fix(home, tmp_path):
    """The whole command: exit code, the fix, no traceback."""
    (tmp_path / "params.yaml").write_text(
        "source: {kind: folder, root: x}\nsplit: {kind: random_per_user}\n"
        "train: {retriever: {kind: ease}, fusion: {kind: concat}}\n"
    )
    database(home).write_bytes(b"\0" * 5000)
    done = subprocess.run(
        [sys.executable, "-m", "fusionrec", "guard"],
        cwd=tmp_path,
        env={**os.environ, "FUSIONREC_HOME": str(home)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 78 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("fusionrec: exit 78 (configuration): the MLflow database sqlite:///")
