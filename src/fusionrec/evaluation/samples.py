"""The sample users of the report: drawn by seed, never chosen by result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fusionrec.evaluation.knockout import KnockOut, reasons
from fusionrec.evaluation.pictures import thumbnail
from fusionrec.evaluation.story import Sample, Shown
from fusionrec.types import Bool, Int64, ItemSet, Requests

BEFORE, NOW = 6, 8


def draw(
    requests: Requests,
    positives: Any,
    lists: Int64,
    cold: Bool,
    items: ItemSet,
    knocked: Sequence[KnockOut],
    about: Mapping[str, Mapping[str, Any]],
    root: Path,
    n: int,
    seed: int,
) -> list[Sample]:
    """``n`` users with a positive (all, if fewer), in the order drawn.

    ``lists`` (B, K) the main model's; ``items`` the catalogue with the modalities it reads, ``knocked`` what it does
    without each; ``about`` item id -> {"title", "category", "image_paths"}; ``root`` is what picture paths are
    relative to. Only the pictures that are shown are opened, each once.
    """
    asked = np.flatnonzero(np.diff(positives.indptr) > 0)
    rows = np.random.default_rng(seed).permutation(asked)[:n]
    depth = min([NOW, *(k.lists.shape[1] for k in knocked)])
    why = reasons(lists[rows], [replace(k, lists=k.lists[rows]) for k in knocked], depth) if knocked else None

    @cache
    def picture(item: int) -> str | None:
        return thumbnail(root, about.get(items.ids[item], {}).get("image_paths") or ())

    def shown(item: int, liked: frozenset[int], reason: str = "") -> Shown:
        row = about.get(items.ids[item], {})
        return Shown(
            row.get("title") or items.ids[item],
            row.get("category") or "",
            picture(item),
            item in liked,
            bool(cold[item]),
            {m: bool(items.present[m][item]) for m in items.modalities},
            reason,
        )

    out = []
    for at, user in enumerate(rows):
        liked = frozenset(positives[user].indices.tolist())
        now = [int(i) for i in lists[user, :NOW] if i >= 0]
        before = [shown(i, frozenset()) for i in _latest(requests, int(user))]
        words = list(why[at]) if why else []
        if not before:
            words = ["popularity" if word == "history" else word for word in words]
        told = [shown(i, liked, word) for i, word in zip(now, [*words, *[""] * NOW], strict=False)]
        out.append(Sample(before, told, len(liked), len(liked & set(now))))
    return out


def _latest(requests: Requests, user: int) -> list[int]:
    """The last items of the history, latest first; without times, the first rows."""
    items = requests.history[user].indices
    if requests.history_time is not None:
        timed = requests.history_time[user]
        items = timed.indices[np.argsort(-timed.data, kind="stable")]
    return [int(i) for i in items[:BEFORE]]
