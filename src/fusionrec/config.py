"""params.yaml -> frozen, validated :class:`Params`; every problem in one message."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator
from pydantic_core import PydanticUndefined

from fusionrec.data.sources import AnySource
from fusionrec.data.split import AnySplit
from fusionrec.embeddings.engines import AnyEngine
from fusionrec.embeddings.engines.local import Local
from fusionrec.errors import ConfigError
from fusionrec.fusion import AnyFusion
from fusionrec.kinds import told_apart_by
from fusionrec.modalities import AnyModality
from fusionrec.monitoring.spec import Monitor
from fusionrec.ranking import AnyRanker
from fusionrec.ranking.dcn_v2 import DCNv2
from fusionrec.ranking.rerankers import AnyReranker
from fusionrec.recommenders import AnyRetriever
from fusionrec.types import Spec

MOST_NAMES = 12
"""Names that a message lists."""


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


def load(path: Path, overrides: Mapping[str, Any] | None = None) -> Params:
    """Read and validate params.yaml; ``overrides`` maps dotted keys to values (``{"train.seed": 3}``).

    Raises ConfigError with one line per problem: key, found, expected, alternatives.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path.name} not found in {path.parent}") from None
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name} is not UTF-8: byte {error.start}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        why = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{path.name} is not valid YAML: {at}{why}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path.name} must be a mapping of sections, found {type(raw).__name__}")
    for key, value in (overrides or {}).items():
        set_key(raw, key, value)
    return parse(raw, path.name, for_dvc=True)


def set_key(raw: dict[str, Any], dotted: str, value: Any) -> None:
    """Set ``a.b.c`` in nested mappings, making what is missing."""
    *parents, last = dotted.split(".")
    for part in parents:
        raw = raw.setdefault(part, {})
        if not isinstance(raw, dict):
            raise ConfigError(f"{dotted}: {part!r} is a value, not a section")
    raw[last] = value


def parse(raw: Mapping[str, Any], name: str = "params.yaml", *, for_dvc: bool = False) -> Params:
    """Validate a mapping; ``${VARIABLE}`` in strings is taken from the environment.

    ``for_dvc``: also what has a default must be there where dvc.yaml looks for it in the file.
    """
    problems: list[str] = []
    expanded = _expand(raw, problems)
    try:
        params = Params.model_validate(expanded)
    except ValidationError as error:
        problems += explain(error)
    else:
        problems += _unwritten(raw, params) if for_dvc else ()
    if problems:
        lines = "\n".join(f"  {line}" for line in problems)
        raise ConfigError(f"{name} has {len(problems)} problem(s):\n{lines}") from None
    return params


def _unwritten(raw: Mapping[str, Any], params: Params) -> Iterator[str]:
    """Encoders that params.yaml leaves to their default: dvc.yaml looks for their kinds in the file."""
    for name, modality in params.modalities.items():
        if "encoder" not in raw["modalities"][name]:
            kind = modality.encoder.kind
            yield f"modalities.{name}.encoder: required key is missing; write encoder: {{kind: {kind}}}"


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
    told: set[str] = set()
    for problem in error.errors():
        where, model, plain_union = _walk(problem["loc"])
        context, found = problem.get("ctx", {}), _short(problem["input"])
        match problem["type"]:
            case "union_tag_invalid":
                kinds = re.findall(r"'([^']*)'", str(context["expected_tags"]))
                tag, key = str(context["tag"]), str(context["discriminator"]).strip("'")
                line = f"{where}.{key}: unknown {key} {tag!r}; choose one of {_some(tag, kinds)}{_nearest(tag, kinds)}"
            case "union_tag_not_found":
                key = str(context["discriminator"]).strip("'")
                line = f"{where}: add a line '{key}: ...' that says which one is meant"
            case "extra_forbidden":
                known = list(model.model_fields) if model else []
                line = f"{where}: unknown key{_nearest(str(problem['loc'][-1]), known)}"
                line += f"; known keys are {', '.join(known)}" if known else ""
            case "missing":
                line = f"{where}: required key is missing"
            case "model_type" | "model_attributes_type" | "dict_type":
                line = f"{where}: expected a section (keys with values), found {found}"
            case "value_error":  # the message of a validator says what it found
                message = problem["msg"].removeprefix("Value error, ")
                line = f"{where}: {message}" if where else message
            case _:
                choices = re.findall(r"'([^']*)'", str(context.get("expected", "")))
                hint = _nearest(str(problem["input"]), choices)
                line = f"{where}: {problem['msg']} (found {found}){hint}"
        if not plain_union or where not in told:  # `int | str` reports every alternative; one is enough
            yield "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)  # a problem stays one line
        told.add(where)


def _some(word: str, names: Sequence[str]) -> str:
    """The names, of many those that are most like the word: a line that nobody reads helps nobody."""
    if len(names) <= MOST_NAMES:
        return ", ".join(names)
    near = get_close_matches(word, names, MOST_NAMES, cutoff=0)
    return f"{', '.join(near)} and {len(names) - len(near)} more"


def _nearest(word: str, names: Sequence[str]) -> str:
    near = get_close_matches(word, names, 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _walk(loc: Sequence[Any]) -> tuple[str, type[Spec] | None, bool]:
    """An error's location as dotted keys of the file, the section that the last key lies in, and whether an
    alternative of a plain union (``int | str``) was passed on the way.

    pydantic puts the chosen kind of a union into the location; the file has no such key.
    """
    here: Any = Params
    section: type[Spec] | None = None
    keys: list[str] = []
    plain_union = False
    for part in loc:
        if part == "[key]":  # the problem is the key itself, which came before
            continue
        options = _options(here)
        specs = [o for o in options if isinstance(o, type) and issubclass(o, Spec)]
        section = None
        if len(specs) > 1 or (specs and _is_base(specs[0])):  # the part is a kind
            variants = specs if len(specs) > 1 else _below(specs[0])
            here = next((v for v in variants if v.model_fields[told_apart_by(v)].default == part), None)
            continue
        if specs:
            section = specs[0]
            field = section.model_fields.get(str(part))
            here = field.annotation if field else None
        elif options and get_origin(options[0]) in (dict, tuple, list):
            here = [a for a in get_args(options[0]) if a is not Ellipsis][-1]
        elif len(options) > 1:
            plain_union = True
            continue
        keys.append(str(part))
    return ".".join(keys), section, plain_union


def _options(annotation: Any) -> list[Any]:
    """The alternatives of a type: unions and Annotated opened, None left out."""
    if get_origin(annotation) is Annotated:
        return _options(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [o for a in get_args(annotation) if a is not type(None) for o in _options(a)]
    return [annotation]


def _is_base(spec: type[Spec]) -> bool:
    """Whether a spec stands for its subclasses (a component that takes another one as a parameter)."""
    return "kind" in spec.model_fields and spec.model_fields["kind"].default is PydanticUndefined


def _below(spec: type[Spec]) -> list[type[Spec]]:
    return [s for child in spec.__subclasses__() for s in (child, *_below(child))]
