"""Registering a bundle in MLflow, once for each digest, and finding versions again.

The registry is a ledger, not a gate: what protects is the digest that every reader checks and the signed verdict.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any

from filelock import FileLock

from fusionrec.errors import IntegrityError, UsageError
from fusionrec.registry import tracking
from fusionrec.registry.bundle import verify_bundle

CHALLENGER, CHAMPION = "challenger", "champion"
_REQUIREMENTS = ("mlflow", "numpy", "pandas", "polars", "pydantic", "safetensors", "scipy", "torch")


@dataclass(frozen=True)
class Dataset:
    """A file that the model was made from or measured on; ``digest`` is DVC's md5 where there is one, else sha256."""

    name: str
    context: str
    path: str
    digest: str
    kind: str
    rows: int


@dataclass(frozen=True)
class Entry:
    """Everything that one registration records."""

    bundle: Path
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    datasets: Sequence[Dataset] = ()
    artifacts: Mapping[str, Path] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    curve: Sequence[Mapping[str, float]] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    example: str = ""


@dataclass(frozen=True)
class Registered:
    """A model version. ``created`` is False where the digest was registered before."""

    name: str
    version: int
    run_id: str
    created: bool
    link: str
    tags: Mapping[str, str]
    aliases: tuple[str, ...] = ()


