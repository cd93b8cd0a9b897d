"""Where things live in a project folder. Pure: making a Paths touches nothing on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fusionrec.errors import UsageError


@dataclass(frozen=True)
class Paths:
    """``project`` holds params.yaml and data/; ``home`` is the private state (store, keys, databases)."""

    project: Path
    home: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Paths:
        """The project at or above ``start`` (default: the working directory): the folder with params.yaml.

        ``FUSIONREC_HOME`` overrides the home, so that an isolated workspace shares the main one's state.
        Raises UsageError outside a project.
        """
        here = (start or Path.cwd()).resolve()
        for folder in (here, *here.parents):
            if (folder / "params.yaml").is_file():
                home = os.environ.get("FUSIONREC_HOME")
                return cls(folder, Path(home).resolve() if home else folder / ".fusionrec")
        raise UsageError(f"no params.yaml in {here} or above: run this inside a fusionrec project")

    @property
    def data(self) -> Path:
        return self.project / "data"

    @property
    def tables(self) -> Path:
        return self.data / "tables"

    @property
    def gate(self) -> Path:
        return self.data / "gate"

    @property
    def splits(self) -> Path:
        return self.data / "splits"

    @property
    def embeddings(self) -> Path:
        return self.data / "embeddings"

    @property
    def encoders(self) -> Path:
        return self.data / "encoders"

    @property
    def words(self) -> Path:
        return self.data / "words"

    @property
    def model(self) -> Path:
        return self.data / "model"

    @property
    def baselines(self) -> Path:
        return self.data / "baselines"

    @property
    def rankers(self) -> Path:
        return self.data / "rankers"

    @property
    def evaluation(self) -> Path:
        return self.data / "evaluation"

    @property
    def bundle(self) -> Path:
        return self.data / "bundle"

    @property
    def reports(self) -> Path:
        """Small JSON report of each stage's last run."""
        return self.home / "reports"

    @property
    def store(self) -> Path:
        return self.home / "store"

    @property
    def keys(self) -> Path:
        return self.home / "keys"
