"""What is compared: one side of a comparison (the reference or a batch) as tables, descriptors and vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fusionrec.monitoring.descriptors import Column
from fusionrec.types import Bool, Float32
from fusionrec.types import Columns as C


@dataclass(frozen=True)
class Side:
    """n items and what users did with them.

    ``items``: the accepted item table; ``columns``: descriptors, values aligned to its rows; ``vectors``: modality ->
    ((n, D) float32, (n,) present); ``reads``: modality -> what its encoder reads. ``events``: ``user_id, item_id,
    event`` and maybe ``timestamp``; ``pairs``: unique positive pairs ``user_id, item_id, timestamp``. ``rows``: table
    -> (set aside, read) by cluster (the user, or the item), for the quarantined shares. ``lacking``: part -> why it
    cannot be computed.
    """

    items: pl.DataFrame
    columns: tuple[Column, ...]
    vectors: Mapping[str, tuple[Float32, Bool]]
    reads: Mapping[str, str]
    events: pl.DataFrame
    pairs: pl.DataFrame
    rows: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    lacking: Mapping[str, str] = field(default_factory=dict)

    @property
    def ids(self) -> list[str]:
        return self.items[C.ITEM].to_list()

    def part(self, items: NDArray[np.bool_], users: pl.Series) -> Side:
        """The side reduced to some items ((n,) bool) and users; the log keeps what names both."""
        kept = self.items.filter(items)
        inside = pl.col(C.ITEM).is_in(kept[C.ITEM].implode()) & pl.col(C.USER).is_in(users.implode())
        keep = {C.ITEM: kept[C.ITEM], C.USER: users}
        return Side(
            kept,
            tuple(c.rows(items) for c in self.columns),
            {m: (np.asarray(x)[items], p[items]) for m, (x, p) in self.vectors.items()},
            self.reads,
            self.events.filter(inside),
            self.pairs.filter(inside),
            {t: f.filter(pl.col("cluster").is_in(keep[C.ITEM if t == "items" else C.USER].implode()))
             for t, f in self.rows.items()},
            self.lacking,
        )  # fmt: skip


def quarantined(lines: pl.DataFrame, frames: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """table -> ``cluster, aside, read``: rows set aside and read for each item or user.

    ``lines``: a quarantine table of the contract; ``frames``: the accepted rows. A key of interactions starts with
    the user's 32 digits; a row without a usable key is its own cluster.
    """
    out = {}
    for table, cluster in (("items", C.ITEM), ("interactions", C.USER)):
        if table not in frames:
            continue
        mine = lines.filter(pl.col("row") & (pl.col("table") == table)).with_row_index("n")
        key = pl.col("key") if table == "items" else pl.col("key").str.slice(0, 32)
        gone = mine.select(cluster=key.fill_null(pl.format("row {}", "n")), aside=1, read=1)
        good = frames[table].select(cluster=pl.col(cluster), aside=0, read=1)
        out[table] = pl.concat([gone, good], how="vertical_relaxed").group_by("cluster").sum().sort("cluster")
    return out


def offered(side: Side) -> Bool:
    """(n,) bool: items that were on offer during the whole of the log, where creation times are known.

    An item that came half-way had less time to be chosen, on both sides; comparing it would compare the windows.
    """
    if C.CREATED not in side.items.columns or C.TIME not in side.events.columns or side.events.height == 0:
        return np.ones(side.items.height, bool)
    start = side.events[C.TIME].min()
    first_day = pl.lit(start).dt.offset_by("1d") if start is not None else pl.lit(None)
    inside = side.items.select((pl.col(C.CREATED) <= first_day).fill_null(True)).to_series().to_numpy()
    return inside if inside.sum() >= 20 else np.ones(side.items.height, bool)


def capped_users(events: pl.DataFrame, most: int) -> pl.DataFrame:
    """At most about ``most`` rows: whole users are left out, by the hash of their pseudonym."""
    if events.height <= most:
        return events
    share = most / events.height
    users = events[C.USER].unique()
    kept = [u for u in users.to_list() if _unit(u) < share]
    return events.filter(pl.col(C.USER).is_in(pl.Series(kept, dtype=pl.String).implode()))


def _unit(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64


def codes(*columns: pl.Series) -> tuple[int, list[NDArray[Any]]]:
    """Values of several columns as numbers of one common space: (how many, an array for each)."""
    together = pl.concat([c.cast(pl.String) for c in columns])
    known = pl.DataFrame({"value": together.unique(maintain_order=True)}).with_row_index("number")
    joined = pl.DataFrame({"value": together}).join(
        known, on="value", how="left", maintain_order="left", nulls_equal=True
    )
    numbers = joined["number"].to_numpy().astype(np.int64)
    bounds = np.cumsum([0, *(len(c) for c in columns)])
    return int(numbers.max(initial=-1)) + 1, [numbers[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
