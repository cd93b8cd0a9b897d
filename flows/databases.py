"""A look at the sqlite databases before their servers start: a server's own words for these are a traceback."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psutil

from fusionrec.errors import Busy, ConfigError, FusionrecError

_BUSY_SECONDS = 5.0
_REVISION = re.compile(r"^(down_)?revision\s*(?::[^=]*)?=\s*(.+)$", re.MULTILINE)
_MIGRATIONS = {
    "mlflow": "store/db_migrations/versions",
    "prefect": "server/database/_migrations/versions/sqlite",
}


def check(server: str, file: Path) -> None:
    """Raises Busy where another program keeps ``file`` locked, ConfigError where it cannot be written, is no database
    or has a schema that the installed ``server`` ("mlflow", "prefect") does not take; a missing file is fine."""
    if not file.exists():
        return
    title = {"mlflow": "MLflow", "prefect": "Prefect"}[server]
    try:
        with closing(
            sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
        ) as connection:
            connection.execute("BEGIN IMMEDIATE")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            connection.execute(f"PRAGMA user_version = {int(version)}")  # a write that changes nothing
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            found = (
                connection.execute("SELECT version_num FROM alembic_version").fetchall()
                if "alembic_version" in tables
                else []
            )
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise _meaning(title, file, error) from None
    for (revision,) in found:
        _schema(server, title, file, str(revision))


def _meaning(title: str, file: Path, error: sqlite3.Error) -> FusionrecError:
    text = str(error)
    if "locked" in text or "busy" in text:
        holders = ", ".join(_holders(file)) or "another program"
        return Busy(
            f"the {title} database {file} is locked by {holders}: found no moment to write within {_BUSY_SECONDS:.0f} "
            "s; stop that program, then run `fusionrec up` again"
        )
    if "readonly" in text or "unable to open" in text or "permission" in text.lower():
        return ConfigError(
            f"the {title} database {file} cannot be written ({text}): give it back to its owner with "
            f"`chmod u+rw {file}` and make sure that its folder and disk are writable"
        )
    return ConfigError(
        f"the {title} database {file} is damaged or no database ({text}): put a backup in its place, or move it away "
        "and a new one is made"
    )


def _schema(server: str, title: str, file: Path, revision: str) -> None:
    known, head = revisions(server)
    if revision not in known:
        raise ConfigError(
            f"the {title} database {file} was written by a newer {title} (schema {revision}): install the version that "
            "wrote it, or move the file away and a new one is made"
        )
    if server == "mlflow" and revision not in head:  # Prefect migrates its own when it starts
        raise ConfigError(
            f"the {title} database {file} has an older schema ({revision}): after a backup run "
            f"`mlflow db upgrade sqlite:///{file}`"
        )


def revisions(server: str) -> tuple[set[str], set[str]]:
    """(every schema revision that the installed package knows, the newest ones), read from its migrations."""
    spec = find_spec(server)
    if spec is None or spec.origin is None:
        raise ConfigError(f"{server} is not installed: run `make demo` or install requirements.lock")
    known: set[str] = set()
    replaced: set[str] = set()
    for path in (Path(spec.origin).parent / _MIGRATIONS[server]).glob("*.py"):
        for down, value in _REVISION.findall(path.read_text(encoding="utf-8")):
            (replaced if down else known).update(re.findall(r"""["']([0-9a-f]+)["']""", value))
    return known, known - replaced


def _holders(file: Path) -> list[str]:
    """ "NAME (pid N)" of the processes that have the file open, as far as they can be seen."""
    found = []
    for process in psutil.process_iter(["name"]):
        try:
            if process.pid != psutil.Process().pid and any(Path(f.path) == file for f in process.open_files()):
                found.append(f"{process.info['name']} (pid {process.pid})")
        except (psutil.Error, OSError):
            continue
    return found
