"""A clip as pictures: its spread frames through a picture encoder, their mean and how much they change.

Temporal mean pooling of frame features is the usual baseline for video retrieval (Karpathy et al. 2014, "Large-scale
video classification with convolutional neural networks", single-frame model); the mean absolute change between
neighbouring frames adds a little of what moves. For motion itself the encoder ``motion`` sees more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import BeforeValidator, Field, SerializeAsAny, TypeAdapter, field_validator

from fusionrec.encoders.base import Accepts, Encoder, EncoderSpec
from fusionrec.encoders.forward import Precision
from fusionrec.encoders.weights import fingerprint
from fusionrec.media.video import RECIPE
from fusionrec.types import Float32


def _any_encoder(value: Any) -> Any:
    from fusionrec.encoders import AnyEncoder  # the registry names this file too, so it is asked late

    return value if isinstance(value, EncoderSpec) else TypeAdapter(AnyEncoder).validate_python(value)


class Frames(EncoderSpec):
    """``image``: the encoder of the single frames."""

    accepts: ClassVar[Accepts] = "video"
    kind: Literal["frames"] = "frames"
    image: Annotated[SerializeAsAny[EncoderSpec], BeforeValidator(_any_encoder)] = Field(
        {"kind": "efficientnet_lite0", "features": "final"}, validate_default=True
    )

    @field_validator("image")
    @classmethod
    def _reads_pictures(cls, image: EncoderSpec) -> EncoderSpec:
        if image.accepts != "image":
            raise ValueError(f"the encoder {image.kind!r} reads {image.accepts}, expected one that reads image")
        if image.learnt:
            raise ValueError(f"the encoder {image.kind!r} is learnt on whole items; take a frozen one for frames")
        return image

    def fingerprint(self) -> str:
        return fingerprint(self.kind, image=self.image.fingerprint(), decode=RECIPE, version=1)

    @property
    def half(self) -> Precision:
        return self.image.half

    def exact(self) -> Frames:
        return self.model_copy(update={"image": self.image.exact()})

    def build(self) -> Encoder:
        return FramesEncoder(self.image.build())


class FramesEncoder(Encoder):
    """``dim`` is twice the picture encoder's: the mean over frames, then the mean absolute change."""

    chunk = 8

    def __init__(self, image: Encoder) -> None:
        self.image, self.at_once = image, image.at_once
        self.dim = 2 * image.dim

    @property
    def halved(self) -> int:
        return self.image.halved

    def encode(self, batch: Sequence[Any]) -> Float32:
        """n clips -> (n, dim) float32. A clip of one frame does not change."""
        kept = [[row[row >= 0] for row in clip.spread] for clip in batch]
        pictures = [
            Image.fromarray(clip.frames[k])
            for clip, windows in zip(batch, kept, strict=True)
            for row in windows
            for k in row
        ]
        rows = self.image.encode(pictures)
        out, at = np.zeros((len(batch), self.dim), np.float32), 0
        for number, windows in enumerate(kept):
            parts = []
            for row in windows:
                part, at = rows[at : at + len(row)], at + len(row)
                change = np.abs(np.diff(part, axis=0)).mean(axis=0) if len(part) > 1 else np.zeros_like(part[0])
                parts.append(np.concatenate([part.mean(axis=0), change]))
            out[number] = np.mean(parts, axis=0)
        return out
