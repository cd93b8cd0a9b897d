"""The vector side: a modality's item vectors made comparable, and queries put into the same place.

Texts of one language lie together in a multilingual encoder's space, whatever they speak of. Subtracting each
language's mean and dividing by its deviation brings the languages together (fusion/space.py does the same for models).
Queries are shorter than descriptions and have a mean of their own; it is learnt from earlier queries.
Legend: I items, D dimensions, B queries.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fusionrec.fusion.space import MIN_GROUP
from fusionrec.types import Bool, Float32


class Standard:
    """Vectors (I, D) of one modality, ``present`` (I,), in the groups (I,) that have these names (languages).

    ``rows`` (I, D) float32: standardised within the group, of unit length, zero where absent. Groups with few items
    take the statistics of all.
    """

    def __init__(self, x: Float32, present: Bool, group: NDArray[np.int16], names: tuple[str, ...]) -> None:
        self.present = present
        have = x[present].astype(np.float64) if present.any() else np.zeros((1, x.shape[1]))
        self._whole = (have.mean(0), _deviation(have, have))
        self._of: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        rows = np.zeros(x.shape, np.float32)
        for number, name in enumerate(names):
            here = present & (group == number)
            part = x[here].astype(np.float64)
            if len(part) >= MIN_GROUP:
                self._of[name] = (part.mean(0), _deviation(part, have))
            mean, deviation = self._of.get(name, self._whole)
            rows[here] = (part - mean) / deviation
        self.rows = unit(rows)

    def place(self, queries: Float32, groups: list[str], means: Mapping[str, Float32] | None = None) -> Float32:
        """(B, D) encoded queries, each with the name of its group -> (B, D) float32 of unit length.

        ``means``: group -> (D,) mean of earlier queries. Without one a query keeps its own place: the mean of
        descriptions is not that of queries. Pictures are asked with pictures: their mean is the items'."""
        out = np.zeros(queries.shape, np.float64)
        for at, (query, name) in enumerate(zip(queries, groups, strict=True)):
            mean, deviation = self._of.get(name, self._whole)
            if means is not None:
                mean = np.asarray(means[name], np.float64) if name in means else np.zeros_like(mean)
            out[at] = (query - mean) / deviation
        return unit(out.astype(np.float32))

    def similarity(self, placed: Float32) -> Float32:
        """(B, D) -> (B, I) cosines, 0 for items without the modality."""
        return placed @ self.rows.T


def _deviation(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """(D,) standard deviations, none so small that a direction without content becomes loud."""
    floor = 1e-3 * max(float(np.median(whole.std(0))), 1e-6)
    return np.maximum(part.std(0), floor)


def unit(x: Float32) -> Float32:
    """Rows of length 1; a zero row stays."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.maximum(length, 1e-12), np.float32)
