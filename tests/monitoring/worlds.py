"""Made-up sides with planted differences; sizes all differ."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from fusionrec.monitoring.descriptors import Column
from fusionrec.monitoring.sides import Side
from fusionrec.types import Columns as C

START = datetime(2026, 1, 1, tzinfo=UTC)
CATEGORIES = ("vase", "mug", "lamp", "tote")


def side(
    seed: int,
    n_items: int = 240,
    n_users: int = 310,
    per_user: int = 12,
    *,
    prefix: str = "a",
    brightness: float = 0.7,
    vectors: float = 0.0,
    taste: float = 0.0,
    favourite: float = 0.0,
    purchases: float = 0.2,
    visit: int = 3,
    steep: float = 0.5,
    new_category: float = 0.0,
    missing: float = 0.08,
    dim: int = 24,
) -> Side:
    """Items with pictures (24 numbers), users who like the first number by ``taste`` and the category vase by
    ``favourite``; popularity has log-spread ``steep``; a visit has about ``visit`` events."""
    rng = np.random.default_rng([seed, 11])
    ids = [f"{prefix}{k:04d}" for k in range(n_items)]
    x = rng.normal(size=(n_items, dim)).astype(np.float32) + np.float32(vectors)
    present = rng.random(n_items) >= missing
    x[~present] = 0
    category = rng.choice(CATEGORIES, n_items).astype(object)
    category[rng.random(n_items) < new_category] = "bottle"
    appeal = steep * rng.normal(size=n_items) + taste * x[:, 0] + favourite * (category == "vase")
    items = pl.DataFrame({C.ITEM: ids, C.CATEGORY: list(category), C.CREATED: [START] * n_items})
    own = rng.normal(size=(n_users, 6)) @ rng.normal(size=(6, n_items)) * 0.3
    rows: list[dict[str, Any]] = []
    for user in range(n_users):
        logits = appeal + own[user]
        chosen = np.argsort(-(logits + rng.gumbel(size=n_items)))[:per_user]
        day = 0
        for at, item in enumerate(chosen):
            day += int(at % visit == 0)
            when = START + timedelta(days=day, seconds=at)
            rows.append({C.USER: f"{prefix}u{user}", C.ITEM: ids[item], C.EVENT: "click", C.TIME: when})
            if rng.random() < purchases:
                rows.append({C.USER: f"{prefix}u{user}", C.ITEM: ids[item], C.EVENT: "purchase", C.TIME: when})
    events = pl.DataFrame(rows)
    light = np.where(present, np.clip(rng.normal(brightness, 0.08, n_items), 0, 1), np.nan)
    given = np.array(["yes" if p else "no" for p in present], object)
    columns = (
        Column("image", "brightness", light, reads="image"),
        Column("image", "width", np.full(n_items, 256.0), reads="image"),
        Column("attributes", "category", np.array(list(category), object)),
        Column("data quality", "image given", given, "image"),
    )
    return Side(
        items=items,
        columns=columns,
        vectors={"image": (x, present)},
        reads={"image": "image"},
        events=events,
        pairs=events.group_by(C.USER, C.ITEM).agg(pl.col(C.TIME).min()),
        rows={"items": pl.DataFrame({"cluster": ids, "aside": [0] * n_items, "read": [1] * n_items})},
    )
