"""One small catalogue on disk and one full-size log without media, shared by the tests of this folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fusionrec.demo import behaviour, events, truth, world, write

SMALL: dict[str, Any] = {"n_items": 60, "n_users": 40}


@dataclass(frozen=True)
class Small:
    folder: Path
    truth: Path
    counts: dict[str, Any]


@dataclass(frozen=True)
class Full:
    world: world.World
    sessions: behaviour.Sessions
    log: pl.DataFrame
    queries: pl.DataFrame
    pairs: truth.Split


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    root = tmp_path_factory.mktemp("atelier")
    counts = write(root / "catalogue", root / "truth", workers=1, **SMALL)
    return Small(root / "catalogue", root / "truth", counts)


@pytest.fixture(scope="session")
def full() -> Full:
    hidden = world.build()
    sessions = behaviour.simulate(hidden)
    log, queries = events.tables(hidden, sessions)
    return Full(hidden, sessions, log, queries, truth.split(hidden, log))
