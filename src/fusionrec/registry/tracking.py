"""How MLflow is reached: URI, bounds on waiting, and what its errors mean. MLflow is imported here, when needed.

Its defaults wait for about four minutes on a dead server, send telemetry and unpickle; ours answer within a
minute, send nothing and refuse pickles.
"""

from __future__ import annotations

import math
import os
import re
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusionrec.errors import ConfigError, FusionrecError, Unavailable

_FORCED = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
_BOUNDS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_PROBE_SECONDS = 5.0
_PROBE_AGAIN_SECONDS = 5.0
_answered: dict[str, float] = {}
"""When each server last answered a probe, by the monotonic clock."""
_LOCKED = "database is locked"
_NEWER = "Can't locate revision"
# What only a person can mend: signs in an error's text, and what to say.
_DATABASE = (
    (
        ("out-of-date database schema",),
        "the MLflow database {where} has an older schema than the installed MLflow: run `mlflow db upgrade {where}` "
        "after a backup, then repeat",
    ),
    (
        (_NEWER,),
        "the MLflow database {where} was written by another, newer MLflow: install that one (requirements.lock), or "
        "set MLFLOW_TRACKING_URI to a database of its own; `mlflow db upgrade` cannot go back",
    ),
    (
        ("readonly database", "read-only"),
        "the MLflow database {where} is read-only: make {file} and its folder writable (chmod u+w), then repeat; "
        "nothing is lost",
    ),
    (
        ("unable to open database",),
        "the MLflow database {where} cannot be opened: the folder of {file} must exist and be yours; then repeat",
    ),
    (
        ("file is not a database", "malformed"),
        "the MLflow database {where} is damaged: restore {file} from a backup, or move it away to start an empty one "
        "(`fusionrec register` registers the present bundle again)",
    ),
)


@dataclass(frozen=True)
class Location:
    """Where runs and versions are kept: a tracking ``uri`` and, for a database, the folder of the ``artifacts``."""

    uri: str
    artifacts: Path | None

    @property
    def is_server(self) -> bool:
        return self.uri.startswith(("http://", "https://"))

    @property
    def file(self) -> Path | None:
        """The file of a sqlite database, None for anything else."""
        scheme, _, rest = self.uri.partition(":///")
        path = rest.partition("?")[0]
        return Path(path) if scheme.split("+")[0] == "sqlite" and path and not path.startswith("file:") else None

    @property
    def shown(self) -> str:
        """The URI without a password, for messages and links."""
        scheme, _, rest = self.uri.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}"


