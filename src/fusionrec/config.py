"""params.yaml -> frozen, validated :class:`Params`; every problem in one message."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from fusionrec.data.sources import AnySource
from fusionrec.data.split import AnySplit
from fusionrec.embeddings.engines import AnyEngine
from fusionrec.embeddings.engines.local import Local
from fusionrec.errors import ConfigError
from fusionrec.fusion import AnyFusion
from fusionrec.modalities import AnyModality
from fusionrec.monitoring.spec import Monitor
from fusionrec.problems import explain, read_yaml
from fusionrec.ranking import AnyRanker
from fusionrec.ranking.dcn_v2 import DCNv2
from fusionrec.ranking.rerankers import AnyReranker
from fusionrec.recommenders import AnyRetriever
from fusionrec.types import Spec


class GateRules(Spec):
    """Rules of the validate stage. ``min_*`` are hard; the text and media rules are soft (rows are quarantined)."""

    min_items: PositiveInt = 10
    min_interactions: PositiveInt = 50
    max_quarantined: float = Field(
        0.5, gt=0, le=1, description="hard: at most this share of a table may be quarantined"
    )
    max_unknown_items: float = Field(
        0.2, ge=0, le=1, description="hard: share of interactions that name an unknown item"
    )
    max_text_chars: PositiveInt = 100_000
    future_slack_hours: float = Field(24.0, ge=0, description="timestamps later than now plus this are quarantined")
    earliest_year: int = Field(1990, description="timestamps before this year are quarantined")
    lowest_rating: float = Field(0.0, description="ratings below are quarantined")
    highest_rating: float = Field(10.0, description="ratings above are quarantined")

    @model_validator(mode="after")
    def _scale(self) -> GateRules:
        if self.lowest_rating >= self.highest_rating:
            raise ValueError(
                f"lowest_rating ({self.lowest_rating:g}) must be below highest_rating ({self.highest_rating:g})"
            )
        return self


class Positives(Spec):
    """Which events count as a positive, and from which value on (null: any value)."""

    events: dict[str, float | None] = Field(
        default={"click": None, "cart": None, "purchase": None, "like": None, "rating": 4.0}
    )
    k_core: NonNegativeInt = Field(0, description="iterative k-core computed on the training window only; 0: off")


def _one_of_each(section: Any) -> Any:
    """The section. Raises ValueError where two of its baselines are of one kind."""
    kinds = [spec.kind for spec in section.baselines]
    twice = sorted({kind for kind in kinds if kinds.count(kind) > 1})
    if twice:
        raise ValueError(
            f"baselines: found {', '.join(f'{kinds.count(kind)} of kind {kind!r}' for kind in twice)}, expected at "
            "most one of each kind (a baseline's files and its row in the table carry the name of its kind)"
        )
    return section


class Train(Spec):
    """The model that is trained, and what it is compared with."""

    retriever: AnyRetriever
    fusion: AnyFusion
    seed: NonNegativeInt = 0
    singles: bool = Field(True, description="also train the same model on each modality alone, for the table")
    baselines: tuple[AnyRetriever, ...] = ()

    @model_validator(mode="after")
    def _one_of_each_kind(self) -> Train:
        return _one_of_each(self)


class Rank(Spec):
    """The model that judges what was shown by what came of it (through ``train.fusion``), and what it is compared
    with."""

    ranker: AnyRanker = DCNv2()
    seed: NonNegativeInt = 0
    without: tuple[Literal["content", "ids", "words"], ...] = Field(
        ("content",),
        description="also train the same ranker without the items' content, ids, or the user's words, for the table",
    )
    singles: bool = Field(False, description="also train the same ranker on each modality alone, for the table")
    task: str | None = Field(None, description="what candidates are ordered by; null: what validation likes best")
    depth: PositiveInt = Field(200, description="candidates that retrieval hands to the ranker")
    baselines: tuple[AnyRanker, ...] = ()
    reranker: AnyReranker | None = Field(None, description="looks at the list as a whole at last; null: nobody does")

    @model_validator(mode="after")
    def _one_of_each_kind(self) -> Rank:
        return _one_of_each(self)


class Evaluate(Spec):
    """The protocol of the evaluate stage."""

    k: tuple[PositiveInt, ...] = (10, 20)
    main_metric: Literal["ndcg", "recall"] = "ndcg"
    main_k: PositiveInt = 20
    history: Literal["train", "train+valid"] = Field(
        "train+valid", description="what a user's history holds at test time; it is also what is masked"
    )
    bootstrap: PositiveInt = 2000
    seed: NonNegativeInt = 0
    samples: PositiveInt = Field(8, description="users whose recommendations are shown with pictures")

    @model_validator(mode="after")
    def _main_k(self) -> Evaluate:
        if self.main_k not in self.k:
            raise ValueError(f"main_k ({self.main_k}) must be one of k {list(self.k)}")
        return self


class Promotion(Spec):
    """The gate between challenger and champion."""

    alpha: float = Field(0.05, gt=0, lt=1, description="level of the one-sided paired test")
    min_pairs: PositiveInt = Field(500, description="fewer common test pairs: not comparable")
    slice_floor: float = Field(0.9, gt=0, le=1, description="each slice's mean must reach this share of the champion's")


class Registry(Spec):
    """Where models are registered."""

    name: str = Field("fusionrec", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    experiment: str = Field("fusionrec", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    promotion: Promotion = Promotion()


def _modality_name(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", name):
        raise ValueError("a modality's name is lower case letters, digits and _")
    return name


ModalityName = Annotated[str, AfterValidator(_modality_name)]


class Params(Spec):
    """The whole of params.yaml."""

    source: AnySource
    gate: GateRules = GateRules()
    positives: Positives = Positives()
    split: AnySplit
    modalities: dict[ModalityName, AnyModality] = Field(default={})
    embed: AnyEngine = Local()
    train: Train
    rank: Rank = Rank()
    evaluate: Evaluate = Evaluate()
    registry: Registry = Registry()
    monitor: Monitor = Monitor()


def load(path: Path, overrides: Mapping[str, Any] | None = None, *, whole: bool = False) -> Params:
    """Read and validate params.yaml; ``overrides`` maps dotted keys to values (``{"train.seed": 3}``). ``whole``: the
    pipeline shall run, so :data:`WRITTEN` must be there.

    Raises ConfigError with one line per problem: key, found, expected, alternatives.
    """
    raw = read(path, path.name)
    for key, value in (overrides or {}).items():
        set_key(raw, key, value)
    return parse(raw, path.name, for_dvc=True, whole=whole)


def read(path: Path, name: str) -> dict[str, Any]:
    """The raw mapping of a params file, not validated. Raises ConfigError that calls the file ``name``."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{name} not found in {path.parent}") from None
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} is not UTF-8: byte {error.start}") from None
    try:
        raw = read_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{name} is not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{name} must be a mapping of sections, found {type(raw).__name__}")
    return raw


