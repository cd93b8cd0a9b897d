"""Tables -> the index form that rankers read: impressions by row numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from fusionrec.data import outcomes
from fusionrec.data.outcomes import LIKE, RATING, TASKS
from fusionrec.data.split import SplitData
from fusionrec.errors import DataRejected
from fusionrec.paths import Paths
from fusionrec.ranking.attributes import MOST, Coding, coded
from fusionrec.ranking.base import POSITION, Impressions, Known
from fusionrec.types import Columns as C
from fusionrec.types import Interactions, ItemSet, concat_interactions


@dataclass(frozen=True)
class Shown:
    """``parts``: split -> its impressions; ``known``: what training may know; ``positives``: those by which the user of
    an impression is known, with times every one, without them those of train; ``surfaces``: what the codes stand for;
    ``coding``: how the attributes of users were coded.
    """

    parts: Mapping[str, Impressions]
    known: Known
    positives: Interactions
    surfaces: tuple[str, ...]
    coding: Coding


def load(paths: Paths, data: SplitData, items: ItemSet, names: Sequence[str]) -> Shown:
    """The shown parts ``names`` of data/splits over the users of ``data`` and the catalogue ``items``.

    Raises DataRejected where the stage split has not written them."""
    rows = {name: outcomes.read(paths, name) for name in dict.fromkeys(("train", *names))}
    surfaces = surfaces_of(rows["train"])
    parts = {name: impressions(rows[name], data.items, data.users, surfaces) for name in names}
    users = read_users(paths)
    coding = Coding.learn(users, data.users)
    known = Known(items, coding.of(users, data.users), data.train)
    # Without times nothing is known to have been before an impression but what training knows.
    later = [data.interactions(name) for name in data.frames if name != "train" and data.has_time]
    return Shown(parts, known, concat_interactions([data.train, *later]), tuple(surfaces), coding)


def read_users(paths: Paths) -> pl.DataFrame:
    """The accepted users with their attributes. Raises DataRejected where the stage split has not written them."""
    file = paths.splits / "users.parquet"
    if not file.is_file():
        raise DataRejected("data/splits/users.parquet is missing: run the stage split first")
    return pl.read_parquet(file, glob=False)


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
        C.SURFACE: coded(rows[C.SURFACE], surfaces).astype(np.int16),
    }
    labels = {task: rows[task].cast(pl.Float32).to_numpy() for task in (*TASKS.values(), LIKE, RATING)}
    return Impressions(
        (coded(rows[C.USER], users) - 1).astype(np.int32),
        (coded(rows[C.ITEM], items) - 1).astype(np.int32),
        rows[C.TIME].dt.epoch("us").to_numpy().astype(np.int64) if timed else None,
        context,
        {task: np.array(values, np.float32) for task, values in labels.items()},
    )


def surfaces_of(rows: pl.DataFrame) -> list[str]:
    """The surfaces that training rows name, in order: of more than :data:`MOST` the most frequent ones, since pages of
    a site may all be surfaces and of a rare one nothing can be learnt."""
    counts = rows.select(pl.col(C.SURFACE).drop_nulls().alias("surface"))["surface"].value_counts()
    often = counts.sort(["count", "surface"], descending=[True, False]).head(MOST)
    return sorted(often["surface"].to_list())
