"""The pipeline as data: what each stage is called, reads and writes.

``dvc.yaml`` says the same to DVC, with the code files added; a test holds the two together. Stage modules are
imported only when they run, so that reading this table costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Stage:
    """One stage. ``{modality}`` and ``{root}`` in params, deps and outs stand for the modality and ``source.root``.

    ``params`` are sections of params.yaml, ``deps`` and ``outs`` paths in the project. ``per_modality`` stages run
    once for each
    entry of ``modalities`` and are addressed ``name@modality``.
    """

    name: str
    params: tuple[str, ...]
    deps: tuple[str, ...]
    outs: tuple[str, ...]
    per_modality: bool = False

    def function(self) -> Callable[..., Any]:
        """``run(params, paths) -> Report`` of ``fusionrec/stages/<name>.py``; imports it."""
        return import_module(f"fusionrec.stages.{self.name}").run


_SPLITS = tuple(f"data/splits/{name}" for name in ("items.parquet", "train.parquet", "valid.parquet", "test.parquet"))
_SHOWN = tuple(f"data/splits/{name}.parquet" for name in ("shown_train", "shown_valid", "shown_test", "users"))
_ROWS = ("data/tables", "data/gate/quarantine.parquet")

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("ingest", ("source",), ("{root}",), ("data/tables",)),
        Stage("validate", ("gate",), ("data/tables",), ("data/gate",)),
        Stage("split", ("positives", "split"), _ROWS, (*_SPLITS, *_SHOWN, "data/splits/summary.json")),
        Stage("learn", ("modalities",), (*_SPLITS[:3], "data/tables/items", _ROWS[1]), ("data/encoders",)),
        Stage(
            "embed", ("modalities.{modality}",), ("data/tables/items", _ROWS[1], "data/encoders/{modality}"),
            ("data/embeddings/{modality}",), per_modality=True,
        ),
        Stage("words", ("modalities", "rank"), (*_ROWS, "data/encoders"), ("data/words",)),
        Stage("train", ("train", "modalities"), (*_SPLITS[:3], "data/embeddings"), ("data/model", "data/baselines")),
        Stage("rank", ("rank", "train.fusion", "modalities"), (
            *_SPLITS[:3], *_SHOWN[:2], _SHOWN[3], "data/embeddings", "data/words", "data/model",
        ), ("data/rankers",)),
        Stage("evaluate", ("evaluate", "modalities"), (
            *_SPLITS, _SHOWN[0], *_SHOWN[2:], "data/embeddings", "data/words", "data/model", "data/baselines",
            "data/rankers", "data/tables/items",
        ), ("data/evaluation",)),
        Stage("bundle", ("modalities",), (
            "data/model", "data/rankers", *_SPLITS, _SHOWN[3], "data/encoders", "data/embeddings", "data/tables/items",
            "data/evaluation/metrics.json",
        ), ("data/bundle",)),
    )
}  # fmt: skip


def split_address(address: str) -> tuple[str, str | None]:
    """``embed@text`` -> ("embed", "text"); ``train`` -> ("train", None)."""
    name, _, modality = address.partition("@")
    return name, modality or None


def addresses(modalities: list[str]) -> list[str]:
    """Every stage address of a catalogue with these modalities, in pipeline order."""
    return [
        address
        for stage in STAGES.values()
        for address in ([f"{stage.name}@{m}" for m in sorted(modalities)] if stage.per_modality else [stage.name])
    ]