def set_key(raw: dict[str, Any], dotted: str, value: Any) -> None:
    """Set ``a.b.c`` in nested mappings, making what is missing."""
    *parents, last = dotted.split(".")
    for part in parents:
        raw = raw.setdefault(part, {})
        if not isinstance(raw, dict):
            raise ConfigError(f"{dotted}: {part!r} is a value, not a section")
    raw[last] = value


def parse(raw: Mapping[str, Any], name: str = "params.yaml", *, for_dvc: bool = False, whole: bool = False) -> Params:
    """Validate a mapping; ``${VARIABLE}`` in strings is taken from the environment.

    ``for_dvc``: also encoders that have a default must be there; ``whole``: and all that dvc.yaml looks for there.
    """
    problems: list[str] = []
    expanded = _expand(raw, problems)
    try:
        params = Params.model_validate(expanded)
    except ValidationError as error:
        problems += explain(error, Params)
    else:
        problems += _unwritten(raw, params) if for_dvc else ()
        problems += _absent(raw) if whole else ()
    if problems:
        lines = "\n".join(f"  {line}" for line in problems)
        raise ConfigError(f"{name} has {len(problems)} problem(s):\n{lines}") from None
    return params


WRITTEN = {
    "gate": "{}",
    "positives": "{}",
    "modalities": "{}",
    "evaluate": "{}",
    "train.fusion.kind": "concat",
    "rank.ranker.kind": "dcn_v2",
}
"""What has a default and must be in params.yaml all the same, for dvc.yaml looks for it there; with that default."""


def _unwritten(raw: Mapping[str, Any], params: Params) -> Iterator[str]:
    """Encoders that params.yaml leaves to their default: dvc.yaml looks for their kinds in the file."""
    for name, modality in params.modalities.items():
        if "encoder" not in raw["modalities"][name]:
            kind = modality.encoder.kind
            yield f"modalities.{name}.encoder: required key is missing; write encoder: {{kind: {kind}}}"


def _absent(raw: Mapping[str, Any]) -> Iterator[str]:
    """Which of :data:`WRITTEN` are not in the file."""
    for key, default in WRITTEN.items():
        here: Any = raw
        for part in key.split("."):
            here = here.get(part) if isinstance(here, Mapping) else None
        if here is None:
            yield f"{key}: required key is missing; write {nested(key, default)}"


def nested(key: str, value: str) -> str:
    """``a.b``, ``v`` -> ``a: {b: v}``."""
    first, *rest = key.split(".")
    return f"{first}: {'{' + nested('.'.join(rest), value) + '}' if rest else value}"


def _expand(value: Any, missing: list[str], where: str = "") -> Any:
    if isinstance(value, Mapping):
        return {k: _expand(v, missing, f"{where}.{k}" if where else str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand(v, missing, f"{where}.{i}") for i, v in enumerate(value)]
    if isinstance(value, str):
        for variable in re.findall(r"\$\{(\w+)\}", value):
            if variable not in os.environ:
                missing.append(f"{where}: the environment variable {variable} is not set; set it to the folder to read")
            else:
                value = value.replace(f"${{{variable}}}", os.environ[variable])
    return value
