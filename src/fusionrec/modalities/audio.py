"""The sound of an item: one file, its beginning."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from fusionrec.encoders import AnyEncoder
from fusionrec.encoders.musicnn import MusiCNN
from fusionrec.media import audio as sounds
from fusionrec.modalities.base import Modality, ModalitySpec, OneFile, check_accepts
from fusionrec.types import Float32


class Audio(ModalitySpec):
    """``max_seconds``: how much of the beginning is heard; ``encoder``: musicnn for music and sounds, whisper for
    English speech."""

    kind: Literal["audio"] = "audio"
    max_seconds: float = Field(60.0, ge=0.1, le=600, description="longer sounds are cut after this many seconds")
    encoder: AnyEncoder = MusiCNN()

    _accepts = field_validator("encoder")(check_accepts("audio"))

    def build(self) -> Modality:
        return AudioModality(self)


class AudioModality(OneFile):
    """See :class:`Audio`. An item is present where ingest found its file; a silent sound is absent, with a reason."""

    def __init__(self, spec: Audio) -> None:
        super().__init__("audio", sounds.MAX_BYTES, {"max_seconds": spec.max_seconds})

    def load(self, index: int) -> Float32:
        """(N,) float32, mono, 16 kHz, in [-1, 1], at most ``max_seconds``. Raises MediaError; ``silent`` as well."""
        data, sound = self.read(index)
        sounds.describe(data, sound)  # silence says nothing of an item: absent, with a reason
        return np.asarray(sound, np.float32)
