"""Problems of a file of the user's in words: where, what was found, what is expected, the nearest name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from fusionrec.kinds import told_apart_by
from fusionrec.types import Spec

MOST_NAMES = 12
"""Names that a message lists."""


class _Once(yaml.SafeLoader):
    """No key stands twice in a mapping: the last one would win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True) if key.value != "<<" else None
            if isinstance(name, str | int | float) and name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"found the key {name!r} twice", key.start_mark)
            seen |= {name} if isinstance(name, str | int | float) else set()
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> Any:
    """What a YAML file of the user's holds. Raises ValueError that says where it is not valid."""
    try:
        return _Once(text).get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(at + str(getattr(error, "problem", None) or str(error).splitlines()[0])) from None


def explain(error: ValidationError, root: Any) -> Iterator[str]:
    """One line per problem of a validation error of the type ``root``: where, what was found, what is expected, the
    nearest name."""
    told: set[str] = set()
    for problem in error.errors():
        where, model, plain_union = _walk(problem["loc"], root)
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


def _walk(loc: Sequence[Any], root: Any) -> tuple[str, type[Spec] | None, bool]:
    """An error's location as dotted keys of the file, the section that the last key lies in, and whether an
    alternative of a plain union (``int | str``) was passed on the way.

    pydantic puts the chosen kind of a union into the location; the file has no such key.
    """
    here: Any = root
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
