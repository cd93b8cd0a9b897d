"""The sound of an item: one file, its beginning."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, field_validator

from fusionrec.encoders import AnyEncoder
from fusionrec.encoders.musicnn import MusiCNN
from fusionrec.media import audio as sounds
from fusionrec.media import base as media
from fusionrec.media import bounded
from fusionrec.modalities.base import Modality, ModalityRows, ModalitySpec, check_accepts
from fusionrec.types import Float32

if TYPE_CHECKING:
    import polars as pl

PATH, DIGEST = "audio_path", "audio_sha256"


class Audio(ModalitySpec):
    """``max_seconds``: how much of the beginning is heard; ``encoder``: musicnn for music and sounds, whisper for
    English speech."""

    kind: Literal["audio"] = "audio"
    max_seconds: float = Field(60.0, ge=0.1, le=600, description="longer sounds are cut after this many seconds")
    encoder: AnyEncoder = MusiCNN()

    _accepts = field_validator("encoder")(check_accepts("audio"))

    def build(self) -> Modality:
        return AudioModality(self)


class AudioModality(Modality):
    """See :class:`Audio`. An item is present where ingest found its file; a silent sound is absent, with a reason."""

    def __init__(self, spec: Audio) -> None:
        self.spec = spec
        self.root = Path()
        self.files: list[tuple[str, str] | None] = []

    def rows(self, items: pl.DataFrame, root: Path) -> ModalityRows:
        self.root = root
        empty = [None] * len(items)
        paths = items[PATH].to_list() if PATH in items.columns else empty
        digests = items[DIGEST].to_list() if DIGEST in items.columns else empty
        self.files = [(p, d) if p and d else None for p, d in zip(paths, digests, strict=True)]
        return ModalityRows(
            present=np.array([f is not None for f in self.files], bool),
            content=[self._content(f[1]) if f else "" for f in self.files],
            group=np.zeros(len(items), np.int16),
        )

    def _content(self, digest: str) -> str:
        """The bytes alone do not determine the input: how much of them is heard does as well."""
        return hashlib.sha256(f"{digest}\nmax_seconds={self.spec.max_seconds!r}".encode()).hexdigest()

    def load(self, index: int) -> Float32:
        """(N,) float32, mono, 16 kHz, in [-1, 1], at most ``max_seconds``. Raises MediaError; ``silent`` as well."""
        found = self.files[index]
        if found is None:
            raise media.MediaError("missing_file", "the item has no sound")
        path, digest = found
        data = media.read(self.root, path, sounds.MAX_BYTES, digest)
        sound: Float32 = bounded.decode("audio", data, max_seconds=self.spec.max_seconds)
        sounds.describe(data, sound)  # silence says nothing of an item: absent, with a reason
        return sound
