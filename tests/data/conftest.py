"""A small catalogue on disk and the three data stages."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from fusionrec import config
from fusionrec.paths import Paths
from fusionrec.stages import ingest, split, validate

N_ITEMS, N_USERS, N_EVENTS, N_DAYS = 23, 7, 240, 17


def events(n: int = N_EVENTS, seed: int = 0) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [
        {
            "user_id": f"raw-user-{rng.randrange(N_USERS)}",
            "item_id": f"item-{rng.randrange(N_ITEMS)}",
            "event": rng.choice(("click", "purchase", "view")),
            "timestamp": f"2026-01-{1 + rng.randrange(N_DAYS):02d}T{rng.randrange(24):02d}:{rng.randrange(60):02d}:00Z",
            "position": rng.randrange(1, 9),
        }
        for _ in range(n)
    ]


def goods(n: int = N_ITEMS) -> list[dict[str, Any]]:
    return [
        {"item_id": f"item-{i}", "title": f"Thing {i}", "price": 1.5 * i, "colour": ("red", "blue")[i % 2]}
        for i in range(n)
    ]


@dataclass
class Project:
    """A project folder with the catalogue ``cat/``."""

    paths: Paths
    params: dict[str, Any]

    @property
    def root(self) -> Path:
        return self.paths.project / "cat"

    def put(self, table: str, rows: list[dict[str, Any]]) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        pl.DataFrame(rows, infer_schema_length=None).write_csv(self.root / f"{table}.csv")

    def text(self, table: str, text: str) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / f"{table}.csv").write_bytes(text.encode("utf-8", "surrogatepass"))

    def picture(self, name: str, size: tuple[int, int] = (12, 9)) -> None:
        (self.root / "images").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (200, 30, 90)).save(self.root / "images" / name, "JPEG")

    def load(self) -> config.Params:
        return config.parse(self.params)

    def ingest(self) -> Any:
        return ingest.run(self.load(), self.paths)

    def validate(self) -> Any:
        return validate.run(self.load(), self.paths)

    def split(self) -> Any:
        return split.run(self.load(), self.paths)

    def all(self) -> None:
        self.ingest()
        self.validate()
        self.split()

    def digests(self) -> dict[str, str]:
        """Relative name -> sha256 of every file under data/."""
        data = self.paths.data
        return {
            str(p.relative_to(data)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(data.rglob("*"))
            if p.is_file()
        }


def make(folder: Path) -> Project:
    params = {
        "source": {"kind": "folder", "root": "cat"},
        "gate": {"min_items": 1, "min_interactions": 1},
        "split": {"kind": "random_per_user"},
        "train": {"retriever": {"kind": "popularity"}, "fusion": {"kind": "concat"}},
    }
    folder.mkdir(parents=True, exist_ok=True)
    return Project(Paths(folder, folder / ".fusionrec"), params)


@pytest.fixture
def empty(tmp_path: Path) -> Project:
    return make(tmp_path / "project")


@pytest.fixture
def project(empty: Project) -> Project:
    empty.put("items", goods())
    empty.put("interactions", events())
    return empty


@pytest.fixture
def another(tmp_path: Path) -> Callable[[str], Project]:
    return lambda name: make(tmp_path / name)
