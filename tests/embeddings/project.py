"""A real project of short texts, as ingest and validate leave it, and `fusionrec run embed@text` in it."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from fusionrec.data import schema
from fusionrec.data.files import to_json
from fusionrec.paths import Paths
from fusionrec.types import item_order

WORDS = "oak lamp vase red bowl old small glass table chair blue iron".split()
PARAMS: dict[str, Any] = {
    "source": {"kind": "folder", "root": "raw"},
    "split": {"kind": "global_time", "valid_from": 71, "test_from": 81},
    "train": {"retriever": {"kind": "popularity"}, "fusion": {"kind": "concat"}},
}


class Project:
    """``encoder``: that of the one modality, text."""

    def __init__(self, folder: Path, texts: int, encoder: str = "minilm") -> None:
        self.paths = Paths(folder, folder / ".fusionrec")
        for made in (folder / "raw", self.paths.tables / "items", self.paths.gate, self.paths.splits):
            made.mkdir(parents=True, exist_ok=True)
        draw = random.Random(44)  # cut into shards of similar sizes
        titles = [f"{' '.join(draw.choices(WORDS, k=draw.randint(1, 3)))} {n}" for n in range(texts)]
        ids = [f"i{n}" for n in range(texts)]
        table = pl.DataFrame({"item_id": ids, "title": titles})
        table.write_parquet(self.paths.tables / "items" / "00-0000000000000000.parquet")
        (self.paths.tables / "ledger.json").write_bytes(to_json({}))
        schema.quarantine().write_parquet(self.paths.gate / "quarantine.parquet")
        pl.DataFrame({"item_id": item_order(ids)}).write_parquet(self.paths.splits / "items.parquet")
        self.params(encoder)
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("FUSIONREC_", "RAY_"))}

    def params(self, encoder: str, **sections: Any) -> None:
        text = {"kind": "text", "encoder": {"kind": encoder}}
        whole = {**PARAMS, "modalities": {"text": text}, **sections}
        (self.paths.project / "params.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")

    def start(self, **environment: str) -> subprocess.Popen[str]:
        """In a session of its own, so that its whole group can be killed."""
        return subprocess.Popen(
            [sys.executable, "-m", "fusionrec", "run", "embed@text"],
            cwd=self.paths.project,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, code: int = 0, **environment: str) -> str:
        """What a whole run says; asserts its exit code."""
        process = self.start(**environment)
        out, error = process.communicate(timeout=200)
        assert process.returncode == code, f"ended with {process.returncode}, expected {code}:\n{(out + error)[-3000:]}"
        return out + error

    def files(self) -> dict[str, str]:
        """sha256 of every file of data/embeddings, by its relative path."""
        root = self.paths.embeddings
        found = sorted(f for f in root.rglob("*") if f.is_file())
        return {str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest() for f in found}

    def shards(self) -> list[Path]:
        """The manifests of the store."""
        return sorted(self.paths.store.glob("*/*.json"))
