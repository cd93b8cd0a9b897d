"""Registries: the file names of a package's components become one discriminated union.

A registry is a list of file names, so adding a component is one new file and one line. The rule that
makes this work, and that dvc.yaml's templated dependencies need as well: the ``kind`` of a component is the name of
its file, and a file holds one component.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticKnownError

from fusionrec.types import Spec

KEYS = ("kind", "engine")
"""What a section's own name is called: an engine computes what it is given, it is no kind of thing to be computed."""


def union(package: str, base: type[Spec], names: Sequence[str], key: str = "kind") -> Any:
    """The union, told apart by ``key``, of the spec that each file ``package/name.py`` holds.

    Raises TypeError for a name that occurs twice and for a file that breaks the rule of this module.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        raise TypeError(f"{package}: every file is registered once, found {twice or 'none'}")
    specs = {name: _spec(import_module(f"{package}.{name}"), base, name, key) for name in names}
    completed = BeforeValidator(partial(_completed, specs, key))
    if len(specs) == 1:  # pydantic refuses a discriminator on a union of one
        return Annotated[specs[names[0]], BeforeValidator(partial(_told_apart, names[0])), completed]
    return Annotated[Union[tuple(specs.values())], Field(discriminator=key), completed]  # noqa: UP007  (at run time)


def members(registered: Any) -> tuple[type[Spec], ...]:
    """The specs of a union made by :func:`union`, in the order of its lines."""
    inner = get_args(registered)[0] if get_origin(registered) is Annotated else registered
    return get_args(inner) or (inner,)


def told_apart_by(spec: type[Spec]) -> str:
    """The key that says which of a union's specs a section is."""
    return next(key for key in KEYS if key in spec.model_fields)


def _told_apart(name: str, value: Any) -> Any:
    """What a discriminator does, for a union of one: the errors are the same."""
    if isinstance(value, Mapping):
        if "kind" not in value:
            raise PydanticKnownError("union_tag_not_found", {"discriminator": "'kind'"})
        if value["kind"] != name:
            context = {"discriminator": "'kind'", "tag": str(value["kind"]), "expected_tags": f"'{name}'"}
            raise PydanticKnownError("union_tag_invalid", context)
    return value


def _completed(specs: Mapping[str, type[Spec]], key: str, value: Any) -> Any:
    """A section inside a component's changes the keys that it names and leaves the component's own defaults of the
    others: ``training: {metric: recall@20}`` is not the training of another model that has that metric."""
    spec = specs.get(value[key]) if isinstance(value, Mapping) and isinstance(value.get(key), str) else None
    if spec is None:
        return value
    out = dict(value)
    for name, field in spec.model_fields.items():
        own = field.default
        if isinstance(out.get(name), Mapping) and isinstance(own, Spec) and field.annotation is type(own):
            out[name] = {k: getattr(own, k) for k in type(own).model_fields} | dict(out[name])
    return out


def _spec(module: ModuleType, base: type[Spec], name: str, key: str) -> type[Spec]:
    own = [
        thing
        for thing in vars(module).values()
        if isinstance(thing, type)
        and issubclass(thing, base)
        and thing.__module__ == module.__name__
        and thing.__name__[0] != "_"
    ]
    if len(own) != 1:
        raise TypeError(f"{module.__name__}: expected one {base.__name__}, found {[c.__name__ for c in own] or 'none'}")
    kind = own[0].model_fields[key]
    if get_origin(kind.annotation) is not Literal or get_args(kind.annotation) != (name,) or kind.default != name:
        raise TypeError(
            f"{module.__name__}.{own[0].__name__}: write  {key}: Literal[{name!r}] = {name!r}  (the name of its file)"
        )
    return own[0]
