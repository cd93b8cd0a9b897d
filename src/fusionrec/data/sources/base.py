"""The source contract: where raw tables and media come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionrec.types import Spec

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class RawTables:
    """Raw tables under canonical column names, values as read; ``media_root`` is what media paths are relative to."""

    items: pl.DataFrame
    interactions: pl.DataFrame
    users: pl.DataFrame | None
    queries: pl.DataFrame | None
    media_root: Path


class Source(ABC):
    """Reads a catalogue and its log."""

    @abstractmethod
    def read(self) -> RawTables:
        """Raises DataRejected naming file, column, what was expected and what was found."""


class SourceSpec(Spec):
    """Base of the ``source`` section of params.yaml."""

    kind: Any
    root: str
    """Where the catalogue lies; dvc.yaml makes ingest depend on it."""

    def build(self, project: Path) -> Source:
        """``project``: what a relative ``root`` is relative to."""
        raise NotImplementedError

    def media_root(self, project: Path) -> Path:
        """The folder that the media paths of the tables are relative to."""
        raise NotImplementedError
