"""A small encoder that counts its work, and a modality over plain strings."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest

from fusionrec.embeddings.store import Store
from fusionrec.encoders.base import Encoder, EncoderSpec
from fusionrec.encoders.weights import fingerprint
from fusionrec.media.base import MediaError
from fusionrec.modalities.base import Modality, ModalityRows


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Letters(EncoderSpec):
    """Counts of letters a to g, D=7; ``encoded`` lists every text that reached an encoder."""

    accepts: ClassVar = "text"
    kind: Literal["letters"] = "letters"
    scale: float = 1.0
    encoded: ClassVar[list[str]] = []

    def fingerprint(self) -> str:
        return fingerprint(self.kind, scale=self.scale)

    def build(self) -> Encoder:
        return LettersEncoder(self)


class LettersEncoder(Encoder):
    dim, chunk = 7, 3

    def __init__(self, spec: Letters) -> None:
        self.spec = spec

    def encode(self, batch):
        self.spec.encoded.extend(batch)
        return np.array([[t.count(c) * self.spec.scale for c in "abcdefg"] for t in batch], np.float32)


class Strings(Modality):
    """Each row is its text; "" is absent, a text with "!" cannot be decoded."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def rows(self, items=None, root=Path()) -> ModalityRows:
        return ModalityRows(
            np.array([bool(t) for t in self.texts], bool),
            [sha(t) if t else "" for t in self.texts],
            np.zeros(len(self.texts), np.int16),
        )

    def load(self, index: int) -> str:
        if "!" in self.texts[index]:
            raise MediaError("truncated", "cut off")
        return self.texts[index]


@pytest.fixture
def letters():
    Letters.encoded.clear()
    return Letters()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")
