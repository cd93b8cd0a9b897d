"""Earlier searches and what was clicked after them: what the click side learns from, and what a test asks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fusionrec.data import tables
from fusionrec.paths import Paths
from fusionrec.types import Columns as C

CHOSEN = ("click", "cart", "purchase")


@dataclass(frozen=True)
class Past:
    """Q searches in time order: ``texts``, ``users``, ``first`` (Q,) the row of the item that the query log names,
    ``clicked``: the rows of all items that the interaction log says were chosen from its results."""

    texts: list[str]
    users: list[str]
    first: NDArray[np.int64]
    clicked: list[NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: NDArray[np.int64] | Sequence[int]) -> Past:
        rows = [int(r) for r in rows]
        return Past(
            [self.texts[r] for r in rows],
            [self.users[r] for r in rows],
            self.first[rows],
            [self.clicked[r] for r in rows],
        )

    def digest(self) -> str:
        """Hex sha256 over the texts, who asked and what was clicked."""
        asked = zip(self.texts, self.users, self.clicked, strict=True)
        lines = [f"{text!r} {user!r} {items.tolist()}" for text, user, items in asked]
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


def searches(paths: Paths, ids: Sequence[str], since: datetime | None = None, until: datetime | None = None) -> Past:
    """The accepted queries with a text and a clicked item of the catalogue, ``since`` <= time < ``until``.

    Empty where the catalogue has no query log. With a bound, a query without a time is left out: nobody knows on which
    side it lies. Clicks, carts and purchases are joined by ``query_id``, within the same bounds."""
    at = {item: row for row, item in enumerate(ids)}
    log = tables.accepted(paths, "queries")
    have = {C.QUERY, "text", "clicked_item_id"} <= set(log.columns)
    if not have or log.is_empty():
        return Past([], [], np.zeros(0, np.int64), [])
    for name in (C.TIME, C.USER):
        if name not in log.columns:
            log = log.with_columns(pl.lit(None, pl.Datetime("us", "UTC") if name == C.TIME else pl.String).alias(name))
    known = pl.Series(list(ids), dtype=pl.String).implode()
    log = log.filter(pl.col("clicked_item_id").is_in(known) & (pl.col("text").str.strip_chars() != ""))
    log = _between(log, since, until).sort(C.TIME, C.QUERY, nulls_last=False)
    also = _chosen(paths, log, known, since, until)
    first = np.array([at[item] for item in log["clicked_item_id"]], np.int64)
    clicked = [
        np.array(sorted({int(one), *(at[item] for item in also.get(query, ()))}), np.int64)
        for query, one in zip(log[C.QUERY].to_list(), first, strict=True)
    ]
    users = [user or query for user, query in zip(log[C.USER].to_list(), log[C.QUERY].to_list(), strict=True)]
    return Past(log["text"].to_list(), users, first, clicked)


def _chosen(
    paths: Paths, log: pl.DataFrame, known: pl.Expr | pl.Series, since: datetime | None, until: datetime | None
) -> dict[str, list[str]]:
    """query id -> the items chosen from its results, as the interaction log has them."""
    events = tables.accepted(paths, "interactions")
    if C.QUERY not in events.columns:
        return {}
    events = events.filter(
        pl.col(C.EVENT).is_in(CHOSEN) & pl.col(C.QUERY).is_in(log[C.QUERY].implode()) & pl.col(C.ITEM).is_in(known)
    )
    events = _between(events, since, until) if C.TIME in events.columns else events.clear()
    return dict(events.group_by(C.QUERY).agg(pl.col(C.ITEM).unique()).iter_rows())


def _between(frame: pl.DataFrame, since: datetime | None, until: datetime | None) -> pl.DataFrame:
    if since is not None:
        frame = frame.filter(pl.col(C.TIME) >= since)
    if until is not None:
        frame = frame.filter(pl.col(C.TIME) < until)
    return frame


def train_ends(paths: Paths) -> datetime | None:
    """Where validation begins, in a split by time; None for every other split."""
    from fusionrec.data import split

    told = split.summary(paths).get("windows", {}).get("valid_from")
    return datetime.fromisoformat(told).astimezone(UTC) if told else None
