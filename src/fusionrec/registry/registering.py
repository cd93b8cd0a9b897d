"""Making a version in MLflow out of a bundle, once for each digest.

The registry is a ledger, not a gate: what protects is the digest that every reader checks and the signed verdict.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from fusionrec.errors import UsageError
from fusionrec.registry import tracking
from fusionrec.registry.bundle import read_bundle_json, shared, verify_bundle
from fusionrec.registry.mlflow_store import CHALLENGER, Registered, get, seen
from fusionrec.registry.recording import Entry, log_run

_REQUIREMENTS = ("mlflow", "numpy", "pandas", "polars", "pydantic", "safetensors", "scipy", "torch")
HOW_TO_APPROVE = (
    "To approve a version: give it the alias **champion** (on this page, or with `fusionrec promote`). Only a version "
    "whose tag `gate` says *passed* keeps it: `fusionrec guard` (part of `make up`) checks each move against the "
    "signed verdict within seconds, puts the alias back where it was if the version has not passed, and says why in "
    "the version's tags `gate_reason` and `champion_event`. Going back to a version that was champion before is always "
    "allowed."
)


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


def _find(client: Any, where: tracking.Location, name: str, digest: str) -> Registered | None:
    """The newest usable version with this digest; one whose local artifacts are gone does not count."""
    versions = client.search_model_versions(f"name = '{name}' and tags.bundle_digest = '{digest}'")
    for version in sorted(versions, key=lambda v: -int(v.version)):
        uri = client.get_model_version_download_uri(name, version.version)
        folder = unquote(urlsplit(uri).path) if uri.startswith("file:") else uri
        gone = folder.startswith("/") and not Path(folder, "MLmodel").is_file()
        if version.status == "READY" and not gone:
            return get(client, where, name, int(version.version), None)
    return None


def _create(
    client: Any, where: tracking.Location, name: str, experiment: str, about: Mapping[str, Any], entry: Entry
) -> Registered:
    from mlflow.entities import RunStatus

    verify_bundle(entry.bundle, about)
    experiment_id = experiment_of(client, where, experiment)
    digests = {"bundle_digest": about["bundle"]} | {f"{part}_digest": about[part] for part in shared(about)}
    tags = {**entry.tags, **digests}
    for left in client.search_runs([experiment_id], f"tags.bundle_digest = '{about['bundle']}' and status = 'RUNNING'"):
        client.set_terminated(left.info.run_id, RunStatus.to_string(RunStatus.KILLED))  # of a registration that died
    run = client.create_run(experiment_id, tags=tags, run_name=f"{about['bundle'][:12]}")
    run_id = run.info.run_id
    try:
        log_run(client, run_id, entry)
        version = _log_model(client, run_id, name, tags, entry)
        client.set_registered_model_alias(name, CHALLENGER, version.version)
    except Exception as error:
        if tracking.explain(error, where) is None:  # a service that is gone cannot be told
            client.set_terminated(run_id, RunStatus.to_string(RunStatus.FAILED))
        raise
    client.set_terminated(run_id)
    return seen(client.get_model_version(name, version.version), where, created=True)


def experiment_of(client: Any, where: tracking.Location, name: str) -> str:
    """The id of an experiment, made where it is not there. Raises UsageError where it was deleted."""
    found = client.get_experiment_by_name(name)
    if found is None:
        folder = None if where.artifacts is None else (where.artifacts / name).as_uri()
        return str(client.create_experiment(name, artifact_location=folder))
    if found.lifecycle_stage != "active":
        raise UsageError(f"the MLflow experiment {name!r} was deleted: restore it or change registry.experiment")
    return str(found.experiment_id)


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
        for part in shared(read_bundle_json(entry.bundle)):  # users/ holds personal data and stays at home
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
        client.create_registered_model(name, description=HOW_TO_APPROVE)
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
