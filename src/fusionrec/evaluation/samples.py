"""The sample users of the report: drawn by seed, never chosen by result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fusionrec.evaluation.pictures import thumbnail
from fusionrec.evaluation.report import Sample, Shown
from fusionrec.types import Bool, Int64, Requests

BEFORE, NOW = 6, 8


def draw(
    requests: Requests,
    positives: Any,
    lists: Int64,
    cold: Bool,
    ids: Sequence[str],
    about: Mapping[str, Mapping[str, Any]],
    root: Path,
    n: int,
    seed: int,
) -> list[Sample]:
    """``n`` users with a positive (all, if fewer), in the order drawn.

    ``lists`` (B, K) the main model's; ``about`` item id -> {"title", "category", "image_paths"}; ``root`` is what
    picture paths are relative to. Only the pictures that are shown are opened, each once.
    """
    asked = np.flatnonzero(np.diff(positives.indptr) > 0)
    rows = np.random.default_rng(seed).permutation(asked)[:n]

    @cache
    def picture(item: int) -> str | None:
        return thumbnail(root, about.get(ids[item], {}).get("image_paths") or ())

    def shown(item: int, liked: frozenset[int]) -> Shown:
        row = about.get(ids[item], {})
        return Shown(
            row.get("title") or ids[item], row.get("category") or "", picture(item), item in liked, bool(cold[item])
        )

    out = []
    for user in rows:
        liked = frozenset(positives[user].indices.tolist())
        now = [int(i) for i in lists[user, :NOW] if i >= 0]
        before = [shown(i, frozenset()) for i in _latest(requests, int(user))]
        out.append(Sample(before, [shown(i, liked) for i in now], len(liked), len(liked & set(now))))
    return out


def _latest(requests: Requests, user: int) -> list[int]:
    """The last items of the history, latest first; without times, the first rows."""
    items = requests.history[user].indices
    if requests.history_time is not None:
        timed = requests.history_time[user]
        items = timed.indices[np.argsort(-timed.data, kind="stable")]
    return [int(i) for i in items[:BEFORE]]
