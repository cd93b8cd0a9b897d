"""Pictures of an item: the first few of its list."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, field_validator

from fusionrec.encoders import AnyEncoder
from fusionrec.encoders.efficientnet_lite0 import EfficientNetLite0
from fusionrec.media import base as media
from fusionrec.media import bounded
from fusionrec.media import image as pictures
from fusionrec.modalities.base import Modality, ModalityRows, ModalitySpec, check_accepts

if TYPE_CHECKING:
    import polars as pl

PATHS, DIGESTS = "image_paths", "image_sha256"


class Image(ModalitySpec):
    """``first``: how many pictures of an item are used; the encoder averages them."""

    kind: Literal["image"] = "image"
    first: int = Field(1, ge=1, le=16)
    encoder: AnyEncoder = EfficientNetLite0()

    _accepts = field_validator("encoder")(check_accepts("image"))

    def build(self) -> Modality:
        return ImageModality(self)


class ImageModality(Modality):
    """See :class:`Image`. An item is present where ingest found at least one of its files."""

    def __init__(self, spec: Image) -> None:
        self.spec = spec
        self.root = Path()
        self.files: list[list[tuple[str, str]]] = []

    def rows(self, items: pl.DataFrame, root: Path) -> ModalityRows:
        self.root = root
        empty: list[Any] = [None] * len(items)
        paths = items[PATHS].to_list() if PATHS in items.columns else empty
        digests = items[DIGESTS].to_list() if DIGESTS in items.columns else empty
        self.files = [
            [(p, d) for p, d in zip(ps or (), ds or (), strict=True) if p and d][: self.spec.first]
            for ps, ds in zip(paths, digests, strict=True)
        ]
        return ModalityRows(
            present=np.array([bool(f) for f in self.files], bool),
            content=[_content([d for _, d in f]) for f in self.files],
            group=np.zeros(len(items), np.int16),
        )

    def load(self, index: int) -> Any:
        """A tuple of PIL pictures (RGB). Raises MediaError; one bad picture makes the item absent."""
        return tuple(
            bounded.decode("image", media.read(self.root, path, pictures.MAX_BYTES, digest))
            for path, digest in self.files[index]
        )


def _content(digests: list[str]) -> str:
    """One picture: the digest of its bytes; several: the digest of their digests; none: ""."""
    if len(digests) < 2:
        return "".join(digests)
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
