"""Bring params.yaml into the project: of a recipe (``use``) or of an isolated run (``adopt``)."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from fusionrec.errors import ConfigError, UsageError
from fusionrec.paths import Paths
from fusionrec.stages.isolated import FINISHED, RUN_ID, resolved, with_overrides, write_params
from fusionrec.stages.runner import prune_embeddings

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_HINTS = {
    "FUSIONREC_MOVIES": "items.csv, interactions.parquet, images/",
    "FUSIONREC_LOG": "items.csv, interactions.csv",
    "FUSIONREC_VECTORS": "items.csv, interactions.csv, vectors.parquet",
}


def recipes(project: Path) -> dict[str, Path]:
    """Name -> file of every recipe of the project."""
    return {path.stem: path for path in sorted((project / "recipes").glob("*.yaml"))}


def recipe_params(project: Path, name: str) -> dict[str, Any]:
    """The recipe's raw mapping with environment variables expanded to absolute paths, validated.

    Raises UsageError for an unknown name, ConfigError (with what to set) for an unset variable or a bad recipe.
    """
    from fusionrec import config

    found = recipes(project)
    if name not in found:
        near = get_close_matches(name, list(found), 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UsageError(f"no recipe {name!r}{hint}; recipes are {', '.join(found) or 'none'}")
    raw = config.read(found[name], f"recipes/{name}.yaml")
    source = raw.get("source")
    root = source.get("root") if isinstance(source, dict) else None
    for variable in _VARIABLE.findall(root) if isinstance(root, str) else ():
        if not os.environ.get(variable):
            holds = _HINTS.get(variable, "items and interactions")
            raise ConfigError(
                f"recipe {name}: the environment variable {variable} is not set; "
                f"export {variable}=/path/to/the/folder (it holds {holds})"
            )
    if isinstance(root, str) and _VARIABLE.search(root):  # DVC reads params.yaml too, and knows no variables
        raw["source"]["root"] = str(Path(_VARIABLE.sub(lambda m: os.environ[m[1]], root)).expanduser().resolve())
        if not Path(raw["source"]["root"]).is_dir():
            raise ConfigError(f"recipe {name}: source.root is {raw['source']['root']}, which is not a folder")
    config.parse(raw, f"recipes/{name}.yaml", for_dvc=True)
    return raw


def base_params(paths: Paths, recipe: str | None) -> dict[str, Any]:
    """The raw mapping that overrides change: the recipe's, else params.yaml's. Raises as :func:`recipe_params`."""
    return recipe_params(paths.project, recipe) if recipe else resolved(paths.project / "params.yaml", {})


def changed_params(paths: Paths, base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any] | None:
    """``base`` with dotted keys set, validated; None where that is what params.yaml says: nothing to isolate."""
    from fusionrec import config

    raw = with_overrides(base, overrides)
    try:
        return None if raw == config.read(paths.project / "params.yaml", "params.yaml") else raw
    except ConfigError:  # a file that nobody can read is no reason against running a recipe beside it
        return raw


def use(paths: Paths, name: str) -> dict[str, Any]:
    """Write the recipe to params.yaml, and forget the embeddings of modalities that it lacks; returns what was
    written."""
    raw = recipe_params(paths.project, name)
    write_params(paths.project / "params.yaml", raw)
    prune_embeddings(paths, set(raw.get("modalities") or {}))
    return raw


def adopt(paths: Paths, run: str) -> list[str]:
    """Make an isolated run the project's state: its params.yaml, its dvc.lock, its data from the cache.

    ``run`` is a run id or its beginning. Returns the names written. Raises UsageError for an unknown or
    ambiguous run, ConfigError where the run did not finish or the cache lacks its data.
    """
    kept = _find(paths, run)
    if not all((kept / name).is_file() for name in ("params.yaml", "dvc.lock", FINISHED)):
        raise ConfigError(f"run {kept.name} did not finish, so there is nothing to adopt: run it again")
    from dvc.exceptions import CheckoutError
    from dvc.repo import Repo

    from fusionrec import config

    names = ["params.yaml", "dvc.lock"]
    for name in names:
        temporary = paths.project / f".{name}.{os.getpid()}.tmp"
        shutil.copyfile(kept / name, temporary)
        os.replace(temporary, paths.project / name)
    raw = config.read(paths.project / "params.yaml", "params.yaml")
    prune_embeddings(paths, set(raw.get("modalities") or {}))
    try:
        with Repo(str(paths.project), _wait_for_lock=True) as repo:
            repo.checkout(force=True)
    except CheckoutError as error:
        raise ConfigError(
            f"run {kept.name}: the cache lacks {error.target_infos}; `fusionrec repro` makes it again"
        ) from None
    return names


def _find(paths: Paths, run: str) -> Path:
    if not RUN_ID.fullmatch(run):
        raise UsageError(f"a run id is letters, digits and -, found {run[:80]!r}")
    folder = paths.home / "runs"
    all_runs = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    found = [name for name in all_runs if name.startswith(run)]
    if len(found) == 1 or run in found:
        return folder / (run if run in found else found[0])
    if found:
        raise UsageError(f"{run!r} begins {len(found)} runs: {', '.join(found[:5])}")
    raise UsageError(f"no run {run!r}; runs are {', '.join(all_runs[-5:]) or 'none'}")
