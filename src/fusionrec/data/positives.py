"""Which events count: unique positive pairs at their first positive event, and the k-core of the training window."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from fusionrec.data.outcomes import LIKE
from fusionrec.data.schema import TIME
from fusionrec.types import Columns as C

PAIR = [C.USER, C.ITEM]


def positive_pairs(interactions: pl.DataFrame, events: Mapping[str, float | None]) -> pl.DataFrame:
    """Accepted interactions -> ``user_id, item_id, timestamp`` (null without timestamps), sorted by (timestamp, user,
    item). A split that came with the data (``x_label``) follows as a fourth column: of several the lowest, train
    before valid before test, so that nothing of train is asked again.

    ``events`` maps an event to the least value that makes it positive, or to None where any value does, but for a like
    of 0, which is a "no". An event without a value counts only under None."""
    value = pl.col(C.VALUE) if C.VALUE in interactions.columns else pl.lit(None, dtype=pl.Float64)
    denied = (pl.col(C.EVENT) == LIKE) & (value <= 0).fill_null(False)
    rules = [
        (pl.col(C.EVENT) == event) & (~denied if least is None else (value >= least).fill_null(False))
        for event, least in sorted(events.items())
    ]
    positive = interactions.filter(pl.any_horizontal(rules)) if rules else interactions.clear()
    when = pl.col(C.TIME).min() if C.TIME in interactions.columns else pl.lit(None, dtype=TIME).first().alias(C.TIME)
    given = [C.LABEL] if C.LABEL in interactions.columns else []
    pairs = positive.group_by(PAIR).agg(when, *[pl.col(c).min() for c in given])
    return pairs.select(*PAIR, C.TIME, *given).sort(C.TIME, *PAIR)


def k_core(pairs: pl.DataFrame, k: int) -> pl.DataFrame:
    """The largest subset in which every user and every item has at least k pairs; k below 2 changes nothing."""
    while k > 1:
        kept = pairs.filter((pl.len().over(C.USER) >= k) & (pl.len().over(C.ITEM) >= k))
        if kept.height == pairs.height:
            break
        pairs = kept
    return pairs
