"""How MLflow is reached: URI, bounds on waiting, and what its errors mean. MLflow is imported here, when needed.

Its defaults wait for about four minutes on a dead server, send telemetry and unpickle; ours answer within a
minute, send nothing and refuse pickles.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
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


@dataclass(frozen=True)
class Location:
    """Where runs and versions are kept: a tracking ``uri`` and, for a database, the folder of the ``artifacts``."""

    uri: str
    artifacts: Path | None

    @property
    def is_server(self) -> bool:
        return self.uri.startswith(("http://", "https://"))

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
    elif where.artifacts is not None:
        where.artifacts.mkdir(parents=True, exist_ok=True)
        where.artifacts.parent.chmod(0o700)
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
        with _use_tracking_uri(where.uri):
            yield MlflowClient(tracking_uri=where.uri, registry_uri=where.uri), where
    except FusionrecError:
        raise
    except Exception as error:
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
    if "out-of-date database schema" in text or "Can't locate revision" in text:
        return ConfigError(
            f"the MLflow database {where.shown} was written by another MLflow: run `mlflow db upgrade {where.shown}` "
            "after a backup"
        )
    if isinstance(error, (RequestException, SQLAlchemyError, ConnectionError, TimeoutError)) or (
        isinstance(error, MlflowException)
        and any(
            sign in text
            for sign in (
                "API request to",
                "Max retries",
                "timed out",
                "Connection",
                "OperationalError",
                "database is locked",
                "readonly database",
                "unable to open database",
            )
        )
    ):
        return unavailable(where, (text.splitlines() or [type(error).__name__])[0][:200])
    return None


def unavailable(where: Location, cause: str) -> Unavailable:
    """The one message for a registry that does not answer."""
    return Unavailable(
        f"MLflow at {where.shown} did not answer: {cause}\n"
        "nothing is lost: the trained bundle stays in data/bundle. Start the server (`fusionrec up`) or correct "
        "MLFLOW_TRACKING_URI, then run `fusionrec register`; it can be repeated"
    )


def _probe(where: Location) -> None:
    """One short question to the server, so that a dead one is known in seconds."""
    try:
        with urllib.request.urlopen(f"{where.uri}/health", timeout=_PROBE_SECONDS) as answer:  # noqa: S310
            answer.read(64)
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise unavailable(where, f"HTTP {error.code}") from None
    except (OSError, ValueError) as error:
        raise unavailable(where, str(getattr(error, "reason", error))) from None
