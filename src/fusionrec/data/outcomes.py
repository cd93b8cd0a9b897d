"""What was shown and what came of it: one row an impression, one column a task (D7 to D9).

A click, cart, purchase or ad click belongs to the impression of its user and item whose id it names; one that names
none to the latest impression of the pair at most ``minutes`` before it (without timestamps: to the pair's first). A
row's time is when it was shown, or when the first of its events happened where clocks disagree and that is earlier:
what came of it must not count as its past. Who buys or puts into the cart has clicked. A rating or a like is given
later and elsewhere, so it is a row of its own; a like with the value 0 is a "no". A log without impressions has its
views instead. A task that the log never speaks of is null everywhere: unknown, not "no"; so is one that it never
denies, for instance likes alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from fusionrec.data.schema import TIME
from fusionrec.errors import DataRejected
from fusionrec.paths import Paths
from fusionrec.types import Columns as C

TASKS = {"click": "click", "cart": "cart", "purchase": "conversion", "ad_click": "ad_click"}
"""Event -> the task whose label it makes."""
RATING, LIKE = "rating", "like"
SHOWN = ("impression", "view")
"""Events that show an item; the second counts where the log has none of the first."""
UNTIL = "until"
SCHEMA = {
    C.USER: pl.String(), C.ITEM: pl.String(), C.TIME: TIME, UNTIL: TIME, C.POSITION: pl.Int32(), C.SURFACE: pl.String(),
    **{task: pl.Boolean() for task in TASKS.values()}, LIKE: pl.Boolean(), RATING: pl.Float64(),
}  # fmt: skip


@dataclass(frozen=True)
class Outcomes:
    """``rows``: columns of :data:`SCHEMA` (and ``x_label`` where the log has it, the largest of what a row tells of),
    sorted by time, user, item; ``until`` is when the last thing happened that a row tells of. ``lost``: event -> how
    many of it belong to no impression."""

    rows: pl.DataFrame
    lost: dict[str, int]


def outcomes(log: pl.DataFrame, minutes: float = 30.0) -> Outcomes:
    """Accepted interactions -> rows for rankers; empty where nothing was shown and nothing rated."""
    log = _completed(log)
    shown = next((part for event in SHOWN if (part := log.filter(pl.col(C.EVENT) == event)).height), log.clear())
    shown = shown.sort(C.TIME, C.USER, C.ITEM, C.IMPRESSION).with_row_index("row")
    events = log.filter(pl.col(C.EVENT).is_in(list(TASKS))).with_row_index("event_row")
    named = _by_id(events, shown)
    left = events.join(named, on="event_row", how="anti")
    joined = pl.concat([named, _by_time(left, shown, minutes)])
    given = [C.LABEL] if C.LABEL in log.columns else []
    joined = events.select("event_row", C.EVENT, *given, happened=C.TIME).join(joined, on="event_row")
    flags = joined.group_by("row").agg(
        *[(pl.col(C.EVENT) == event).any().alias(task) for event, task in TASKS.items()],
        pl.col("happened").min().alias("first"),
        pl.col("happened").max().alias("last"),
        *[pl.col(name).max().alias(f"last_{name}") for name in given],
    )
    here = set(events[C.EVENT].unique())
    rows = shown.join(flags, on="row", how="left", maintain_order="left").with_columns(
        *[
            (pl.col(task).fill_null(False) if event in here else pl.lit(None, dtype=pl.Boolean)).alias(task)
            for event, task in TASKS.items()
        ],
        pl.when(pl.col(C.TIME).is_not_null()).then(pl.min_horizontal(C.TIME, "first")).alias(C.TIME),
        pl.max_horizontal(C.TIME, "last").alias(UNTIL),
        *[pl.max_horizontal(name, f"last_{name}").alias(name) for name in given],
        pl.lit(None, dtype=pl.Float64).alias(RATING),
        pl.lit(None, dtype=pl.Boolean).alias(LIKE),
    )
    if here & {"cart", "purchase"}:
        later = pl.col("cart").fill_null(False) | pl.col("conversion").fill_null(False)
        rows = rows.with_columns((pl.col("click").fill_null(False) | later).alias("click"))
    value = pl.col(C.VALUE)
    rated, liked = ((pl.col(C.EVENT) == event) & value.is_not_null() for event in (RATING, LIKE))
    denied = log.filter(liked & (value == 0)).height > 0
    told = log.filter(rated | (liked if denied else pl.lit(False))).with_columns(
        pl.col(C.TIME).alias(UNTIL),
        pl.when(rated).then(value).alias(RATING),
        pl.when(liked).then(value > 0).alias(LIKE),
        pl.lit(None, dtype=pl.Int32).alias(C.POSITION),
        pl.lit(None, dtype=pl.String).alias(C.SURFACE),
        *[pl.lit(None, dtype=pl.Boolean).alias(task) for task in TASKS.values()],
    )
    columns = [*SCHEMA, *given]
    whole = pl.concat([rows.select(columns), told.select(columns)]).sort(C.TIME, C.USER, C.ITEM, maintain_order=True)
    counts = dict(
        events.join(joined.select("event_row"), on="event_row", how="anti")[C.EVENT].value_counts().iter_rows()
    )
    return Outcomes(whole, {event: int(counts[event]) for event in sorted(counts)})


def place(spec: Any, rows: pl.DataFrame, pairs: pl.DataFrame, places: pl.Series, first_day: date | None) -> pl.Series:
    """(N,) UInt8, 0 train, 1 valid, 2 test: the part of each row under the split ``spec``, by when the last thing
    happened that it tells of. ``pairs`` and their ``places``: the positives as they were split."""
    moved = rows.with_columns(pl.col(UNTIL).alias(C.TIME))
    found: pl.Series = spec.place_rows(moved, pairs, places, first_day)
    return found


def divided(
    spec: Any, log: pl.DataFrame, pairs: pl.DataFrame, places: pl.Series, first_day: date | None
) -> dict[str, pl.DataFrame]:
    """``train``, ``valid``, ``test`` -> the rows of a log that lie there; arguments as of :func:`place`."""
    rows = outcomes(log).rows
    at = place(spec, rows, pairs, places, first_day)
    kept = rows.select([name for name in SCHEMA if name != UNTIL])
    return {name: kept.filter(at == part) for part, name in enumerate(("train", "valid", "test"))}


def file_of(paths: Paths, name: str) -> Path:
    """data/splits/shown_<name>.parquet"""
    return paths.splits / f"shown_{name}.parquet"


def read(paths: Paths, name: str) -> pl.DataFrame:
    """A part as the stage split wrote it. Raises DataRejected where it has not."""
    path = file_of(paths, name)
    if not path.is_file():
        raise DataRejected(f"data/splits/{path.name} is missing: run the stage split first")
    return pl.read_parquet(path, glob=False)


def _completed(log: pl.DataFrame) -> pl.DataFrame:
    """The log with every column that is asked for, null where it has none."""
    wanted = {
        C.TIME: TIME, C.IMPRESSION: pl.String(), C.POSITION: pl.Int32(), C.SURFACE: pl.String(), C.VALUE: pl.Float64()
    }  # fmt: skip
    return log.with_columns(
        pl.lit(None, dtype=kind).alias(name) for name, kind in wanted.items() if name not in log.columns
    )


def _by_id(events: pl.DataFrame, shown: pl.DataFrame) -> pl.DataFrame:
    """event_row, row: the first impression of the pair with that id, which a whole list may share; an id that names
    another pair's impression alone is not believed."""
    key = [C.IMPRESSION, C.USER, C.ITEM]
    ids = shown.filter(pl.col(C.IMPRESSION).is_not_null()).unique(key, keep="first", maintain_order=True)
    return events.select("event_row", *key).join(ids.select(*key, "row"), on=key).select("event_row", "row")


def _by_time(events: pl.DataFrame, shown: pl.DataFrame, minutes: float) -> pl.DataFrame:
    """event_row, row: the latest impression of the same pair not too long before; without times the pair's first."""
    if events.height == 0 or shown.height == 0:
        return pl.DataFrame(schema={"event_row": events.schema["event_row"], "row": shown.schema["row"]})
    pair = [C.USER, C.ITEM]
    if events[C.TIME].null_count() or shown[C.TIME].null_count():
        first = shown.unique(pair, keep="first", maintain_order=True)
        return events.join(first.select(*pair, "row"), on=pair).select("event_row", "row")
    near = events.sort(C.TIME).join_asof(
        shown.select(*pair, C.TIME, "row").sort(C.TIME),
        on=C.TIME, by=pair, strategy="backward", tolerance=timedelta(minutes=minutes), check_sortedness=False,
    )  # fmt: skip
    return near.filter(pl.col("row").is_not_null()).select("event_row", "row")
