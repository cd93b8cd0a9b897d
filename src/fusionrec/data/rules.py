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
from fusionrec.data.schema import MEDIA, REQUIRED, TABLES
from fusionrec.media.image import MAX_PIXELS
from fusionrec.types import EVENTS
from fusionrec.types import Columns as C

RATING = (0.0, 10.0)
VERSION = 1  # raise when the meaning of a rule changes: remembered verdicts are then made anew


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
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def latest(self) -> datetime:
        return self.now + timedelta(hours=self.future_slack_hours)

    def digest(self) -> str:
        """16 hex digits over what decides a row's verdict, without the clock."""
        rules = [VERSION, self.max_text_chars, self.future_slack_hours, self.earliest_year, MAX_PIXELS, RATING, EVENTS]
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
    if table == "interactions":
        out += [
            Rule("unknown_event", "within", C.EVENT, f"one of {', '.join(EVENTS)}", args={"value_set": list(EVENTS)}),
            Rule("missing_timestamp", "filled", C.TIME, "a timestamp, as other rows have"),
        ]
    earliest = datetime(rules.earliest_year, 1, 1, tzinfo=UTC)
    if table != "items":
        out += [
            Rule("early_timestamp", "between", C.TIME, f"{rules.earliest_year} or later", args={"min_value": earliest}),
            Rule(
                "future_timestamp",
                "between",
                C.TIME,
                f"at most {rules.future_slack_hours:g} h ahead of the clock",
                args={"max_value": rules.latest},
            ),
        ]
    out += [
        Rule("bad_position", "between", C.POSITION, "1 or more", args={"min_value": 1}),
        Rule(
            "rating_out_of_range",
            "between",
            "rating_value",
            f"{RATING[0]:g} to {RATING[1]:g}",
            args={"min_value": RATING[0], "max_value": RATING[1]},
            about=C.VALUE,
        ),
        Rule("negative_price", "between", "price", "0 or more", args={"min_value": 0.0}),
        Rule(
            "unknown_language",
            "matches",
            C.LANGUAGE,
            "an ISO 639-1 code such as en or zh-CN",
            "cell",
            {"regex": PATTERN},
        ),
    ]
    out += [
        Rule(
            "long_text",
            "between",
            f"{c}_chars",
            f"at most {rules.max_text_chars} characters",
            args={"max_value": rules.max_text_chars},
            about=c,
        )
        for c, kind in TABLES[table].items()
        if kind == "text"
    ]
    return [r for r in out if r.test == "exists" or r.column in columns]


def media_suite() -> list[Rule]:
    """The rules of media files, one row a file: see :func:`media_frame`."""
    return [
        *[
            Rule(
                f"unreadable_{kind}",
                "filled",
                f"{kind}_header",
                f"a file that is {'a JPEG, PNG, WEBP, GIF or BMP' if kind == 'image' else kind}",
                "cell",
                about=column,
            )
            for column, kind in MEDIA.items()
        ],
        Rule(
            "too_many_pixels",
            "between",
            "pixels",
            f"at most {MAX_PIXELS} pixels",
            "cell",
            {"max_value": MAX_PIXELS},
            "image_paths",
        ),
    ]


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


def media_frame(items: pl.DataFrame) -> pl.DataFrame:
    """One row for each media file with bytes: ``row`` of the item, ``column``, ``element``, ``path``, ``pixels`` and,
    per kind, ``<kind>_header`` ("?" in the rows of other kinds, null where the header is none we know)."""
    kinds = list(MEDIA.values())
    out: dict[str, list[Any]] = {
        c: [] for c in ("row", "column", "element", "path", "pixels", *(f"{k}_header" for k in kinds))
    }
    for column, kind in MEDIA.items():
        if column not in items.columns or f"{kind}_format" not in items.columns:
            continue
        many = items[column].dtype == pl.List
        for row, (cell, shas, forms) in enumerate(items.select(column, f"{kind}_sha256", f"{kind}_format").iter_rows()):
            triples = zip(cell or [], shas or [], forms or [], strict=True) if many else [(cell, shas, forms)]
            for element, (path, sha, form) in enumerate(triples):
                if sha is None:
                    continue
                width, _, height = (form or "").split(" ")[-1].partition("x") if kind == "image" else ("", "", "")
                usable = form if kind == "image" or (form or "").split("/")[0] in ("audio", "video") else None
                for name, value in (
                    ("row", row),
                    ("column", column),
                    ("element", element if many else None),
                    ("path", path),
                    ("pixels", int(width) * int(height) if height else None),
                ):
                    out[name].append(value)
                for other in kinds:
                    out[f"{other}_header"].append(usable if other == kind else "?")
    schema = {
        "row": pl.Int64,
        "column": pl.String,
        "element": pl.Int32,
        "path": pl.String,
        "pixels": pl.Int64,
        **{f"{k}_header": pl.String for k in kinds},
    }
    return pl.DataFrame(out, schema=schema)
