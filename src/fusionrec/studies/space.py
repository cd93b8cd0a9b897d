"""The search space of a retriever: its spec's ``space`` as Optuna distributions, and a choice as a new spec.

Values are kept in Optuna by position (numbers, so that neighbours are near) or by label (everything else), never as
themselves: Optuna's database cannot hold tuples, and a learning rate of 1e-4 is as near to 3e-4 as 3e-3 to 1e-2.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import prod
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from fusionrec.errors import ConfigError
from fusionrec.recommenders.base import RetrieverSpec
from fusionrec.types import Spec

Point = tuple[int, ...]
"""The position of each field's value among its choices, in the order of :attr:`Space.choices`."""


@dataclass(frozen=True)
class Space:
    """``choices``: dotted field -> the values to try, the one that ``spec`` has among them."""

    spec: RetrieverSpec
    choices: Mapping[str, tuple[Any, ...]]

    @property
    def size(self) -> int:
        """How many points there are; 1 where nothing can be chosen."""
        return prod(len(values) for values in self.choices.values())

    @property
    def own(self) -> Point:
        """The point that ``spec`` itself is."""
        return tuple(_position(get(self.spec, field), values) for field, values in self.choices.items())

    def point(self, number: int) -> Point:
        """Point ``number`` in [0, size), counted like digits."""
        digits = []
        for values in reversed(list(self.choices.values())):
            number, digit = divmod(number, len(values))
            digits.append(digit)
        return tuple(reversed(digits))

    def values(self, point: Point) -> dict[str, Any]:
        """Dotted field -> value."""
        return {field: values[at] for (field, values), at in zip(self.choices.items(), point, strict=True)}

    def chosen(self, point: Point) -> RetrieverSpec:
        """The spec with the point's values, validated as a whole. Raises ValueError where they do not fit together."""
        return replaced(self.spec, self.values(point))

    def distributions(self) -> dict[str, Any]:
        """Field -> Optuna distribution: an ordered one for three and more numbers, else labels."""
        from optuna.distributions import CategoricalDistribution, IntDistribution

        return {
            field: IntDistribution(0, len(values) - 1)
            if _ordered(values)
            else CategoricalDistribution([label(value) for value in values])
            for field, values in self.choices.items()
        }

    def params(self, point: Point) -> dict[str, int | str]:
        """The point as Optuna writes it."""
        return {
            field: at if _ordered(values) else label(values[at])
            for (field, values), at in zip(self.choices.items(), point, strict=True)
        }

    def read(self, params: Mapping[str, Any]) -> Point:
        """The inverse of :meth:`params`."""
        return tuple(
            int(params[field]) if _ordered(values) else [label(value) for value in values].index(params[field])
            for field, values in self.choices.items()
        )

    def digest(self) -> str:
        return digest({field: [label(value) for value in values] for field, values in self.choices.items()})


def space_of(spec: RetrieverSpec) -> Space:
    """The space of a spec and of the specs it holds (``parts.1.training.lr`` of a blend).

    Raises ConfigError for a field that does not exist (naming those that do), a value that the field refuses, a field
    without values, and a field that lies inside another one.
    """
    choices = {}
    for field, values in _declared(spec):
        own = get(spec, field)
        tried = [own]
        for value in values:
            try:
                found = get(replaced(spec, {field: value}), field)
            except ValidationError as error:
                raise ConfigError(
                    f"the space of {spec.kind}: {field} cannot be {value!r}: {error.errors()[0]['msg']}"
                ) from None
            if label(found) not in map(label, tried):
                tried.append(found)
        if not values:
            raise ConfigError(f"the space of {spec.kind}: {field} has no values to try")
        choices[field] = tuple(sorted(tried) if all(map(_is_number, tried)) else tried)
    for field in choices:
        inside = [other for other in choices if other.startswith(f"{field}.")]
        if inside:
            raise ConfigError(f"the space of {spec.kind}: {inside[0]} lies inside {field}; search one of them")
    return Space(spec, choices)


def get(spec: Any, dotted: str) -> Any:
    """The value of a dotted field; positions in a tuple are numbers. Raises ConfigError naming the known fields."""
    here, passed = spec, ""
    for part in dotted.split("."):
        inner = _inner(here)
        if part not in inner:
            raise ConfigError(_unknown(spec, dotted, passed, part, list(inner)))
        here, passed = inner[part], f"{passed}{part}."
    return here


def replaced(spec: Any, values: Mapping[str, Any]) -> Any:
    """``spec`` with dotted fields set: new frozen specs from the inside out, each validated once.

    Raises ConfigError for a field that does not exist and pydantic's ValidationError (a ValueError) for a bad value.
    """
    for dotted in values:
        get(spec, dotted)
    return _replaced(spec, values)


def _replaced(here: Any, values: Mapping[str, Any]) -> Any:
    below: dict[str, dict[str, Any]] = {}
    new = dict(_inner(here))
    for dotted, value in values.items():
        head, _, rest = dotted.partition(".")
        if rest:
            below.setdefault(head, {})[rest] = value
        else:
            new[head] = value
    for head, inner in below.items():
        new[head] = _replaced(new[head], inner)
    if isinstance(here, Spec):
        return type(here).model_validate(new)
    return new if isinstance(here, Mapping) else tuple(new.values())


def _inner(value: Any) -> dict[str, Any]:
    """What a dotted path can go on with."""
    if isinstance(value, Spec):
        return {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(key): inner for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return {str(at): inner for at, inner in enumerate(value)}
    return {}


def _declared(value: Any, prefix: str = "") -> Iterator[tuple[str, tuple[Any, ...]]]:
    """(dotted field, values) of a spec and of everything inside it; an outer declaration wins over an inner one."""
    own = dict(value.space) if isinstance(value, RetrieverSpec) else {}
    for field, values in own.items():
        yield prefix + field, tuple(values)
    for name, inner in _inner(value).items():
        for field, values in _declared(inner, f"{name}."):
            if field not in own:
                yield prefix + field, values


def _unknown(spec: Any, dotted: str, passed: str, part: str, known: list[str]) -> str:
    near = get_close_matches(part, known, 1)
    hint = f" (did you mean {passed + near[0]!r}?)" if near else ""
    names = f"known are {', '.join(passed + name for name in known)}" if known else f"{passed[:-1]} holds no fields"
    return f"{getattr(spec, 'kind', type(spec).__name__)} has no field {dotted!r}{hint}; {names}"


def label(value: Any) -> str:
    """A value as JSON."""
    return json.dumps(to_jsonable_python(value), ensure_ascii=False)


def digest(value: Any) -> str:
    """sha256 of a value that JSON can hold; a spec is taken with its kind and every default."""
    if isinstance(value, Spec):
        value = value.model_dump(mode="json", serialize_as_any=True)
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode("utf-8")).hexdigest()


def _position(value: Any, values: Sequence[Any]) -> int:
    return [label(v) for v in values].index(label(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _ordered(values: Sequence[Any]) -> bool:
    return len(values) > 2 and all(map(_is_number, values))
