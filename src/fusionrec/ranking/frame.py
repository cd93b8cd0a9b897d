"""Tables -> the index form that rankers read: impressions by row numbers, attributes of users as codes (B5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from fusionrec.data import outcomes
from fusionrec.data.outcomes import LIKE, RATING, TASKS
from fusionrec.data.split import SplitData
from fusionrec.paths import Paths
from fusionrec.ranking.base import POSITION, Impressions, Known, UserSet
from fusionrec.types import Columns as C
from fusionrec.types import Int32, Interactions, ItemSet, concat_interactions


@dataclass(frozen=True)
class Shown:
    """``parts``: split -> its impressions; ``known``: what training may know; ``positives``: those by which the user of
    an impression is known, with times every one, without them those of train; ``surfaces``: what the codes stand for.
    """

    parts: Mapping[str, Impressions]
    known: Known
    positives: Interactions
    surfaces: tuple[str, ...]


MOST_VALUES = 1000
"""Values of a user attribute that get a code of their own: the most frequent ones; the others read as unknown."""
STEPS = 16
"""Codes of a number: equally filled steps."""


def load(paths: Paths, data: SplitData, items: ItemSet, names: Sequence[str]) -> Shown:
    """The shown parts ``names`` of data/splits over the users of ``data`` and the catalogue ``items``.

    Raises DataRejected where the stage split has not written them."""
    rows = {name: outcomes.read(paths, name) for name in dict.fromkeys(("train", *names))}
    surfaces = surfaces_of(rows["train"])
    parts = {name: impressions(rows[name], data.items, data.users, surfaces) for name in names}
    users = pl.read_parquet(paths.splits / "users.parquet", glob=False)
    known = Known(items, user_set(users, data.users), data.train)
    # Without times nothing is known to have been before an impression but what training knows.
    later = [data.interactions(name) for name in data.frames if name != "train" and data.has_time]
    return Shown(parts, known, concat_interactions([data.train, *later]), tuple(surfaces))


def impressions(
    rows: pl.DataFrame, items: Sequence[str], users: Sequence[str], surfaces: Sequence[str] = ()
) -> Impressions:
    """Rows of :func:`fusionrec.data.outcomes.outcomes` over these items and users; those of other items are left out.

    ``surfaces``: the known ones, coded from 1 in their order. Times are left out where one is missing.
    """
    rows = rows.filter(pl.col(C.ITEM).is_in(pl.Series(list(items), dtype=pl.String).implode()))
    timed = rows[C.TIME].null_count() == 0
    context = {
        POSITION: rows[C.POSITION].fill_null(0).clip(0, np.iinfo(np.int16).max).to_numpy().astype(np.int16),
        C.SURFACE: _codes(rows[C.SURFACE], surfaces).astype(np.int16),
    }
    labels = {task: rows[task].cast(pl.Float32).to_numpy() for task in (*TASKS.values(), LIKE, RATING)}
    return Impressions(
        (_codes(rows[C.USER], users) - 1).astype(np.int32),
        (_codes(rows[C.ITEM], items) - 1).astype(np.int32),
        rows[C.TIME].dt.epoch("us").to_numpy().astype(np.int64) if timed else None,
        context,
        {task: np.array(values, np.float32) for task, values in labels.items()},
    )


def surfaces_of(rows: pl.DataFrame) -> list[str]:
    """The surfaces that training rows name, in order."""
    return sorted(rows[C.SURFACE].drop_nulls().unique().to_list())


def user_set(users: pl.DataFrame | None, ids: Sequence[str]) -> UserSet:
    """The attributes of the users ``ids``, in their order; every column of ``users`` beside the id is one.

    Texts and truth values get a code a value (by name, the most frequent :data:`MOST_VALUES`), numbers one of
    :data:`STEPS` equally filled steps; 0 is unknown. Lists, times and paths are no attributes. Codes come from ``ids``
    alone: a user who is not among them changes nothing.
    """
    if users is None or len(ids) == 0:
        return UserSet(tuple(ids))
    order = pl.DataFrame({C.USER: pl.Series(list(ids), dtype=pl.String)})
    known = order.join(users.unique(C.USER, keep="first"), on=C.USER, how="left", maintain_order="left")
    codes: dict[str, Int32] = {}
    sizes: dict[str, int] = {}
    for name in sorted(set(known.columns) - {C.USER}):
        column = known[name]
        if column.dtype.is_numeric():
            edges = (
                np.unique(np.quantile(column.drop_nulls().to_numpy(), np.linspace(0, 1, STEPS + 1)[1:-1]))
                if (column.null_count() < len(column))
                else np.zeros(0)
            )
            step = np.searchsorted(edges, column.fill_null(0).to_numpy(), side="right") + 1
            codes[name] = np.where(column.is_null().to_numpy(), 0, step).astype(np.int32)
            sizes[name] = len(edges) + 2
        elif column.dtype in (pl.String, pl.Boolean):
            text = column.cast(pl.String)
            counts = text.drop_nulls().value_counts().sort(["count", name], descending=[True, False])
            values = sorted(counts[name].head(MOST_VALUES).to_list())
            codes[name] = _codes(text, values).astype(np.int32)
            sizes[name] = len(values) + 1
    return UserSet(tuple(ids), codes, sizes)


def _codes(values: pl.Series, names: Sequence[str]) -> np.ndarray:
    """(N,) 1 + the place of each value among ``names``; 0 for null and for what is none of them."""
    table = pl.DataFrame({"name": pl.Series(list(names), dtype=pl.String), "code": np.arange(1, len(names) + 1)})
    joined = pl.DataFrame({"name": values.cast(pl.String)}).join(table, on="name", how="left", maintain_order="left")
    return joined["code"].fill_null(0).to_numpy()
