"""Attributes of an item: categories (a value, or a list of values) and numbers.

attributes:
  kind: attributes
  categories: [category, brand, tags, language]
  numbers: [price, weight]
"""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from collections.abc import Sequence
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import field_validator, model_validator

from fusionrec.encoders import AnyEncoder
from fusionrec.encoders.base import Attributes as Described
from fusionrec.encoders.hashed import Hashed
from fusionrec.errors import ConfigError
from fusionrec.modalities.base import Modality, ModalityRows, ModalitySpec, check_accepts
from fusionrec.types import Columns

if TYPE_CHECKING:
    import polars as pl

MOST = 256
"""Values of one cell that count, the first in their order: a list of a million tags tells nothing more."""


class Attributes(ModalitySpec):
    """Which columns are categories and which are numbers is said here, never guessed from the table: the vector of an
    item must not depend on what the other items hold. By default category, brand and price, unknown where the table
    lacks a column.

    Categories are compared without case, width (NFKC), control characters and runs of white space; truth values and
    whole numbers are categories too. A list gives all its values, whatever their order. A null, an empty text or list,
    NaN, an infinite number and a text that is no number are unknown; a negative number is a number.
    """

    kind: Literal["attributes"] = "attributes"
    categories: tuple[str, ...] = (Columns.CATEGORY, "brand")
    numbers: tuple[str, ...] = ("price",)
    encoder: AnyEncoder = Hashed()

    _accepts = field_validator("encoder")(check_accepts("attributes"))

    @model_validator(mode="after")
    def _fields(self) -> Attributes:
        if not self.categories and not self.numbers:
            raise ValueError("categories and numbers are both empty; name at least one column")
        for name, fields in (("categories", self.categories), ("numbers", self.numbers)):
            if len(set(fields)) < len(fields):
                raise ValueError(f"{name}: found {', '.join(fields)}; name each column once")
            if Columns.ITEM in fields:
                raise ValueError(f"{name}: {Columns.ITEM} names an item and describes nothing; leave it out")
        return self

    def build(self) -> Modality:
        return AttributesModality(self)


class AttributesModality(Modality):
    """See :class:`Attributes`. An item is present where at least one field is known."""

    def __init__(self, spec: Attributes) -> None:
        self.spec = spec
        self.found: list[Described] = []

    def rows(self, items: pl.DataFrame, root: Path) -> ModalityRows:
        self._check(items)
        unknown: list[Any] = [None] * len(items)

        def cells(name: str) -> list[Any]:
            return items[name].to_list() if name in items.columns else unknown

        categories = [[categorical(value) for value in cells(name)] for name in self.spec.categories]
        numbers = [[numeric(value) for value in cells(name)] for name in self.spec.numbers]
        self.found = [
            Described(tuple(column[row] for column in categories), tuple(column[row] for column in numbers))
            for row in range(len(items))
        ]
        present = [any(one.categories) or any(x is not None for x in one.numbers) for one in self.found]
        return ModalityRows(
            present=np.array(present, bool),
            content=[self._content(one) if here else "" for one, here in zip(self.found, present, strict=True)],
            group=np.zeros(len(items), np.int16),
        )

    def load(self, index: int) -> Described:
        return self.found[index]

    def _content(self, one: Described) -> str:
        """The names count too: the same values of other columns are another content."""
        named = [
            list(zip(self.spec.categories, one.categories, strict=True)),
            list(zip(self.spec.numbers, one.numbers, strict=True)),
        ]
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()

    def _check(self, items: pl.DataFrame) -> None:
        """Raises ConfigError for a column that was named and is not there, and for one that cannot hold numbers."""
        import polars as pl

        named = {"categories", "numbers"} & self.spec.model_fields_set
        asked = [name for part in sorted(named) for name in getattr(self.spec, part)]
        every = (*self.spec.categories, *self.spec.numbers)
        lacking = [name for name in asked if name not in items.columns]
        if lacking or not set(every) & set(items.columns):
            wanted = (lacking or every)[0]
            near = get_close_matches(wanted, items.columns, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"attributes: items have no column {wanted!r}{hint}; found {', '.join(items.columns)}")
        for name in set(self.spec.numbers) & set(items.columns):
            dtype = items[name].dtype
            if not (dtype.is_numeric() or dtype in (pl.String, pl.Boolean, pl.Null)):
                raise ConfigError(f"attributes: numbers: the column {name!r} holds {dtype}; name it under categories")


def categorical(value: Any) -> tuple[str, ...]:
    """The different values of a cell, ascending; () where it is unknown."""
    several = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    texts = {folded(_text(v)) for v in (value if several else (value,))}
    return tuple(sorted(texts - {""})[:MOST])


@lru_cache(maxsize=65_536)
def folded(text: str) -> str:
    """NFKC without case; control, format and surrogate characters and white space as one space, none at the ends."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join("".join(" " if unicodedata.category(ch) in ("Cc", "Cf", "Cs") else ch for ch in text).split())


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a column of whole numbers becomes one of floats as soon as a cell is empty
    return str(value)


def numeric(value: Any) -> float | None:
    """A finite float, or None where there is no number."""
    try:
        x = float(value) if value is not None else math.nan
    except (TypeError, ValueError, OverflowError):
        return None
    return x + 0.0 if math.isfinite(x) else None  # -0.0 and 0.0 are one content
