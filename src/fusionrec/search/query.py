"""What somebody asks with, and how it becomes vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fusionrec.data.schema import printable
from fusionrec.embeddings.engine import embed
from fusionrec.embeddings.shards import Progress, silent
from fusionrec.embeddings.store import Store, unusable
from fusionrec.encoders.base import Encoder
from fusionrec.errors import DataRejected, UsageError
from fusionrec.media import base as media
from fusionrec.media import bounded
from fusionrec.modalities.base import ModalitySpec, clean
from fusionrec.modalities.text import script
from fusionrec.search import speech
from fusionrec.types import Float32

MAX_CHARS = 2_000
MAX_BYTES = 64 * 2**20  # of a picture or a sound; the decoders have narrower limits of their own


@dataclass(frozen=True)
class Query:
    """Any of: words, the bytes of a picture, the bytes of a spoken sentence. ``names`` say what to call the files."""

    text: str | None = None
    image: bytes | None = None
    audio: bytes | None = None
    image_name: str = "the picture"
    audio_name: str = "the sound"


def read_file(path: Path) -> bytes:
    """A file that the caller named. Raises UsageError where there is none, DataRejected where it cannot be used."""
    if not path.is_file():
        raise UsageError(f"{printable(path)} is no file")
    real = path.resolve()
    try:
        return media.read(real.parent, real.name, MAX_BYTES)
    except media.MediaError as error:
        raise speech.unusable(str(path), error) from None


def spec_that_reads(modalities: Mapping[str, ModalitySpec], medium: str) -> str | None:
    """The name of the first modality whose encoder reads this medium; None where no one does."""
    return next((name for name, spec in modalities.items() if spec.encoder.accepts == medium), None)


def encoded_texts(
    spec: ModalitySpec, texts: Sequence[str], store: Store, progress: Progress = silent
) -> tuple[Float32, list[str]]:
    """B texts -> (B, D) vectors of the encoder's query side and the language of each; through ``store``, so that a text
    is encoded once. Texts are cleaned like those of items."""
    import polars as pl

    from fusionrec.modalities.text import Text

    column = "text"
    source = Text(fields=(column,), language=None).build()
    rows = source.rows(pl.DataFrame({column: list(texts)}, schema={column: pl.String}), Path())
    found = embed(source, rows, spec.encoder.for_queries(), store, progress=progress)
    return found.vectors, [rows.group_names[g] for g in rows.group]


class Encoders:
    """The encoders that queries need, loaded when the first query needs them and kept."""

    def __init__(self, modalities: Mapping[str, ModalitySpec]) -> None:
        self._modalities = modalities
        self._loaded: dict[str, Encoder] = {}
        self._speech: speech.Transcriber | None = None

    def spec(self, name: str) -> ModalitySpec:
        return self._modalities[name]

    def text(self, name: str, text: str) -> tuple[Float32, str]:
        """((D,) float32, language) of a query's words, by the modality ``name``."""
        return self._one(name, clean(text)), script(text)

    def image(self, name: str, query: Query) -> Float32:
        """(D,) float32 of a query's picture. Raises DataRejected where it does not decode or has no vector."""
        try:
            picture = bounded.decode("image", query.image or b"")
        except media.MediaError as error:
            raise speech.unusable(query.image_name, error) from None
        return self._one(name, (picture,))

    def heard(self, query: Query) -> str:
        """The words of a spoken query. Raises DataRejected where it does not decode or nobody speaks."""
        sound = speech.decoded(query.audio or b"", query.audio_name)
        self._speech = self._speech or speech.Transcriber()
        words = self._speech.words(sound)
        if not words:
            raise DataRejected(f"{printable(query.audio_name)}: no speech was heard; expected an English sentence")
        return words

    def _one(self, name: str, value: Any) -> Float32:
        if name not in self._loaded:
            self._loaded[name] = self._modalities[name].encoder.for_queries().build()
        vectors = self._loaded[name].encode([value])
        if unusable(vectors).any():
            raise DataRejected(f"the query has no vector: the encoder {name} gave NaN, infinite values or zero")
        return np.asarray(vectors[0], np.float32)
