"""X35: a database that its server could not use is refused with the fix, and never with a traceback."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from flows import databases
from fusionrec.errors import Busy, ConfigError


@pytest.fixture(params=["mlflow", "prefect"])
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def file(tmp_path: Path, server: str) -> Path:
    """A database whose schema is the newest that the installed server knows."""
    found = tmp_path / f"{server} 数据.db"
    (head,) = databases.revisions(server)[1]
    with sqlite3.connect(found) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        connection.execute("INSERT INTO alembic_version VALUES (?)", (head,))
    connection.close()
    return found


def write(file: Path, revision: str) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    connection.close()


def test_a_good_one_and_a_missing_one_pass_and_nothing_is_changed(file: Path, server: str) -> None:
    before = file.read_bytes()
    databases.check(server, file)
    databases.check(server, file.with_name("none.db"))
    assert file.read_bytes() == before


def test_the_servers_migrations_form_one_line(server: str) -> None:
    known, heads = databases.revisions(server)
    assert len(known) > 20 and len(heads) == 1, "the check would call a good database old"


def test_locked(file: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "_BUSY_SECONDS", 0.2)
    other = sqlite3.connect(file)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Busy, match="is locked by .*stop that program") as error:
        databases.check(server, file)
    assert error.value.exit_code == 75
    other.close()
    databases.check(server, file)


def test_read_only(file: Path, server: str) -> None:
    """A write version above 2 in the header makes sqlite itself refuse to write, for every user."""
    raw = bytearray(file.read_bytes())
    raw[18] = 3
    file.write_bytes(raw)
    with pytest.raises(ConfigError, match="cannot be written .*chmod u\\+rw"):
        databases.check(server, file)


def test_may_not_be_opened(tmp_path: Path, server: str) -> None:
    """A folder in its place: like a file of somebody else's, sqlite cannot open it, and for every user."""
    (tmp_path / "db").mkdir()
    with pytest.raises(ConfigError, match="cannot be written .unable to open.*chmod u\\+rw"):
        databases.check(server, tmp_path / "db")


def test_no_database(file: Path, server: str) -> None:
    file.write_bytes(b"\x00broken" * 900)
    with pytest.raises(ConfigError, match="damaged or no database"):
        databases.check(server, file)


def test_of_a_newer_server(file: Path, server: str) -> None:
    write(file, "ffffffffffff")
    with pytest.raises(ConfigError, match="was written by a newer .*ffffffffffff"):
        databases.check(server, file)


def test_of_an_older_server(file: Path, server: str) -> None:
    known, heads = databases.revisions(server)
    write(file, min(known - heads))
    if server == "prefect":  # it migrates its own
        databases.check(server, file)
        return
    with pytest.raises(ConfigError, match="after a backup run `mlflow db upgrade sqlite:///") as error:
        databases.check(server, file)
    assert str(file) in str(error.value)
