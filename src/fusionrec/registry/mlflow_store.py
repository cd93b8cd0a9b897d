"""Versions in MLflow: finding them, fetching their bundles, their tags, descriptions and aliases."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusionrec.errors import IntegrityError, Unavailable
from fusionrec.registry import tracking

CHALLENGER, CHAMPION = "challenger", "champion"


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


def load() -> None:
    """Import what the other functions import when they are first called."""
    import mlflow.artifacts
    import mlflow.store.artifact.models_artifact_repo  # noqa: F401


def find(home: Path, name: str, *, version: int | None = None, alias: str | None = None) -> Registered | None:
    """The version with this number or alias, None where there is none."""
    with tracking.client(home) as (client, where):
        return get(client, where, name, version, alias)


def versions(home: Path, name: str) -> list[Registered]:
    """Every version of a model, oldest first; [] where there is no such model. Without their aliases."""
    with tracking.client(home) as (client, where):
        found: list[Registered] = []
        token = None
        while True:
            page = client.search_model_versions(f"name = '{name}'", max_results=200, page_token=token)
            found += [seen(version, where) for version in page]
            token = page.token
            if not token:
                return sorted(found, key=lambda v: v.version)


def download(home: Path, registered: Registered, target: Path) -> Path:
    """Fetch the bundle of a version into ``target``; returns its folder. Verify it with ``load_bundle``."""
    folder = _fetch(home, registered, "bundle", target)
    found = folder if (folder / "bundle.json").exists() else folder / "artifacts" / "bundle"
    if not (found / "bundle.json").exists():
        raise IntegrityError(f"version {registered.version} of {registered.name} has no bundle.json; it cannot be used")
    return found


def download_about(home: Path, registered: Registered, target: Path) -> Path:
    """Fetch bundle.json alone, which names the digests of the rest, into ``target``; returns the folder it lies in."""
    found = _fetch(home, registered, "bundle/bundle.json", target)
    return found.parent if found.is_file() else found


def _fetch(home: Path, registered: Registered, path: str, target: Path) -> Path:
    """Download ``artifacts/<path>`` of a version.

    Raises IntegrityError where it is not there, Unavailable with the cause where it could not be fetched: a version is
    not to blame for a full disk.
    """
    from mlflow.exceptions import MlflowException

    with tracking.client(home) as (_, where):
        import mlflow

        try:
            uri = f"models:/{registered.name}/{registered.version}/artifacts/{path}"
            return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(target)))
        except (MlflowException, OSError) as error:
            if tracking.explain(error, where) is not None and not isinstance(error, FileNotFoundError):
                raise
            if _absent(error):
                raise IntegrityError(
                    f"version {registered.version} of {registered.name} has no bundle in its artifacts "
                    f"({str(error).splitlines()[0][:160]}); it cannot be used"
                ) from None
            raise Unavailable(
                f"the bundle of version {registered.version} of {registered.name} could not be fetched into {target}: "
                f"{' '.join(str(error).split())}{_room(error, target)}\nnothing is lost or changed: mend the cause (a "
                "full disk? set TMPDIR to a folder with room), then repeat"
            ) from None


def _absent(error: Exception) -> bool:
    """Whether a failed download says that the store has no such artifact. MLflow joins what failed about each file
    into one text; where this machine refused one of them, the store is not asked to account for the others."""
    text = str(error)
    code = getattr(error, "error_code", "")
    return "[Errno" not in text and (code == "RESOURCE_DOES_NOT_EXIST" or "404 Client Error" in text)


def _room(error: Exception, folder: Path) -> str:
    """For a full disk: how many bytes are free."""
    if not any(f"[Errno {n}]" in str(error) for n in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)):
        return ""
    there = next(f for f in (folder, *folder.parents) if f.exists())
    return f" ({folder}: {shutil.disk_usage(there).free} bytes free)"


def set_tags(home: Path, registered: Registered, tags: Mapping[str, str]) -> None:
    """Write tags on a version."""
    with tracking.client(home) as (client, _):
        for key, value in tags.items():
            client.set_model_version_tag(registered.name, str(registered.version), key, value)


def description(home: Path, registered: Registered) -> str:
    """The description that MLflow's page of the version shows now; "" without one."""
    with tracking.client(home) as (client, _):
        return str(client.get_model_version(registered.name, str(registered.version)).description or "")


def describe(home: Path, registered: Registered, markdown: str) -> None:
    """Write the description that MLflow's page of the version shows."""
    with tracking.client(home) as (client, _):
        client.update_model_version(registered.name, str(registered.version), markdown)


def read_file(home: Path, registered: Registered, path: str) -> bytes | None:
    """A file of the version's run; None where there is none. Anyone who reaches MLflow could have written it."""
    from mlflow.exceptions import MlflowException

    with tracking.client(home) as (client, where), tempfile.TemporaryDirectory(prefix="fusionrec-") as folder:
        try:
            return Path(client.download_artifacts(registered.run_id, path, folder)).read_bytes()
        except (MlflowException, OSError) as error:
            if tracking.explain(error, where) is not None and not isinstance(error, FileNotFoundError):
                raise
            return None


def write_file(home: Path, registered: Registered, path: str, text: str) -> None:
    """Add a file to the version's run, or replace it."""
    with tracking.client(home) as (client, _):
        client.log_text(registered.run_id, text, path)


def pages(home: Path, registered: Registered, files: Mapping[str, str]) -> dict[str, str]:
    """Where MLflow's pages show files of the version's run, relative to the server's address: text -> address.

    ``files``: text -> file; those that the run does not have are left out.
    """
    with tracking.client(home) as (client, _):
        start = f"#/{_run_page(client, registered)}/artifacts/"
        held = {file.path for file in client.list_artifacts(registered.run_id)}
    return {text: start + file for text, file in files.items() if file in held}


def run_page(home: Path, registered: Registered) -> str:
    """Where MLflow's pages show the version's run: an address on a tracking server, else "experiments/ID/runs/ID"; ""
    where the run was deleted."""
    from mlflow.exceptions import MlflowException

    with tracking.client(home) as (client, where):
        try:
            page = _run_page(client, registered)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return ""
        return f"{where.shown}/#/{page}" if where.is_server else page


def _run_page(client: Any, registered: Registered) -> str:
    return f"experiments/{client.get_run(registered.run_id).info.experiment_id}/runs/{registered.run_id}"


def set_alias(home: Path, name: str, alias: str, version: int | None) -> None:
    """Move an alias to a version; None takes it away."""
    with tracking.client(home) as (client, _):
        if version is None:
            client.delete_registered_model_alias(name, alias)
        else:
            client.set_registered_model_alias(name, alias, str(version))


def get(client: Any, where: tracking.Location, name: str, version: int | None, alias: str | None) -> Registered | None:
    """As :func:`find`, with an open client."""
    from mlflow.exceptions import MlflowException

    try:
        if alias is not None:
            return seen(client.get_model_version_by_alias(name, alias), where)
        return seen(client.get_model_version(name, str(version)), where)
    except MlflowException as error:
        if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            return None
        raise


def seen(version: Any, where: tracking.Location, created: bool = False) -> Registered:
    """MLflow's entity as ours."""
    link = (
        f"{where.shown}/#/models/{version.name}/versions/{version.version}"
        if where.is_server
        else f"models:/{version.name}/{version.version}"
    )
    return Registered(
        version.name, int(version.version), version.run_id, created, link, dict(version.tags), tuple(version.aliases)
    )
