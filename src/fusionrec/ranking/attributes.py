"""The attributes of users as codes (B5): how they are coded is learnt once and kept; what a user has is given anew.

A coding holds no user: a ranker that keeps it can be handed on, and whoever has the table of users tells it who they
are (:meth:`fusionrec.ranking.base.Ranker.meet`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from fusionrec.ranking.base import UserSet
from fusionrec.types import Columns as C
from fusionrec.types import Int32

MOST = 1000
"""Values of an attribute that get a code of their own, the most frequent ones; the others read as unknown."""
FEWEST = 5
"""A value that fewer users have reads as unknown: of it nothing can be learnt, and it would tell who they are."""
STEPS = 16
"""Codes of a number: equally filled steps."""


@dataclass(frozen=True)
class Coding:
    """``values``: attribute -> its texts, coded from 1 in their order; ``edges``: attribute of numbers -> the inner
    edges of its steps, ascending. Code 0 is unknown."""

    values: Mapping[str, tuple[str, ...]]
    edges: Mapping[str, tuple[float, ...]]

    @classmethod
    def learn(cls, users: pl.DataFrame, ids: Sequence[str], fewest: int = FEWEST) -> Coding:
        """From the rows of ``ids`` in ``users`` (``user_id``, attributes); whoever is not among them changes nothing.

        Texts and truth values are coded by value, numbers by step. Lists, times and paths are no attributes.
        """
        known = rows_of(users, ids)
        values: dict[str, tuple[str, ...]] = {}
        edges: dict[str, tuple[float, ...]] = {}
        for name in sorted(set(known.columns) - {C.USER}) if len(ids) else ():
            column = known[name].drop_nulls()
            if column.dtype.is_numeric():
                there = column.cast(pl.Float64).to_numpy()
                there = there[np.isfinite(there)]
                cuts = np.unique(np.quantile(there, np.linspace(0, 1, STEPS + 1)[1:-1])) if len(there) else there
                edges[name] = tuple(cuts.tolist())
            elif column.dtype in (pl.String, pl.Boolean):
                counts = column.cast(pl.String).alias(name).value_counts().filter(pl.col("count") >= fewest)
                often = counts.sort(["count", name], descending=[True, False]).head(MOST)
                values[name] = tuple(sorted(often[name].to_list()))
        return cls(values, edges)

    def of(self, users: pl.DataFrame, ids: Sequence[str]) -> UserSet:
        """The users ``ids`` in their order; unknown to ``users``, or with a value that is not coded: 0."""
        known = rows_of(users, ids)
        codes: dict[str, Int32] = {}
        sizes: dict[str, int] = {}
        for name, cuts in self.edges.items():
            column = single(known, name).cast(pl.Float64, strict=False)  # a text that is no number is unknown
            column = column.fill_nan(None)
            step = np.searchsorted(np.array(cuts), column.fill_null(0).to_numpy(), side="right") + 1
            codes[name] = np.where(column.is_null().to_numpy(), 0, step).astype(np.int32)
            sizes[name] = len(cuts) + 2
        for name, texts in self.values.items():
            codes[name] = coded(single(known, name).cast(pl.String), texts).astype(np.int32)
            sizes[name] = len(texts) + 1
        names = sorted(codes)
        return UserSet(tuple(ids), {name: codes[name] for name in names}, {name: sizes[name] for name in names})

    def as_json(self) -> dict[str, Any]:
        """Plain JSON; :meth:`from_json` is the inverse."""
        return {
            "values": {name: list(texts) for name, texts in self.values.items()},
            "edges": {name: list(cuts) for name, cuts in self.edges.items()},
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Coding:
        """Raises KeyError, TypeError or ValueError where ``found`` is something else."""
        return cls(
            {str(name): tuple(map(str, texts)) for name, texts in found["values"].items()},
            {str(name): tuple(map(float, cuts)) for name, cuts in found["edges"].items()},
        )


def rows_of(users: pl.DataFrame, ids: Sequence[str]) -> pl.DataFrame:
    """The rows of ``ids`` in their order, the first of each user; null where ``users`` lacks one."""
    order = pl.DataFrame({C.USER: pl.Series(list(ids), dtype=pl.String)})
    return order.join(
        users.unique(C.USER, keep="first", maintain_order=True), on=C.USER, how="left", maintain_order="left"
    )


def single(known: pl.DataFrame, name: str) -> pl.Series:
    """The column of that name; all null where there is none, or one of lists where single values were learnt."""
    if name in known.columns and not known[name].dtype.is_nested():
        return known[name]
    return pl.Series([None] * known.height, dtype=pl.String)


def coded(values: pl.Series, names: Sequence[str]) -> np.ndarray:
    """(N,) 1 + the place of each value among ``names``; 0 for null and for what is none of them."""
    table = pl.DataFrame({"name": pl.Series(list(names), dtype=pl.String), "code": np.arange(1, len(names) + 1)})
    joined = pl.DataFrame({"name": values.cast(pl.String)}).join(table, on="name", how="left", maintain_order="left")
    return joined["code"].fill_null(0).to_numpy()
