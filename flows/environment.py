"""The settings of this project's servers and flows. Prefect reads its own when it is imported: they are set before."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from fusionrec.errors import ConfigError
from fusionrec.paths import Paths
from fusionrec.stages.process import child_environment, private_home, private_site_cache

PREFECT_PORT, MLFLOW_PORT = "FUSIONREC_PREFECT_PORT", "FUSIONREC_MLFLOW_PORT"
EVIDENTLY_PORT, PAGE_PORT = "FUSIONREC_EVIDENTLY_PORT", "FUSIONREC_PAGE_PORT"
PAGE_URL = "FUSIONREC_PAGE_URL"
TRAINING = "?workflowType=machine_learning"  # MLflow opens its pages for language models unless told otherwise
SECRETS = (
    "PREFECT_SERVER_API_AUTH_STRING",
    "PREFECT_API_AUTH_STRING",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_AUTH_ADMIN_PASSWORD",
    "MLFLOW_FLASK_SERVER_SECRET_KEY",
    "EVIDENTLY_SECRET",
)
_GUESSED = ("changeme", "change-me", "password", "secret", "default", "example", "admin", "prefect", "mlflow", "test")
_SHORTEST = 12


@dataclass(frozen=True)
class Ports:
    """Where the servers listen on loopback."""

    prefect: int
    mlflow: int
    evidently: int
    page: int

    @property
    def prefect_url(self) -> str:
        return f"http://127.0.0.1:{self.prefect}"

    @property
    def mlflow_url(self) -> str:
        return f"http://127.0.0.1:{self.mlflow}"

    @property
    def evidently_url(self) -> str:
        return f"http://127.0.0.1:{self.evidently}"

    @property
    def page_url(self) -> str:
        return f"http://127.0.0.1:{self.page}"


def ports() -> Ports:
    """From the environment, else the defaults. Raises ConfigError for what is no port or is named twice."""
    found: dict[str, int] = {}
    for name, default in ((PREFECT_PORT, 4200), (MLFLOW_PORT, 5000), (EVIDENTLY_PORT, 8000), (PAGE_PORT, 8080)):
        text = os.environ.get(name, str(default))
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65_535:
            raise ConfigError(f"{name} must be a port from 1 to 65535, found {text[:20]!r}")
        if int(text) in found.values():
            twice = next(n for n, p in found.items() if p == int(text))
            raise ConfigError(f"{name} and {twice} are both {text}; give each its own port")
        found[name] = int(text)
    return Ports(*found.values())


def find() -> Paths:
    """The project of the working directory, else the one this file lies in, with its private folders."""
    try:
        paths = Paths.find()
    except Exception:  # outside a project: the flows' own
        paths = Paths.find(Path(__file__).parents[1])
    private_home(paths.home)
    private_site_cache(paths.project, paths.home)
    return paths


def settings(home: Path) -> dict[str, str]:
    """Databases under the home, JSON results, no telemetry, a quick runner; what the environment sets wins."""
    wanted = {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "30",
    }
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


def apply(paths: Paths) -> None:
    """Set them in this process, with everything a child of the project gets."""
    os.umask(0o077)
    os.environ.update({**child_environment(paths.home), **settings(paths.home)})


def servers(paths: Paths, where: Ports) -> dict[str, str]:
    """The environment of every child of ``up``: where the servers are, closed to other sites, nothing told to anyone.

    Raises ConfigError for a secret in the environment that is empty, short or a well-known default.
    """
    refuse_weak_secrets()
    own = ",".join(f"http://{name}:{where.prefect}" for name in ("127.0.0.1", "localhost"))
    made = {
        **settings(paths.home),
        "PREFECT_API_URL": f"{where.prefect_url}/api",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": own,
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "FUSIONREC_MLFLOW_URL": where.mlflow_url,
        "FUSIONREC_PREFECT_URL": where.prefect_url,
        "FUSIONREC_EVIDENTLY_URL": where.evidently_url,
        PAGE_URL: where.page_url,
        "EVIDENTLY_SECRET": os.environ.get("EVIDENTLY_SECRET") or kept_secret(paths.keys / "evidently.txt"),
    }
    if auth := os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        made["PREFECT_API_AUTH_STRING"] = auth
    return child_environment(paths.home, made)


def refuse_weak_secrets() -> None:
    """Raises ConfigError naming the variable; its value is never shown."""
    for name in SECRETS:
        if (value := os.environ.get(name)) is None:
            continue
        secret = value.partition(":")[2] if "AUTH_STRING" in name else value
        plain = secret.strip().lower()
        if len(plain) < _SHORTEST or len(set(plain)) < 5 or any(plain.strip("0123456789!-_") == g for g in _GUESSED):
            shape = "user:password with a password" if "AUTH_STRING" in name else "a value"
            raise ConfigError(
                f"{name} is set to a value that is empty, short or well known; unset it, or set {shape} of at least "
                f"{_SHORTEST} characters, e.g. from: python -c 'import secrets; print(secrets.token_urlsafe(24))'"
            )


def kept_secret(file: Path) -> str:
    """The secret in ``file`` (0600), made on first use."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as stream:
            stream.write(secrets.token_urlsafe(32))
    except FileExistsError:
        pass
    return file.read_text(encoding="ascii").strip()