def register(
    home: Path, name: str, experiment: str, about: Mapping[str, Any], gather: Callable[[], Entry]
) -> Registered:
    """Make sure that a version with this bundle's digest exists, and give a new one the alias ``challenger``.

    ``about``: bundle.json, already checked. Where the digest is known, nothing is gathered or uploaded.
    Raises Unavailable where MLflow does not answer (the call can be repeated), IntegrityError where the bundle on disk
    does not verify.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(home / "register.lock", timeout=300), tracking.client(home) as (client, where):
        known = _find(client, where, name, about["bundle"])
        if known is not None:
            return known
        return _create(client, where, name, experiment, about, gather())


def find(home: Path, name: str, *, version: int | None = None, alias: str | None = None) -> Registered | None:
    """The version with this number or alias, None where there is none."""
    with tracking.client(home) as (client, where):
        return _get(client, where, name, version, alias)


def download(home: Path, registered: Registered, target: Path) -> Path:
    """Fetch the bundle of a version into ``target``; returns its folder. Verify it with ``load_bundle``."""
    from mlflow.exceptions import MlflowException

    with tracking.client(home) as (_, where):
        import mlflow

        try:
            folder = Path(
                mlflow.artifacts.download_artifacts(
                    artifact_uri=f"models:/{registered.name}/{registered.version}/artifacts/bundle",
                    dst_path=str(target),
                )
            )
        except (MlflowException, OSError) as error:
            if tracking.explain(error, where) is not None and not isinstance(error, FileNotFoundError):
                raise
            raise IntegrityError(
                f"version {registered.version} of {registered.name} has no bundle in its artifacts "
                f"({str(error).splitlines()[0][:160]}); it cannot be used"
            ) from None
    found = folder if (folder / "bundle.json").exists() else folder / "artifacts" / "bundle"
    if not (found / "bundle.json").exists():
        raise IntegrityError(f"version {registered.version} of {registered.name} has no bundle.json; it cannot be used")
    return found


def set_tags(home: Path, registered: Registered, tags: Mapping[str, str], alias: str | None = None) -> None:
    """Write tags on a version, and then move ``alias`` to it."""
    with tracking.client(home) as (client, _):
        for key, value in tags.items():
            client.set_model_version_tag(registered.name, str(registered.version), key, value)
        if alias:
            client.set_registered_model_alias(registered.name, alias, str(registered.version))


def _get(client: Any, where: tracking.Location, name: str, version: int | None, alias: str | None) -> Registered | None:
    from mlflow.exceptions import MlflowException

    try:
        if alias is not None:
            version = int(client.get_model_version_by_alias(name, alias).version)
        return _seen(client.get_model_version(name, str(version)), where)
    except MlflowException as error:
        if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            return None
        raise


def _find(client: Any, where: tracking.Location, name: str, digest: str) -> Registered | None:
    """The newest usable version with this digest; one whose local artifacts are gone does not count."""
    versions = client.search_model_versions(f"name = '{name}' and tags.bundle_digest = '{digest}'")
    for version in sorted(versions, key=lambda v: -int(v.version)):
        uri = client.get_model_version_download_uri(name, version.version)
        gone = uri.startswith(("file:", "/")) and not Path(uri.removeprefix("file://"), "MLmodel").is_file()
        if version.status == "READY" and not gone:
            return _get(client, where, name, int(version.version), None)
    return None


def _seen(version: Any, where: tracking.Location, created: bool = False) -> Registered:
    link = (
        f"{where.shown}/#/models/{version.name}/versions/{version.version}"
        if where.is_server
        else (f"models:/{version.name}/{version.version}")
    )
    return Registered(
        version.name, int(version.version), version.run_id, created, link, dict(version.tags), tuple(version.aliases)
    )


def _create(
    client: Any, where: tracking.Location, name: str, experiment: str, about: Mapping[str, Any], entry: Entry
) -> Registered:
    from mlflow.entities import RunStatus

    verify_bundle(entry.bundle, about)
    experiment_id = _experiment(client, where, experiment)
    digests = {"bundle_digest": about["bundle"], "model_digest": about["model"], "catalogue_digest": about["catalogue"]}
    tags = {**entry.tags, **digests}
    for left in client.search_runs([experiment_id], f"tags.bundle_digest = '{about['bundle']}' and status = 'RUNNING'"):
        client.set_terminated(left.info.run_id, RunStatus.to_string(RunStatus.KILLED))  # of a registration that died
    run = client.create_run(experiment_id, tags=tags, run_name=f"{about['bundle'][:12]}")
    run_id = run.info.run_id
    try:
        _log(client, run_id, entry)
        version = _log_model(client, run_id, name, tags, entry)
        client.set_registered_model_alias(name, CHALLENGER, version.version)
    except Exception as error:
        if tracking.explain(error, where) is None:  # a service that is gone cannot be told
            client.set_terminated(run_id, RunStatus.to_string(RunStatus.FAILED))
        raise
    client.set_terminated(run_id)
    return _seen(client.get_model_version(name, version.version), where, created=True)


def _experiment(client: Any, where: tracking.Location, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        folder = None if where.artifacts is None else (where.artifacts / name).as_uri()
        return str(client.create_experiment(name, artifact_location=folder))
    if found.lifecycle_stage != "active":
        raise UsageError(f"the MLflow experiment {name!r} was deleted: restore it or change registry.experiment")
    return str(found.experiment_id)


def _log(client: Any, run_id: str, entry: Entry) -> None:
    from mlflow.entities import Dataset as Logged
    from mlflow.entities import DatasetInput, InputTag, Metric, Param

    now = int(client.get_run(run_id).info.start_time)
    params = [Param(key[:250], str(value)[:6000]) for key, value in flatten(entry.params)]
    metrics = [Metric(key, value, now, 0) for key, value in safe_metrics(entry.metrics).items()]
    for row in entry.curve:
        step = int(row.get("step", row.get("epoch", 0)))
        metrics += [
            Metric(f"curve/{safe_name(k)}", float(v), now, step)
            for k, v in row.items()
            if k not in ("step", "epoch") and isfinite(float(v))
        ]
    for start in range(0, len(params), 100):
        client.log_batch(run_id, params=params[start : start + 100])
    for start in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics=metrics[start : start + 1000])
    client.log_inputs(
        run_id,
        [
            DatasetInput(
                Logged(
                    name=d.name,
                    digest=d.digest[:36],
                    source_type="local",
                    source=json.dumps({"uri": d.path}),
                    profile=json.dumps({"num_rows": d.rows}),
                ),
                [InputTag("mlflow.data.context", d.context), InputTag(f"digest.{d.kind}", d.digest)],
            )
            for d in entry.datasets
        ],
    )
    for target, path in entry.artifacts.items():
        if path.is_dir():
            client.log_artifacts(run_id, str(path), target)
        elif path.is_file():
            client.log_artifact(run_id, str(path), target or None)
    for target, text in entry.texts.items():
        client.log_text(run_id, text, target)


def _log_model(client: Any, run_id: str, name: str, tags: Mapping[str, str], entry: Entry) -> Any:
    """Log the models-from-code pyfunc and make a version of it whose tags exist from its first moment on."""
    import mlflow
    import pandas as pd
    from mlflow.exceptions import MlflowException
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    signature = ModelSignature(
        inputs=Schema([ColSpec("string", "history"), ColSpec("string", "user", required=False)]),
        outputs=Schema([ColSpec("string", "items"), ColSpec("string", "scores")]),
        params=ParamSchema([ParamSpec("k", "long", 10)]),
    )
    with tempfile.TemporaryDirectory() as folder:
        public = Path(folder) / "bundle"
        public.mkdir()
        for part in ("model", "catalogue"):  # users/ holds personal data and stays at home
            shutil.copytree(entry.bundle / part, public / part)
        for part in ("bundle.json", "train_pairs.safetensors"):
            shutil.copy(entry.bundle / part, public / part)
        with mlflow.start_run(run_id=run_id):
            info = mlflow.pyfunc.log_model(
                name="recommender",
                python_model=str(Path(__file__).with_name("pyfunc_model.py")),
                artifacts={"bundle": str(public)},
                signature=signature,
                pip_requirements=requirements(),
                input_example=pd.DataFrame({"history": [entry.example]}),
            )
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return client.create_model_version(
        name, source=info.model_uri, run_id=run_id, tags=dict(tags), model_id=info.model_id
    )


def requirements() -> list[str]:
    """The short pinned list of what answering needs; fusionrec itself is installed from the project."""
    from importlib.metadata import version

    return [f"{package}=={version(package).partition('+')[0]}" for package in _REQUIREMENTS]


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings and lists as dotted keys; an empty one is kept as its text."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    if not items and prefix:
        yield prefix, value
    for key, inner in items:
        yield from flatten(inner, f"{prefix}.{safe_name(str(key))}" if prefix else safe_name(str(key)))


def safe_name(name: str) -> str:
    """A name that MLflow takes: ``ndcg@20`` -> ``ndcg_at_20``; anything else outside [A-Za-z0-9_-.] becomes _."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name.replace("@", "_at_")).strip(".")[:80] or "_"


def safe_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Nested metrics as ``model/slice/metric``; what is no finite number is left out, equal names are told apart."""
    out: dict[str, float] = {}

    def walk(value: Any, path: tuple[str, ...]) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                walk(inner, (*path, str(key)))
        elif isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
            key = "/".join(safe_name(part) for part in path)
            if key in out:
                key += "_" + sha256("\0".join(path).encode("utf-8", "surrogatepass")).hexdigest()[:6]
            out[key] = float(value)

    walk(metrics, ())
    return out


def git_commit(project: Path) -> str:
    """The commit of the project, "unknown" outside git."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607  (whichever git the user has)
            cwd=project,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,  # noqa: S607
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
