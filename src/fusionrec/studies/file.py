"""The sqlite file that searches are kept in: one process at a time, one study a name, never two kinds of values."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fusionrec.errors import Busy, ConfigError
from fusionrec.studies.space import digest

_ABOUT = "about"
_MEANING = {
    "spec": "another spec (its parameters were changed)",
    "space": "another search space",
    "data": "other data",
    "code": "other code (the models' or what judges them)",
    "settings": "another seed or pruning",
}


class AnotherSearch(ConfigError):
    """A file holds a search of this name that was made with something else."""


def forget(storage: Path) -> None:
    """Remove the file and with it its studies. Raises Busy where a process searches in it."""
    with exclusive(storage):
        for suffix in ("", "-journal", "-wal", "-shm"):
            storage.with_name(storage.name + suffix).unlink(missing_ok=True)


@contextmanager
def exclusive(storage: Path, what: str = "searches") -> Iterator[None]:
    """Hold the file's lock, which the kernel drops with its holder. Raises Busy, saying ``what`` the other one does."""
    storage.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FileLock(storage.with_name(storage.name + ".lock"), mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Busy(f"another process {what} in {storage.name}; wait for it or stop it") from None
    try:
        yield
    finally:
        lock.release()


def _connect(storage: Path) -> sqlite3.Connection:
    """A write-ahead log survives a kill like a journal does, without a wait for the disk at each of ten commits."""
    connection = sqlite3.connect(storage, timeout=30, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


@contextmanager
def opened(storage: Path, name: str, about: Mapping[str, str], prune: bool) -> Iterator[Any]:
    """The study ``name``, made where it is not there.

    Raises AnotherSearch where it was made with another ``about``, ConfigError where the file cannot be used.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rdb = None
    try:
        rdb = optuna.storages.RDBStorage(f"sqlite:///{storage}", engine_kwargs={"creator": partial(_connect, storage)})
        pruner = optuna.pruners.MedianPruner(n_warmup_steps=5) if prune else optuna.pruners.NopPruner()
        study = optuna.create_study(
            storage=rdb, study_name=name, direction="maximize", pruner=pruner, load_if_exists=True
        )
    except (SQLAlchemyError, sqlite3.Error, RuntimeError) as error:
        if rdb is not None:
            rdb.engine.dispose()
        why = str(error).splitlines()[0]
        raise ConfigError(
            f"the searches in {storage.name} cannot be read ({why}): move the file away; a new one is made"
        ) from None
    try:
        kept = study.user_attrs.get(_ABOUT)
        if kept is None:
            study.set_user_attr("id", digest([name, about, time.time_ns()])[:32])
            study.set_user_attr(_ABOUT, json.dumps(about))
        else:
            _refuse_another(name, storage, json.loads(kept), about)
        yield study
    finally:
        rdb.remove_session()
        rdb.engine.dispose()


def _refuse_another(name: str, storage: Path, kept: Mapping[str, str], about: Mapping[str, str]) -> None:
    differ = [meaning for key, meaning in _MEANING.items() if kept.get(key) != about.get(key)]
    if differ:
        raise AnotherSearch(
            f"the search {name!r} in {storage.name} was made with {' and '.join(differ)}: its values cannot be "
            "compared with new ones; start it anew, or put back what it was made with"
        )
