"""Thumbnails for the report: a catalogue's own pictures, decoded in a bounded child, as small JPEG data: URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from fusionrec.media import bounded
from fusionrec.media.base import MediaError, read
from fusionrec.media.image import MAX_BYTES, square

SIDE = 120


def thumbnail(root: Path, paths: Sequence[str | None], side: int = SIDE) -> str | None:
    """The first readable picture of an item, cut square, as a data: URI; None where there is none.

    ``paths`` are relative to ``root``. A picture that cannot be decoded is left out, never an error: the gate
    reports it.
    """
    for path in paths:
        if not path:
            continue
        try:
            picture = Image.fromarray(square(bounded.decode("image", read(root, path, MAX_BYTES)), side))
        except MediaError:
            continue
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=82, optimize=True)  # re-encoded: nothing of the original file survives
        return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")
    return None
