"""What a report tells, as data: the evaluate stage fills a :class:`Story`, the page and its charts read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fusionrec.evaluation.table import ITSELF, MAIN

BOUNDS = ("oracle", "random")
"""Not trained: never the best of a column, never a baseline."""


@dataclass(frozen=True)
class Shown:
    """One item of a sample user.

    ``picture`` is a data: URI or None; ``has`` modality -> whether the item has it; ``why``: one word, or empty
    (:func:`fusionrec.evaluation.knockout.reasons`).
    """

    title: str
    category: str = ""
    picture: str | None = None
    hit: bool = False
    new: bool = False
    has: Mapping[str, bool] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True)
class Sample:
    """One user: what was liked before (latest first) and what is recommended now."""

    before: Sequence[Shown]
    now: Sequence[Shown]
    asked: int
    found: int


@dataclass(frozen=True)
class Story:
    """Everything the page shows.

    ``table`` are the rows of table.json, ``tests`` is tests.json; ``facts`` the sizes and the protocol; ``carried``
    modality -> share of the items that have it; ``by_k``, ``exposure``, ``beyond``, ``categories``, ``knockouts``,
    ``missing``: the rows of plots/*.csv with the models' labels; ``ranking``: ranking.json.
    """

    label: str
    modalities: Sequence[str]
    main_metric: str
    facts: Mapping[str, Any]
    table: Sequence[Mapping[str, Any]]
    tests: Mapping[str, Any]
    by_k: Sequence[Mapping[str, Any]] = ()
    exposure: Sequence[Mapping[str, Any]] = ()
    beyond: Sequence[Mapping[str, Any]] = ()
    categories: Sequence[Mapping[str, Any]] = ()
    knockouts: Sequence[Mapping[str, Any]] = ()
    missing: Sequence[Mapping[str, Any]] = ()
    ranking: Mapping[str, Any] = field(default_factory=dict)
    carried: Mapping[str, float] = field(default_factory=dict)
    samples: Sequence[Sample] = ()

    def row(self, model: str, part: str, metric: str) -> Mapping[str, Any] | None:
        """The row of the table, or None where there are no users."""
        for row in self.table:
            if (row["model"], row["slice"], row["metric"]) == (model, part, metric):
                return row if row["mean"] is not None else None
        return None

    def main(self, part: str = "all", metric: str | None = None) -> Mapping[str, Any] | None:
        """The main model's row, of the main metric unless another is asked for."""
        return self.row(MAIN, part, metric or self.main_metric)

    @property
    def k(self) -> str:
        return self.main_metric.rpartition("@")[2]

    def best_baseline(self) -> str | None:
        """The strongest other model that is no part of the main one, and has it not as its own part, by the main
        metric over all users."""
        rows = [
            r
            for r in self.table
            if (r["slice"], r["metric"]) == ("all", self.main_metric)
            and r["model"] not in {MAIN, *ITSELF, *BOUNDS}
            and not r["model"].startswith("only-")
            and r["mean"] is not None
        ]
        return max(rows, key=lambda r: (r["mean"], r["model"]))["model"] if rows else None
