"""The modality contract: catalogue rows become encoder inputs, a present mask and content hashes."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from fusionrec.media import base as media
from fusionrec.media import bounded
from fusionrec.types import Bool, Spec

if TYPE_CHECKING:
    import polars as pl

_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u200b\ufeff]+")


@dataclass(frozen=True)
class ModalityRows:
    """What one modality sees of I items, in the order of the rows given.

    ``present`` (I,) bool; ``content`` I hex sha256 digests ("" where absent) over exactly the bytes that
    determine the encoder's input; ``group`` (I,) int16, the sub-population within which the vectors are
    standardised (language for text, else 0); ``group_names`` their names.
    """

    present: Bool
    content: Sequence[str]
    group: NDArray[np.int16]
    group_names: tuple[str, ...] = ("",)


class Modality(ABC):
    """Reads one modality of a catalogue."""

    @abstractmethod
    def rows(self, items: pl.DataFrame, root: Path) -> ModalityRows:
        """``items``: the accepted item table; ``root``: the folder that media paths are relative to."""

    @abstractmethod
    def load(self, index: int) -> Any:
        """The encoder input of the item at ``index`` of the last :meth:`rows` (a string, a picture, a vector).

        Raises MediaError (a ValueError with a reason code) where a file cannot be decoded.
        """


class OneFile(Modality):
    """One media file an item: its path and sha256 are the columns ``<medium>_path`` and ``<medium>_sha256``.

    ``settings`` go to the decoder ``media.<decoder>.decode`` (default: the medium's own, whose recipe the encoders
    name), which runs in a bounded child; they and the ``recipe`` are part of the content, because the bytes alone do
    not determine the encoder's input.
    """

    def __init__(
        self, medium: str, max_bytes: int, settings: Mapping[str, Any], decoder: str = "", recipe: str = ""
    ) -> None:
        self.medium, self.max_bytes, self.settings = medium, max_bytes, dict(settings)
        self.decoder, self.recipe = decoder or medium, recipe
        self.root = Path()
        self.files: list[tuple[str, str] | None] = []

    def rows(self, items: pl.DataFrame, root: Path) -> ModalityRows:
        self.root = root
        empty: list[Any] = [None] * len(items)
        paths, digests = (
            items[name].to_list() if name in items.columns else empty
            for name in (f"{self.medium}_path", f"{self.medium}_sha256")
        )
        self.files = [(p, d) if p and d else None for p, d in zip(paths, digests, strict=True)]
        return ModalityRows(
            present=np.array([f is not None for f in self.files], bool),
            content=[self._content(f[1]) if f else "" for f in self.files],
            group=np.zeros(len(items), np.int16),
        )

    def _content(self, digest: str) -> str:
        lines = [digest, *(f"{name}={value!r}" for name, value in sorted(self.settings.items()))]
        lines += [self.recipe] if self.recipe else []
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def read(self, index: int, **more: Any) -> tuple[bytes, Any]:
        """The file's bytes and what they decode to, with ``more`` settings of this item. Raises MediaError."""
        file = self.files[index]
        if file is None:
            raise media.MediaError("missing_file", f"the item has no {self.medium}")
        data = media.read(self.root, file[0], self.max_bytes, file[1])
        return data, bounded.decode(self.decoder, data, **self.settings, **more)


class ModalitySpec(Spec):
    """Base of the modality sections of params.yaml; every one has an ``encoder``."""

    kind: Any
    encoder: Any

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns of the catalogue that it reads as words."""
        return ()

    def build(self) -> Modality:
        raise NotImplementedError

    def bound(self, folder: Path) -> Self:
        """With the weights in ``folder`` where its encoder is learnt here; raises as ``EncoderSpec.bound``."""
        return self.model_copy(update={"encoder": self.encoder.bound(folder)})


def check_accepts(wanted: str) -> Callable[[Any], Any]:
    """A validator of the ``encoder`` field: the encoder must read what this modality gives."""

    def check(encoder: Any) -> Any:
        if encoder.accepts != wanted:
            raise ValueError(f"the encoder {encoder.kind!r} reads {encoder.accepts}, expected one that reads {wanted}")
        return encoder

    return check


def clean(value: Any) -> str:
    """NFC, runs of white space and control characters as one space; lists are joined by commas."""
    if value is None:
        return ""
    if not isinstance(value, str):
        many = isinstance(value, Sequence)
        value = ", ".join(str(v) for v in value if v is not None) if many else str(value)
    return _SPACE.sub(" ", unicodedata.normalize("NFC", value)).strip()
