"""The only importer of Great Expectations: runs rules over frames and renders the Data Docs.

Importing the library takes 5 to 20 s, so it happens inside :func:`run`, which the gate calls only for partitions that
were not judged before. Great Expectations writes strings into its pages unescaped: they are escaped before they reach
it, the page is cleaned by nh3, and a policy in the page forbids scripts and requests."""

from __future__ import annotations

import html
import logging
import os
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from fusionrec.data import docs
from fusionrec.data.rules import Rule
from fusionrec.data.schema import printable
from fusionrec.types import Columns as C

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 20
ROW = "row_number"


@dataclass(frozen=True)
class Outcome:
    """What one rule found: the broken rows by position, what stood there, and whether the rule could be run."""

    rule: Rule
    rows: list[int]
    found: list[str]
    passed: bool


def run(name: str, frame: pl.DataFrame, rules: Sequence[Rule]) -> tuple[list[Outcome], Callable[[], str]]:
    """Validate a frame; -> one outcome a rule, in order, and a function that renders the body of the Data Docs page.

    Raises RuntimeError where an expectation could not be computed: that is a bug, not bad data.
    """
    gx, expectations = _library()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("tables").add_dataframe_asset(name)
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": _pandas(frame)})
    suite = gx.ExpectationSuite(
        name=name, expectations=[_expectation(expectations, r, at) for at, r in enumerate(rules)]
    )
    form = {"result_format": "COMPLETE", "unexpected_index_column_names": [ROW], "return_unexpected_index_query": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = batch.validate(suite, result_format=form)
    outcomes: dict[int, Outcome] = {}
    for one in result.results:
        at = int(one.expectation_config.meta["rule"])
        if (one.exception_info or {}).get("raised_exception"):
            raise RuntimeError(f"{rules[at].code}: {one.exception_info.get('exception_message')}")
        outcomes[at] = _outcome(rules[at], one)
    found = [outcomes[at] for at in range(len(rules))]
    return found, lambda: _overview(found) + _page(name, result)


def _library() -> tuple[Any, Any]:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations as gx
        import great_expectations.expectations as expectations
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    return gx, expectations


def _pandas(frame: pl.DataFrame) -> pd.DataFrame:
    """The frame at the pandas edge, with a row number; nullable integers as float with NaN."""
    import pandas as pd

    columns: dict[str, Any] = {ROW: range(frame.height)}
    for name in frame.columns:
        series = frame[name]
        if isinstance(series.dtype, pl.Datetime):
            columns[name] = pd.Series(series.dt.replace_time_zone(None).to_numpy()).dt.tz_localize("UTC")
        elif series.dtype.is_numeric():
            columns[name] = series.cast(pl.Float64).to_numpy()
        else:
            columns[name] = pd.Series(series.to_list(), dtype=object)
    return pd.DataFrame(columns)


def _expectation(library: Any, rule: Rule, at: int) -> Any:
    meta = {"rule": at, "code": rule.code}
    severity = {"hard": "critical", "row": "warning", "cell": "info"}[rule.level]
    kind = {
        "exists": library.ExpectColumnToExist,
        "filled": library.ExpectColumnValuesToNotBeNull,
        "unique": library.ExpectColumnValuesToBeUnique,
        "between": library.ExpectColumnValuesToBeBetween,
        "within": library.ExpectColumnValuesToBeInSet,
        "matches": library.ExpectColumnValuesToMatchRegex,
    }[rule.test]
    return kind(column=rule.column, meta=meta, severity=severity, **rule.args)


def _outcome(rule: Rule, one: Any) -> Outcome:
    broken = one.result.get("unexpected_index_list") or []
    # What stands in a user id is never repeated: it may be a raw one.
    found = ["" if rule.column == C.USER else printable(_shown(row.get(rule.column))) for row in broken]
    return Outcome(rule, [int(row[ROW]) for row in broken], found, bool(one.success))


def _shown(value: Any) -> str:
    if value is None or value != value:
        return "nothing"
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:g}"
    return str(value)


def _overview(outcomes: Sequence[Outcome]) -> str:
    """The rules with their codes, which the library's own page does not show."""
    header = ("code", "level", "column", "expected", "rows that break it", "examples")
    return docs.table(
        header,
        [
            (
                o.rule.code,
                o.rule.level,
                o.rule.reported,
                o.rule.expected,
                len(o.rows),
                ", ".join(dict.fromkeys(o.found[:SHOWN])),
            )
            for o in outcomes
        ],
    )


def _page(name: str, result: Any) -> str:
    """The Data Docs page of a result, with at most :data:`SHOWN` examples a rule and every string inert."""
    import nh3
    from great_expectations.core import ExpectationSuiteValidationResult
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    safe = ExpectationSuiteValidationResult(
        **{
            "success": result.success,
            "results": [_shortened(one) for one in result.results],
            "suite_name": name,
            "statistics": result.statistics,
            "meta": {"great_expectations_version": result.meta["great_expectations_version"]},
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw = DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(safe))
    tags = {
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "p",
        "div",
        "span",
        "table",
        "thead",
        "tbody",
        "tr",
        "td",
        "th",
        "ul",
        "li",
        "strong",
        "br",
        "code",
    }
    raw = _alive(raw)
    return nh3.clean(raw, tags=tags, attributes={}, clean_content_tags={"script", "style", "head", "footer"})


_ICONS = {"fa-check-circle": "passed", "fa-times": "failed", "fa-exclamation-triangle": "not run"}
_DEAD = (
    r"<thead hidden>.*?</thead>",  # empty headings; the attribute that hides them does not survive the cleaning
    r'<div id="section-1-content-block-3".*?(?=<div id="section-2")',  # name and time of a run: there is none
)


def _alive(raw: str) -> str:
    """The library's page without what does nothing here, and with words for the icons that say passed or failed.

    What comes before the statistics is navigation, buttons that need scripts, and facts of a run that has no name. No
    string of the data is looked at: in those every ``<`` is escaped. A page laid out otherwise (by another version of
    the library) stays whole.
    """
    start, sections = raw.find('<div id="section-1-content-block-2"'), raw.find('<div id="section-2"')
    if 0 <= start < sections:
        raw = f"<h2>As Great Expectations tells it</h2>{raw[start:]}"
        for part in _DEAD:
            raw = re.sub(part, "", raw, flags=re.DOTALL)
    for icon, word in _ICONS.items():
        raw = re.sub(rf'<i class="[^"]*\b{icon}\b[^"]*"[^>]*>\s*</i>', word, raw)
    return raw


def _shortened(one: Any) -> Any:
    from copy import copy

    short = copy(one)
    keep = {k: v for k, v in one.result.items() if not k.startswith("unexpected_index") and k != "unexpected_list"}
    if one.expectation_config.kwargs.get("column") == C.USER:
        keep = {k: v for k, v in keep.items() if not k.startswith("partial_unexpected")}
    short.result = _escaped(
        {k: v[:SHOWN] if isinstance(v, list) else v for k, v in keep.items() if k != "partial_unexpected_index_list"}
    )
    return short


def _escaped(value: Any) -> Any:
    """Strings as HTML text that is inert even when it is written unescaped; ``$`` would start a template variable."""
    if isinstance(value, str):
        return html.escape(printable(value)).replace("$", "&#36;")
    if isinstance(value, dict):
        return {k: _escaped(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_escaped(v) for v in value]
    return value
