"""What encoders of pictures share: several pictures of an item are averaged, and strips are cut before they grow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from fusionrec.types import Float32

BATCH = 8
LONGEST = 4


def averaged(batch: Sequence[Any], forward: Callable[[list[Image.Image]], Float32]) -> Float32:
    """n pictures (PIL RGB), or n sequences of pictures of one item -> (n, dim) float32, the mean over an item's.

    ``forward`` gets exactly :data:`BATCH` pictures each time, the last one repeated, so that a row's bits do not depend
    on its batch.
    """
    groups = [list(x) if isinstance(x, (list, tuple)) else [x] for x in batch]
    pictures = [picture for group in groups for picture in group]
    rows = []
    for start in range(0, len(pictures), BATCH):
        part = pictures[start : start + BATCH]
        rows.append(forward(part + part[-1:] * (BATCH - len(part)))[: len(part)])
    owner = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    every = np.concatenate(rows)
    out = np.zeros((len(groups), every.shape[1]), np.float32)
    np.add.at(out, owner, every)
    return out / np.bincount(owner, minlength=len(groups)).astype(np.float32)[:, None]


def no_strip(picture: Image.Image) -> Image.Image:
    """The picture, or its :func:`middle`."""
    box = middle(*picture.size)
    return picture if box == (0, 0, *picture.size) else picture.crop(box)


def middle(width: int, height: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of what is looked at: everything, or the middle where one side is more than
    :data:`LONGEST` times the other. Who scales the short side up and cuts the square out of the middle would otherwise
    make a huge picture of a 1 x 40,000 strip."""
    most = LONGEST * min(width, height)
    left, top = max(width - most, 0) // 2, max(height - most, 0) // 2
    return left, top, left + min(width, most), top + min(height, most)
