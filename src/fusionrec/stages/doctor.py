"""``fusionrec doctor``: looks for what would go wrong, or has gone unnoticed; changes nothing."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from packaging.version import Version

from fusionrec.errors import FusionrecError
from fusionrec.paths import Paths
from fusionrec.stages.lock import holder

ALL = ("versions", "private", "lock", "parameters", "media", "bundle", "leftovers")
LIGHT = tuple(name for name in ALL if name != "bundle")  # without MLflow, whose import takes seconds
_CAPS = {"fastapi": "0.151", "sqlalchemy": "2.1", "pandas": "3.1"}
_SECRET_KEY = re.compile(r"password|secret|token|credential|api_?key", re.IGNORECASE)
_USER_PART = re.compile(r"(\w+://)[^/@\s]+@")
_SHOWN = ("fusionrec", "dvc", "prefect", "mlflow", "torch", "transformers", "great-expectations", "polars")


@dataclass(frozen=True)
class Finding:
    """``level`` is ok, warn or fail; ``text`` says what was found and what to do."""

    level: str
    topic: str
    text: str


def examine(paths: Paths, checks: tuple[str, ...] = ALL) -> list[Finding]:
    """Every check, or those named; a check that cannot be made is itself a finding."""
    found: list[Finding] = []
    known = {c.__name__.strip("_"): c for c in (_versions, _private, _lock, _parameters, _media, _bundle, _leftovers)}
    for check in (known[name] for name in checks):
        try:
            found += check(paths)
        except FusionrecError as error:
            found.append(Finding("fail", check.__name__.strip("_"), str(error).splitlines()[0]))
    return found


def _versions(paths: Paths) -> Iterator[Finding]:
    texts = []
    for name in _SHOWN:
        try:
            texts.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            yield Finding("fail", "versions", f"{name} is not installed: run `make demo` or install requirements.lock")
    good = sys.version_info[:2] == (3, 11) and platform.machine() == "x86_64"
    yield Finding(
        "ok" if good else "warn",
        "versions",
        f"Python {platform.python_version()} on {platform.machine()}"
        f"{'' if good else ' (expected 3.11 on x86_64)'}; {', '.join(texts)}",
    )
    for name, cap in _CAPS.items():
        if Version(version(name)) >= Version(cap):
            yield Finding(
                "fail",
                "versions",
                f"{name} {version(name)} is too new, expected below {cap}: install requirements.lock",
            )


def _private(paths: Paths) -> Iterator[Finding]:
    mode = paths.home.stat().st_mode & 0o777 if paths.home.exists() else 0o700
    if mode & 0o077:
        yield Finding("fail", "privacy", f"{paths.home} has mode {mode:o}, expected 700: chmod 700 {paths.home}")
    if not (paths.project / ".dvc").is_dir():
        here = "`dvc init`" if (paths.project / ".git").exists() else "`dvc init --no-scm`"
        yield Finding("fail", "dvc", f"{paths.project} is no DVC repository: run {here} in it")
        return
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    given = os.environ.pop("DVC_SITE_CACHE_DIR", None)  # what a bare `dvc` of the user would see
    try:
        with Repo(str(paths.project)) as repo:
            folder = os.path.realpath(repo.site_cache_dir)
    except DvcException as error:
        said = " ".join(str(error).split())
        yield Finding("fail", "dvc", f"DVC cannot be used ({said}): mend .dvc/config or .dvc/config.local")
        return
    finally:
        if given is not None:
            os.environ["DVC_SITE_CACHE_DIR"] = given
    inside = folder.startswith(str(paths.home.resolve()) + os.sep)
    yield Finding(
        "ok" if inside else "warn",
        "privacy",
        "DVC's site cache is "
        + ("private" if inside else f"{folder}, outside {paths.home}: run any fusionrec command to set it"),
    )


def _lock(paths: Paths) -> Iterator[Finding]:
    found = holder(paths.home)
    if found is None:
        yield Finding("ok", "lock", "no run is active")
    else:
        yield Finding(
            "warn",
            "lock",
            f"{found.get('what', 'a run')} (pid {found.get('pid')}, since {found.get('started')}) holds the project",
        )


def _parameters(paths: Paths) -> Iterator[Finding]:
    from fusionrec import config
    from fusionrec.encoders.hub import no_download

    params = config.load(paths.project / "params.yaml")
    yield Finding("ok", "params", "params.yaml is valid")
    for name, modality in sorted(params.modalities.items()):
        if modality.encoder.learnt and not (paths.encoders / name / "manifest.json").is_file():
            yield Finding(
                "warn", "weights", f"{name}: {modality.encoder.kind} is not learnt yet: run `fusionrec repro`"
            )
            continue
        try:
            with no_download():
                print_ = modality.encoder.bound(paths.encoders / name).fingerprint()
            yield Finding("ok", "weights", f"{name}: {modality.encoder.kind} {print_[:12]}")
        except FusionrecError as error:
            yield Finding("fail", "weights", f"{name}: {str(error).splitlines()[0]}")
    root = paths.project / params.source.root
    if not root.is_dir():
        hint = ": run `fusionrec demo-data`" if params.source.root == "data/raw/atelier" else ""
        yield Finding("fail", "source", f"source.root {params.source.root} is not a folder{hint}")


def _media(paths: Paths) -> Iterator[Finding]:
    """Items whose picture, sound or clip is not used: set aside by the gate, or not encoded."""
    import json

    from polars.exceptions import PolarsError

    from fusionrec.embeddings import base
    from fusionrec.media.base import EXPECTED

    summary = paths.gate / "summary.json"
    if summary.is_file():
        try:
            cells = json.loads(summary.read_text(encoding="utf-8"))["codes"]["cells"].get("items", {})
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            yield Finding("fail", "media", "data/gate/summary.json is damaged: run `fusionrec run validate`")
        else:
            told = ", ".join(f"{code} {count}" for code, count in sorted(cells.items()) if code in EXPECTED)
            level = "warn" if told else "ok"
            yield Finding(level, "media", f"set aside by the gate: {told or 'nothing'}; see data/gate/quarantine.csv")
    for folder in sorted(paths.embeddings.glob("*/manifest.json")):
        name = folder.parent.name
        file = f"data/embeddings/{name}/failed.parquet"
        try:
            counts = base.failed(paths, name)
        except (OSError, PolarsError):
            yield Finding("fail", "media", f"{file} is damaged: run `fusionrec run embed@{name}`")
            continue
        if counts:
            told = ", ".join(f"{code} {count}" for code, count in counts.items())
            yield Finding("warn", "media", f"not encoded: {name}: {told}; see {file}")


def _bundle(paths: Paths) -> Iterator[Finding]:
    if not (paths.bundle / "bundle.json").is_file():
        yield Finding("warn", "bundle", "no bundle yet: run `fusionrec repro`")
        return
    from fusionrec import config
    from fusionrec.registry import guard, tracking
    from fusionrec.registry.bundle import read_bundle_json

    digest = read_bundle_json(paths.bundle)["bundle"]
    where = tracking.locate(paths.home)
    unregistered = Finding("warn", "bundle", f"bundle {digest[:12]} is not registered: run `fusionrec register`")
    if (
        where.uri == f"sqlite:///{paths.home / 'mlflow' / 'mlflow.db'}"
        and not (paths.home / "mlflow" / "mlflow.db").exists()
    ):
        yield unregistered
        return
    name = config.load(paths.project / "params.yaml").registry.name
    with tracking.client(paths.home) as (client, _):
        versions = client.search_model_versions(f"name = '{name}' and tags.bundle_digest = '{digest}'")
    if not versions:
        yield unregistered
    else:
        newest = max(versions, key=lambda v: int(v.version))
        said = f"gate: {newest.tags.get('gate', 'not judged: run `fusionrec register`')}"
        level = "ok" if newest.tags.get("gate") in ("passed", "refused") else "warn"
        yield Finding(level, "bundle", f"bundle {digest[:12]} is {name} version {newest.version} ({said})")
    decision = guard.inspect(paths.home, name)
    if decision.action in (guard.REFUSE, guard.RESTORE, guard.REPAIR):
        yield Finding("fail", "champion", f"{decision.reason}: run `fusionrec guard`, which puts the alias back")


def _leftovers(paths: Paths) -> Iterator[Finding]:
    folder = paths.home / "isolated"
    left = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    if left and holder(paths.home) is None:
        yield Finding("warn", "isolated", f"{len(left)} workspace(s) of killed runs: rm -r {folder}")


def without_secrets(value: Any) -> Any:
    """``value`` with the user part of every URL and every value under a secret-looking key replaced."""
    if isinstance(value, dict):
        return {
            key: "(hidden)" if _SECRET_KEY.search(str(key)) and inner is not None else without_secrets(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [without_secrets(inner) for inner in value]
    return _USER_PART.sub(r"\1(hidden)@", value) if isinstance(value, str) else value