def locate(home: Path) -> Location:
    """``MLFLOW_TRACKING_URI``, else a sqlite database under ``home``; touches nothing on disk."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    folder = home / "mlflow"
    if not uri:
        return Location(f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts")
    if uri.startswith(("http://", "https://")):
        return Location(uri.rstrip("/"), None)
    if uri.split(":")[0].split("+")[0] in {"sqlite", "postgresql", "mysql", "mssql"}:
        return Location(uri, folder / "artifacts")
    raise ConfigError(
        f"MLFLOW_TRACKING_URI is {uri.partition('://')[0]!r}...; expected http(s)://, sqlite:///FILE or postgresql://"
    )


@contextmanager
def client(home: Path) -> Iterator[tuple[Any, Location]]:
    """An ``MlflowClient`` and its location; MLflow's errors leave as Unavailable or ConfigError.

    The global tracking URI is set inside the block and restored after it, because logging a model needs it.
    """
    where = locate(home)
    if where.is_server:
        _probe(where)
    else:
        _probe_database(where)
    for name, value in _BOUNDS.items():
        os.environ.setdefault(name, value)
    os.environ.update(_FORCED)
    # MLflow writes its global URI into the environment, where the next call would take it for the user's wish
    temporary = {"MLFLOW_REGISTRY_URI": where.uri}
    if where.artifacts is not None:  # else a ./mlruns folder appears in the working directory
        temporary["_MLFLOW_SERVER_ARTIFACT_ROOT"] = where.artifacts.as_uri()
    before = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", *temporary)}
    os.environ.update(temporary)
    try:
        import logging

        from mlflow import MlflowClient
        from mlflow.tracking._tracking_service.utils import _use_tracking_uri

        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it prints what it raises
        with _use_tracking_uri(where.uri):
            yield MlflowClient(tracking_uri=where.uri, registry_uri=where.uri), where
    except FusionrecError:
        raise
    except Exception as error:
        _answered.pop(where.uri, None)
        meant = explain(error, where)
        if meant is None:
            raise
        raise meant from error
    finally:
        for name, old in before.items():
            os.environ.pop(name, None)
            if old is not None:
                os.environ[name] = old


def explain(error: Exception, where: Location) -> FusionrecError | None:
    """What an exception out of MLflow means for a person, or None where it is not about the service."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    text = str(error)
    if _unknown_revision(text):
        text = _NEWER
    for signs, meant in _DATABASE:
        if any(sign in text for sign in signs):
            return ConfigError(meant.format(where=where.shown, file=where.file or "the database"))
    if isinstance(error, (RequestException, SQLAlchemyError, sqlite3.Error, ConnectionError, TimeoutError)) or (
        isinstance(error, MlflowException)
        and any(
            sign in text
            for sign in ("API request to", "Max retries", "timed out", "Connection", "OperationalError", _LOCKED)
        )
    ):
        return unavailable(where, (text.splitlines() or [type(error).__name__])[0][:200])
    return None


def _unknown_revision(text: str) -> bool:
    """Whether MLflow complains about a schema that its own migrations do not know. It calls every other schema
    out-of-date, newer ones too."""
    import mlflow

    found = re.search(r"out-of-date database schema \(found version (\w+)", text)
    migrations = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"
    return found is not None and migrations.is_dir() and not [*migrations.glob(f"{found[1]}_*.py")]


def unavailable(where: Location, cause: str) -> Unavailable:
    """The one message for a registry that does not answer."""
    if _LOCKED in cause:
        cause = "the database is locked by another process (a backup? a second server?): let it end or stop it"
    return Unavailable(
        f"MLflow at {where.shown} did not answer: {cause}\n"
        "nothing is lost: the trained bundle stays in data/bundle. Start the server (`make up`) or correct "
        "MLFLOW_TRACKING_URI, then run `fusionrec register`; it can be repeated"
    )


def _probe(where: Location) -> None:
    """One short question to the server, so that a dead one is known in seconds; not again within a few."""
    if time.monotonic() - _answered.get(where.uri, -math.inf) < _PROBE_AGAIN_SECONDS:
        return
    _answered.pop(where.uri, None)
    try:
        with urllib.request.urlopen(f"{where.uri}/health", timeout=_PROBE_SECONDS) as answer:  # noqa: S310
            answer.read(64)
        _answered[where.uri] = time.monotonic()
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise unavailable(where, f"HTTP {error.code}") from None
    except (OSError, ValueError) as error:
        raise unavailable(where, str(getattr(error, "reason", error))) from None


def _probe_database(where: Location) -> None:
    """Ask a sqlite file one question: MLflow itself tries a locked one for minutes. Makes the folder of our own."""
    if where.artifacts is None:
        return
    try:
        where.artifacts.mkdir(parents=True, exist_ok=True)
        where.artifacts.parent.chmod(0o700)
    except OSError as error:
        raise ConfigError(f"{where.artifacts}: {error.strerror}: MLflow's files lie there; make it writable") from None
    if where.file is None or not where.file.exists():
        return
    try:
        uri = f"{where.file.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, timeout=_PROBE_SECONDS)) as database:
            database.execute("select count(*) from sqlite_master").fetchone()
    except sqlite3.Error as error:
        raise (explain(error, where) or unavailable(where, str(error))) from None
