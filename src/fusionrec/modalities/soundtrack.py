"""The sound of an item's clip, in the windows in which the modality ``video`` sees it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from fusionrec.encoders import AnyEncoder
from fusionrec.encoders.musicnn import MusiCNN
from fusionrec.media import audio as sounds
from fusionrec.media import timeline
from fusionrec.media import video as clips
from fusionrec.media.base import MediaError
from fusionrec.modalities.base import Modality, ModalitySpec, OneFile, check_accepts
from fusionrec.types import Float32


class Soundtrack(ModalitySpec):
    """``windows`` and ``max_seconds`` as those of ``video``: then both speak of the same moments."""

    kind: Literal["soundtrack"] = "soundtrack"
    windows: int = Field(clips.WINDOWS, ge=1, le=8)
    max_seconds: float = Field(clips.MAX_SECONDS, gt=0, le=36_000, description="what comes later in a clip is ignored")
    encoder: AnyEncoder = MusiCNN()

    _accepts = field_validator("encoder")(check_accepts("audio"))

    def build(self) -> Modality:
        return SoundtrackModality(self)


class SoundtrackModality(OneFile):
    """See :class:`Soundtrack`. An item is present where ingest found its clip; a clip without sound, or silent in its
    windows, is absent, with a reason."""

    def __init__(self, spec: Soundtrack) -> None:
        settings = {"stream": "sound", "windows": spec.windows, "max_seconds": spec.max_seconds}
        super().__init__("video", timeline.MAX_BYTES, settings, "timeline", timeline.RECIPE)

    def load(self, index: int) -> Float32:
        """(N,) float32, mono, 16 kHz: the windows one after the other. Raises MediaError."""
        heard: Float32 = np.concatenate(self.read(index)[1].sounds)
        if sounds.silent(heard):
            raise MediaError("silent", f"found {len(heard) / sounds.RATE:.1f} s without a sample above -80 dB")
        return heard
