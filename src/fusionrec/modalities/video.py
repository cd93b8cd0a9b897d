"""The clip of an item."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, field_validator

from fusionrec.encoders import AnyEncoder
from fusionrec.encoders.motion import Motion
from fusionrec.media import base as media
from fusionrec.media import bounded
from fusionrec.media import video as clips
from fusionrec.modalities.base import Modality, ModalityRows, ModalitySpec, check_accepts

if TYPE_CHECKING:
    import polars as pl

PATH, DIGEST = "video_path", "video_sha256"


class Video(ModalitySpec):
    """``windows``: a clip longer than 2.5 s is looked at in up to this many windows of 2 s, spread evenly over it."""

    kind: Literal["video"] = "video"
    windows: int = Field(clips.WINDOWS, ge=1, le=8)
    max_seconds: float = Field(clips.MAX_SECONDS, gt=0, le=36_000, description="what comes later in a clip is ignored")
    encoder: AnyEncoder = Motion()

    _accepts = field_validator("encoder")(check_accepts("video"))

    def build(self) -> Modality:
        return VideoModality(self)


class VideoModality(Modality):
    """See :class:`Video`. An item is present where ingest found its file."""

    def __init__(self, spec: Video) -> None:
        self.spec = spec
        self.root = Path()
        self.files: list[tuple[str, str] | None] = []

    def rows(self, items: pl.DataFrame, root: Path) -> ModalityRows:
        self.root = root
        empty: list[Any] = [None] * len(items)
        paths = items[PATH].to_list() if PATH in items.columns else empty
        digests = items[DIGEST].to_list() if DIGEST in items.columns else empty
        self.files = [(p, d) if p and d else None for p, d in zip(paths, digests, strict=True)]
        return ModalityRows(
            present=np.array([f is not None for f in self.files], bool),
            content=[self._content(f[1]) if f else "" for f in self.files],
            group=np.zeros(len(items), np.int16),
        )

    def _content(self, digest: str) -> str:
        """The file's bytes and the settings that choose frames from them."""
        text = f"{digest}\nwindows={self.spec.windows}\nmax_seconds={self.spec.max_seconds:g}"
        return hashlib.sha256(text.encode()).hexdigest()

    def load(self, index: int) -> Any:
        """A :class:`fusionrec.media.video.Clip`. Raises MediaError."""
        file = self.files[index]
        if file is None:
            raise media.MediaError("missing_file", "this item has no clip")
        data = media.read(self.root, file[0], clips.MAX_BYTES, file[1])
        return bounded.decode("video", data, windows=self.spec.windows, max_seconds=self.spec.max_seconds)
