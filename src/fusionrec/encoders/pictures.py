"""What encoders of pictures share: several pictures of an item are averaged, and strips are cut before they grow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from fusionrec.encoders.forward import each
from fusionrec.types import Float32

BATCH = 4  # pictures that one thread of a processor takes at once: more leave its caches
LONGEST = 4


def averaged(batch: Sequence[Any], forward: Callable[[list[Image.Image]], Float32], size: int = BATCH) -> Float32:
    """n pictures (PIL RGB), or n sequences of pictures of one item -> (n, dim) float32, the mean over an item's.

    ``forward`` gets at most ``size`` pictures each time, on several threads at once.
    """
    groups = [list(x) if isinstance(x, (list, tuple)) else [x] for x in batch]
    pictures = [picture for group in groups for picture in group]
    rows = each(forward, [pictures[start : start + size] for start in range(0, len(pictures), size)])
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
