"""The clip of an item."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from fusionrec.encoders import AnyEncoder
from fusionrec.encoders.motion import Motion
from fusionrec.media import video as clips
from fusionrec.modalities.base import Modality, ModalitySpec, OneFile, check_accepts


class Video(ModalitySpec):
    """``windows``: a clip longer than 2.5 s is looked at in up to this many windows of 2 s, spread evenly over it."""

    kind: Literal["video"] = "video"
    windows: int = Field(clips.WINDOWS, ge=1, le=8)
    max_seconds: float = Field(clips.MAX_SECONDS, gt=0, le=36_000, description="what comes later in a clip is ignored")
    encoder: AnyEncoder = Motion()

    _accepts = field_validator("encoder")(check_accepts("video"))

    def build(self) -> Modality:
        return VideoModality(self)


class VideoModality(OneFile):
    """See :class:`Video`. An item is present where ingest found its file."""

    def __init__(self, spec: Video) -> None:
        super().__init__("video", clips.MAX_BYTES, {"windows": spec.windows, "max_seconds": spec.max_seconds})

    def load(self, index: int) -> Any:
        """A :class:`fusionrec.media.video.Clip`. Raises MediaError."""
        return self.read(index)[1]
