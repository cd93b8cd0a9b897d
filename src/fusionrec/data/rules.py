"""The soft and structural rules of the gate as data; :mod:`fusionrec.data.expectations` runs them.

A rule's ``level``: ``row`` sets the row aside, ``cell`` only that cell, ``hard`` stops the run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import polars as pl

from fusionrec.data.languages import PATTERN
from fusionrec.data.schema import MEDIA, REQUIRED, TABLES, media_columns
from fusionrec.types import EVENTS
from fusionrec.types import Columns as C

VERSION = 2  # raise when the meaning of a rule changes: remembered verdicts are then made anew


@dataclass(frozen=True)
class Rules:
    """The numbers of the gate (the ``gate`` section of params.yaml) and the present time."""

    min_items: int = 10
    min_interactions: int = 50
    max_quarantined: float = 0.5
    max_unknown_items: float = 0.2
    max_text_chars: int = 100_000
    future_slack_hours: float = 24.0
    earliest_year: int = 1990
    lowest_rating: float = 0.0
    highest_rating: float = 10.0
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def latest(self) -> datetime:
        return self.now + timedelta(hours=self.future_slack_hours)

    def digest(self) -> str:
        """16 hex digits over what decides a row's verdict, without the clock."""
        ratings = (self.lowest_rating, self.highest_rating)
        rules = [VERSION, self.max_text_chars, self.future_slack_hours, self.earliest_year, ratings, EVENTS]
        return hashlib.sha256(json.dumps(rules).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Rule:
    """One expectation: ``test`` names its kind (exists, filled, unique, between, within, matches), ``column`` what is
    tested.

    ``about``: the column that is reported, where ``column`` is derived (the length of a text).
    """

    code: str
    test: Literal["exists", "filled", "unique", "between", "within", "matches"]
    column: str
    expected: str
    level: Literal["row", "cell", "hard"] = "row"
    args: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""

    @property
    def reported(self) -> str:
        return self.about or self.column


CLOCK_CODES = frozenset({"future_timestamp"})
"""Verdicts with these codes depend on the clock and are made anew in every run."""


def suite(table: str, columns: Sequence[str], rules: Rules) -> list[Rule]:
    """The rules of a table, in the order in which a row's first broken one is reported; ``columns`` of the examined
    frame."""
    out = [*_structure(table), *_times(table, rules), *_values(rules), *_texts(table, rules)]
    return [r for r in out if r.test == "exists" or r.column in columns]


def _structure(table: str) -> list[Rule]:
    out = [Rule("missing_column", "exists", c, "a required column", "hard") for c in REQUIRED[table]]
    if C.USER in TABLES[table] and table != "queries":
        out.append(
            Rule("raw_user_id", "matches", C.USER, "a pseudonym of 32 hex digits", "hard", {"regex": "^[0-9a-f]{32}$"})
        )
    if table != "interactions":
        key = REQUIRED[table][0]
        out += [
            Rule("missing_id", "filled", key, "an id", "hard"),
            Rule("duplicate_id", "unique", key, "one row for each id", "hard"),
        ]
    else:
        out += [
            Rule("unknown_event", "within", C.EVENT, f"one of {', '.join(EVENTS)}", args={"value_set": list(EVENTS)}),
            Rule("missing_timestamp", "filled", C.TIME, "a timestamp, as other rows have"),
        ]
    return out


def _times(table: str, rules: Rules) -> list[Rule]:
    if table == "items":
        return []
    earliest = datetime(rules.earliest_year, 1, 1, tzinfo=UTC)
    ahead = f"at most {rules.future_slack_hours:g} h ahead of the clock"
    return [
        Rule("early_timestamp", "between", C.TIME, f"{rules.earliest_year} or later", args={"min_value": earliest}),
        Rule("future_timestamp", "between", C.TIME, ahead, args={"max_value": rules.latest}),
    ]


def _values(rules: Rules) -> list[Rule]:
    low, high = rules.lowest_rating, rules.highest_rating
    scale = {"min_value": low, "max_value": high}
    code = "an ISO 639-1 code such as en or zh-CN"
    return [
        Rule("bad_position", "between", C.POSITION, "1 or more", args={"min_value": 1}),
        Rule("rating_out_of_range", "between", "rating_value", f"{low:g} to {high:g}", args=scale, about=C.VALUE),
        Rule("negative_price", "between", "price", "0 or more", args={"min_value": 0.0}),
        Rule("unknown_language", "matches", C.LANGUAGE, code, "cell", {"regex": PATTERN}),
    ]


def _texts(table: str, rules: Rules) -> list[Rule]:
    most = rules.max_text_chars
    return [
        Rule("long_text", "between", f"{c}_chars", f"at most {most} characters", args={"max_value": most}, about=c)
        for c, kind in TABLES[table].items()
        if kind == "text"
    ]


def media_suite() -> list[Rule]:
    """The rules of media files, one row a file: see :func:`media_frame`. In the quarantine the file's own reason takes
    the place of the code."""
    return [
        Rule(
            f"unusable_{kind}", "within", f"{kind}_verdict", "content that decodes", "cell",
            {"value_set": [DECODES]}, column,
        )
        for column, kind in MEDIA.items()
    ]  # fmt: skip


def examined(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    """What the rules look at: the named scalar columns, the length of each text, and the value of ratings."""
    columns: list[pl.Expr] = []
    for name, kind in TABLES[table].items():
        if name not in frame.columns or kind in ("tags", "paths", "path"):
            continue
        if kind == "text":
            columns.append(pl.col(name).str.len_chars().alias(f"{name}_chars"))
        if kind != "text" or name in (C.EVENT, C.LANGUAGE):
            columns.append(pl.col(name))
    if table == "interactions" and C.VALUE in frame.columns:
        columns.append(pl.when(pl.col(C.EVENT) == "rating").then(pl.col(C.VALUE)).alias("rating_value"))
    return frame.select(columns)


DECODES = "decodes"


def media_frame(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    """One row for each media file with bytes: ``row`` of the table, ``column``, ``element``, ``path`` and, per kind,
    ``<kind>_verdict``: "decodes" or the reason code; null in the rows of other kinds."""
    kinds = list(MEDIA.values())
    out: list[dict[str, Any]] = []
    for column, kind in media_columns(table, frame.columns).items():
        many = frame[column].dtype == pl.List
        cells = frame.select(column, f"{kind}_sha256", f"{kind}_fault").iter_rows()
        for row, (paths, shas, faults) in enumerate(cells):
            files = zip(paths or [], shas or [], faults or [], strict=True) if many else [(paths, shas, faults)]
            out += [
                {
                    "row": row,
                    "column": column,
                    "element": element if many else None,
                    "path": path,
                    **{f"{k}_verdict": (fault or DECODES) if k == kind else None for k in kinds},
                }
                for element, (path, sha, fault) in enumerate(files)
                if sha is not None
            ]
    named = {"row": pl.Int64, "column": pl.String, "element": pl.Int32, "path": pl.String}
    return pl.DataFrame(out, schema={**named, **dict.fromkeys((f"{k}_verdict" for k in kinds), pl.String)})
