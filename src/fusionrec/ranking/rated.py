"""Past rating: what an item had been rated strictly before an impression, as one more modality of the fusion (C2's
``text + lambda image + mu rating``; D12, recipe d).

The mean of its ratings, drawn towards the mean of all by :data:`PRIOR` imagined ratings, in standard deviations. A
rating of the impression itself, or given later, never enters, neither in training nor where a request says its time; an
item without an earlier one lacks the modality.
Legend: N ratings, I items, B rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fusionrec.errors import ConfigError
from fusionrec.ranking.base import Impressions
from fusionrec.types import Bool, Float32, Float64, Int64

NAME = "rating"
"""The modality's name in the fusion."""
PRIOR = 5.0


@dataclass(frozen=True)
class PastRatings:
    """The ratings of training in the order of item and time: ``start`` (I + 1,) where each item's begin, ``total``
    (N + 1,) running sum of ``(rating - mean) / deviation``; ``moments`` the different times in order, ``key`` (N,)
    ascending, of item and moment."""

    start: Int64
    total: Float64
    moments: Int64
    key: Int64

    @classmethod
    def learn(cls, train: Impressions, items: int) -> PastRatings:
        """From the rated rows of training over ``items`` items.

        Raises ValueError where ratings have no times: which came first is not known then.
        """
        label = train.labels.get(NAME, np.full(len(train), np.nan, np.float32))
        rated = np.flatnonzero(~np.isnan(label))
        if train.time is None or len(rated) == 0:
            lack = "no timestamps" if train.time is None else "no ratings"
            raise ValueError(f"past_rating: found {lack} in training, expected ratings with times; set it to false")
        item, time = train.item[rated].astype(np.int64), train.time[rated]
        value = label[rated].astype(np.float64)
        value = (value - value.mean()) / (value.std() or 1.0)
        moments = np.unique(time)
        key = item * (len(moments) + 1) + np.searchsorted(moments, time)
        order = np.argsort(key, kind="stable")
        start = np.searchsorted(item[order], np.arange(items + 1)).astype(np.int64)
        return cls(start, np.concatenate([[0.0], np.cumsum(value[order])]), moments, key[order])

    def before(self, item: Int64, time: Int64 | None) -> tuple[Float32, Bool]:
        """(B, 1) the past rating of each item, -1 for a new one, at ``time`` (B,), None: after all of training; (B,)
        whether there is any."""
        known = np.maximum(item, 0)
        first, last = self.start[known], self.start[known + 1]
        if time is not None:
            last = np.searchsorted(self.key, known * (len(self.moments) + 1) + np.searchsorted(self.moments, time))
        count = np.where(item >= 0, last - first, 0).astype(np.int64)
        mean = (self.total[first + count] - self.total[first]) / (count + PRIOR)
        return mean.astype(np.float32)[:, None], count > 0

    def arrays(self) -> dict[str, np.ndarray]:
        """Of each item its ratings with their times, since a request knows those before it; not who gave which."""
        return {f"rated/{name}": getattr(self, name) for name in ("start", "total", "moments", "key")}

    @classmethod
    def restore(cls, arrays: Mapping[str, np.ndarray]) -> PastRatings:
        """The inverse of :meth:`arrays`. Raises ConfigError for those of a version that kept no times."""
        if "rated/moments" not in arrays:
            raise ConfigError(
                "past_rating: this ranker was written without the times of its ratings, so it would know later ones: "
                "use the fusionrec that wrote it, or run the stage rank again"
            )
        start, moments, key = (np.asarray(arrays[f"rated/{name}"], np.int64) for name in ("start", "moments", "key"))
        return cls(start, np.asarray(arrays["rated/total"], np.float64), moments, key)
