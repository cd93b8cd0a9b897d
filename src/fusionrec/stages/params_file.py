"""Write a chosen retriever into params.yaml: only the chosen keys change, comments and order stay."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from fusionrec import config
from fusionrec.data.files import write_bytes
from fusionrec.errors import ConfigError
from fusionrec.recommenders.base import RetrieverSpec

_LIST_BELOW_KEY = re.compile(r"^( *)[^ #\n-][^\n]*:[ ]*(?:#[^\n]*)?\n\1- ", re.MULTILINE)


def write_retriever(path: Path, spec: RetrieverSpec, fields: Iterable[str]) -> None:
    """Set the dotted ``fields`` of ``train.retriever`` to what ``spec`` has there.

    A section that the file does not have yet (``training``) is written as a whole: its defaults depend on the model,
    and a section with one key in it would fall back to others. Raises ConfigError, and leaves the file as it is,
    where the result would not be ``spec`` with everything else as before.
    """
    old = path.read_text(encoding="utf-8")
    changed = _changed(old, spec, fields)
    before = config.parse(yaml.safe_load(old), path.name)
    after = config.parse(yaml.safe_load(changed), path.name)
    if after != before.model_copy(update={"train": before.train.model_copy(update={"retriever": spec})}):
        raise ConfigError(f"{path.name} cannot take the chosen parameters as it is written; set them by hand")
    write_bytes(path, changed.encode("utf-8"))


def _changed(text: str, spec: RetrieverSpec, fields: Iterable[str]) -> str:
    editor = _editor(text)
    document = editor.load(text)
    values = spec.model_dump(mode="json", serialize_as_any=True)
    for field in fields:
        _set(document["train"]["retriever"], values, field.split("."))
    out = io.StringIO()
    editor.dump(document, out)
    return out.getvalue()


def _set(node: Any, values: Any, path: list[str]) -> None:
    for depth, part in enumerate(path):
        key: Any = part if isinstance(node, Mapping) else int(part)
        if depth + 1 == len(path) or (isinstance(node, Mapping) and key not in node):
            node[key] = values[key]
            return
        node, values = node[key], values[key]


def _editor(text: str) -> Any:
    """ruamel's round trip in the style of the text, with numbers that YAML 1.1 (PyYAML, DVC) reads as numbers."""
    from ruamel.yaml import YAML

    editor = YAML()
    editor.preserve_quotes = True
    editor.width = 10_000
    flat = _LIST_BELOW_KEY.search(text) is not None  # "- " right below its key
    editor.indent(mapping=2, sequence=2 if flat else 4, offset=0 if flat else 2)
    editor.representer.add_representer(float, _float)
    editor.representer.add_representer(type(None), _none)
    return editor


def _float(representer: Any, value: float) -> Any:
    digits = repr(value)
    if "e" in digits and "." not in digits:
        digits = digits.replace("e", ".0e")
    return representer.represent_scalar("tag:yaml.org,2002:float", digits)


def _none(representer: Any, value: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")
