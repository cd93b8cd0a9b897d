"""A run with changed parameters: its own workspace, the main one's cache, store and registry.

The workspace is a folder under ``.fusionrec/isolated/<run id>`` with its own params.yaml and dvc.lock; DVC's cache
and the code
are the main project's, and raw data inside the project is linked at the same relative place, so what the
parameters do not touch is up to date there. Afterwards only params.yaml and dvc.lock remain, under
``.fusionrec/runs/<run id>``.
"""

from __future__ import annotations

import copy
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from fusionrec.errors import ConfigError, UsageError
from fusionrec.paths import Paths
from fusionrec.stages.process import private_home

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
RUN = "FUSIONREC_RUN"  # names the isolated run to its stages, so that their reports stay apart
FINISHED = "finished"
"""The file that says so of a kept run."""
_COPIED = ("dvc.yaml", "dvc.lock", "requirements.lock", ".dvcignore")


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """``["train.seed=3"]`` -> ``{"train.seed": 3}``; values are YAML scalars, lists or mappings.

    Raises ConfigError for a pair without ``=``, for a key that is no dotted name and for a value that is not YAML.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not sign or not re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*", key.strip()):
            raise ConfigError(f"set: expected key=value with a dotted key such as train.seed=3, found {pair[:80]!r}")
        try:
            found[key.strip()] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"set: the value of {key.strip()} is not YAML: {str(error).splitlines()[0]}") from None
    return found


def resolved(params_file: Path, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The raw mapping of a params file with the overrides set, validated; nothing is written.

    Raises ConfigError with every problem.
    """
    from fusionrec import config

    return with_overrides(config.read(params_file, params_file.name), overrides)


def with_overrides(raw: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``raw`` with dotted keys set, validated as a whole."""
    from fusionrec import config

    made = copy.deepcopy(dict(raw))
    for key, value in overrides.items():
        config.set_key(made, key, value)
    config.parse(made, for_dvc=True)
    return made


def write_params(path: Path, raw: Mapping[str, Any]) -> None:
    """Write params.yaml atomically, sections in the order given."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        yaml.safe_dump(dict(raw), file, sort_keys=False, allow_unicode=True)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


@contextmanager
def workspace(main: Paths, raw: Mapping[str, Any], run_id: str) -> Iterator[Paths]:
    """Make the workspace, check out what its lock file knows, and on the way out keep params.yaml and dvc.lock only.

    What is kept counts as finished where the block ends without an exception."""
    if not RUN_ID.fullmatch(run_id):
        raise UsageError(f"a run id is letters, digits and -, found {run_id[:80]!r}")
    folder = private_home(main.home) / "isolated" / run_id
    folder.mkdir(mode=0o700, parents=True)
    finished = False
    try:
        _fill(main, folder, raw)
        _checkout(folder)
        yield Paths(folder, main.home)
        finished = True
    finally:
        try:
            _keep(folder, main.home / "runs" / run_id, finished)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _fill(main: Paths, folder: Path, raw: Mapping[str, Any]) -> None:
    for name in _COPIED:
        if (main.project / name).is_file():
            shutil.copyfile(main.project / name, folder / name)
    if (main.project / "src").is_dir():
        (folder / "src").symlink_to(main.project / "src", target_is_directory=True)
    (folder / "data" / "embeddings").mkdir(parents=True)
    if (main.embeddings / ".gitkeep").is_file():
        shutil.copyfile(main.embeddings / ".gitkeep", folder / "data" / "embeddings" / ".gitkeep")
    write_params(folder / "params.yaml", _with_root(main, folder, raw))
    _dvc_config(main, folder)


def _with_root(main: Paths, folder: Path, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Link raw data inside the project at the same relative place; make any other relative root absolute."""
    root = raw.get("source", {}).get("root")
    if not isinstance(root, str) or Path(root).is_absolute():
        return dict(raw)
    target = (main.project / root).resolve()
    link = folder / root
    if ".." in Path(root).parts or not target.is_dir() or link.exists():
        return {**raw, "source": {**raw["source"], "root": str(target)}}
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target, target_is_directory=True)
    for beside in target.parent.iterdir():  # what lies beside the catalogue (the demo's ceiling), but not its .dvc file
        if beside.is_file() and beside.suffix != ".dvc" and not (link.parent / beside.name).exists():
            (link.parent / beside.name).symlink_to(beside)
    return dict(raw)


def _dvc_config(main: Paths, folder: Path) -> None:
    """The main configuration, its cache by absolute path, and no git: the folder is ignored by the repository around
    it."""
    from dvc.repo import Repo

    repo = Repo(str(main.project))
    try:
        cache = repo.cache.local_cache_dir
    finally:
        repo.close()
    (folder / ".dvc").mkdir()
    source = main.project / ".dvc" / "config"
    if source.is_file():
        shutil.copyfile(source, folder / ".dvc" / "config")
    (folder / ".dvc" / "config.local").write_text(
        f"[core]\n    no_scm = true\n    analytics = false\n[cache]\n    dir = {cache}\n", encoding="utf-8"
    )


def _checkout(folder: Path) -> None:
    """Bring the outs of dvc.lock into the folder as far as the cache has them."""
    from dvc.exceptions import CheckoutError, DvcException
    from dvc.repo import Repo

    if not (folder / "dvc.lock").is_file():
        return
    try:
        with Repo(str(folder)) as repo:
            repo.checkout(force=True, allow_missing=True)
    except CheckoutError:
        return  # what could not be checked out is stale and runs again
    except DvcException as error:
        raise ConfigError(f"DVC cannot read the pipeline: {' '.join(str(error).split())}") from None


def _keep(folder: Path, kept: Path, finished: bool) -> None:
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("params.yaml", "dvc.lock"):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, kept / name)
    if finished:  # last: a run that is killed before has not
        (kept / FINISHED).touch()
