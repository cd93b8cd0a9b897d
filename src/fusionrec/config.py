"""params.yaml -> frozen, validated :class:`Params`; every problem in one message."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from fusionrec.data.sources import AnySource
from fusionrec.data.split import AnySplit
from fusionrec.errors import ConfigError
from fusionrec.fusion import AnyFusion
from fusionrec.modalities import AnyModality
from fusionrec.recommenders import AnyRetriever
from fusionrec.types import Spec


class GateRules(Spec):
    """Rules of the validate stage. ``min_*`` are hard; the text and media rules are soft (rows are quarantined)."""

    min_items: PositiveInt = 10
    min_interactions: PositiveInt = 50
    max_quarantined: float = Field(0.5, gt=0, le=1, description="hard: at most this share of a table may be quarantined")
    max_unknown_items: float = Field(0.2, ge=0, le=1, description="hard: share of interactions that name an unknown item")
    max_text_chars: PositiveInt = 100_000
    future_slack_hours: float = Field(24.0, ge=0, description="timestamps later than now plus this are quarantined")
    earliest_year: int = Field(1990, description="timestamps before this year are quarantined")


class Positives(Spec):
    """Which events count as a positive, and from which value on (null: any value)."""

    events: dict[str, float | None] = Field(
        default={"click": None, "cart": None, "purchase": None, "like": None, "rating": 4.0}
    )
    k_core: NonNegativeInt = Field(0, description="iterative k-core computed on the training window only; 0: off")


class Train(Spec):
    """The model that is trained, and what it is compared with."""

    retriever: AnyRetriever
    fusion: AnyFusion
    seed: NonNegativeInt = 0
    singles: bool = Field(True, description="also train the same model on each modality alone, for the table")
    baselines: tuple[AnyRetriever, ...] = ()


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
    slice_floor: float = Field(
        0.9, gt=0, le=1, description="each slice's mean must reach this share of the champion's"
    )


class Registry(Spec):
    """Where models are registered."""

    name: str = Field("fusionrec", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    experiment: str = Field("fusionrec", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    promotion: Promotion = Promotion()


class Params(Spec):
    """The whole of params.yaml."""

    source: AnySource
    gate: GateRules = GateRules()
    positives: Positives = Positives()
    split: AnySplit
    modalities: dict[str, AnyModality] = Field(default={})
    train: Train
    evaluate: Evaluate = Evaluate()
    registry: Registry = Registry()

    @model_validator(mode="after")
    def _names(self) -> Params:
        for name in self.modalities:
            if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", name):
                raise ValueError(f"modalities.{name}: a modality's name is lower case letters, digits and _")
        return self


def load(path: Path, overrides: Mapping[str, Any] | None = None) -> Params:
    """Read and validate params.yaml; ``overrides`` maps dotted keys to values (``{"train.seed": 3}``).

    Raises ConfigError with one line per problem: key, found, expected, alternatives.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path.name} not found in {path.parent}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} is not valid YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path.name} must be a mapping of sections, found {type(raw).__name__}")
    for key, value in (overrides or {}).items():
        set_key(raw, key, value)
    return parse(raw, path.name)


def set_key(raw: dict[str, Any], dotted: str, value: Any) -> None:
    """Set ``a.b.c`` in nested mappings, making what is missing."""
    *parents, last = dotted.split(".")
    for part in parents:
        raw = raw.setdefault(part, {})
        if not isinstance(raw, dict):
            raise ConfigError(f"{dotted}: {part!r} is a value, not a section")
    raw[last] = value


def parse(raw: Mapping[str, Any], name: str = "params.yaml") -> Params:
    """Validate a mapping; ``${VARIABLE}`` in strings is taken from the environment."""
    missing: list[str] = []
    expanded = _expand(raw, missing)
    if missing:
        lines = [f"  {m}" for m in missing]
        raise ConfigError(f"{name} has {len(lines)} problem(s):\n" + "\n".join(lines))
    try:
        return Params.model_validate(expanded)
    except ValidationError as error:
        lines = [f"  {line}" for line in explain(error)]
        raise ConfigError(f"{name} has {len(lines)} problem(s):\n" + "\n".join(lines)) from None


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


def explain(error: ValidationError) -> Iterator[str]:
    """One line per problem of a validation error: where, what was found, what is expected, the nearest name."""
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "params"
        kind, context = problem["type"], problem.get("ctx", {})
        if kind == "union_tag_invalid":
            tags = [t.strip(" '") for t in str(context["expected_tags"]).split(",")]
            yield f"{where}: unknown kind {context['tag']!r}; choose one of {', '.join(tags)}{_nearest(str(context['tag']), tags)}"
        elif kind == "union_tag_not_found":
            yield f"{where}: add a line 'kind: ...' that says which one is meant"
        elif kind == "extra_forbidden":
            known = list(_fields_at(problem["loc"][:-1]))
            yield f"{where}: unknown key{_nearest(str(problem['loc'][-1]), known)}" + (
                f"; known keys are {', '.join(known)}" if known else ""
            )
        elif kind == "missing":
            yield f"{where}: required key is missing"
        else:
            yield f"{where}: {problem['msg']} (found {problem['input']!r})"


def _nearest(word: str, names: Sequence[str]) -> str:
    near = get_close_matches(word, names, 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _fields_at(loc: Sequence[Any]) -> Sequence[str]:
    """The field names of the model at an error's location; union tags in the location select the variant."""
    from typing import get_args

    model: Any = Params
    for part in loc:
        if isinstance(model, type) and issubclass(model, Spec) and part in model.model_fields:
            field = model.model_fields[part]
            model = field.annotation
            continue
        options = [model, *get_args(model), *(a for m in get_args(model) for a in get_args(m))]
        kinds = [
            m for m in options
            if isinstance(m, type) and issubclass(m, Spec) and getattr(m.model_fields.get("kind"), "default", None) == part
        ]
        if kinds:
            model = kinds[0]
        elif any(isinstance(m, type) and issubclass(m, Spec) and part in m.model_fields for m in options):
            owner = next(m for m in options if isinstance(m, type) and issubclass(m, Spec) and part in m.model_fields)
            model = owner.model_fields[part].annotation
        else:  # a dict key or a list position
            nested = [a for a in get_args(model) if a is not str]
            model = nested[-1] if nested else None
    options = [model, *get_args(model)]
    for option in options:
        if isinstance(option, type) and issubclass(option, Spec):
            return list(option.model_fields)
    return []
