"""The gate's pages: no script, no request, and every value escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

SHOWN = 200
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
NOTHING = "<p>Nothing was set aside.</p>"
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;"
    "max-width:75rem;padding:0 1rem;color:#1b1f24;background:#fff}"
    "table{border-collapse:collapse;margin:.6rem 0 1.6rem}th,td{border:1px solid #d0d7de;"
    "padding:.25rem .6rem;text-align:left;"
    "vertical-align:top;overflow-wrap:anywhere;unicode-bidi:isolate}th{background:#f2f4f6;white-space:nowrap}td.bad{background:#ffe3e0}td.good{background:#dff5e3}"
    "h5{font-size:1.05rem;margin:1.4rem 0 .2rem}h6{font-size:1rem;margin:1rem 0 .2rem}"
)


def page(title: str, body: str) -> str:
    """A whole page around ``body``, which must be safe already; the title is escaped here."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style></head>\n<body>\n<h1>{html.escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """An HTML table; a boolean becomes a coloured yes or no."""
    head = "".join(f"<th>{html.escape(h)}</th>" for h in header)
    lines = "\n".join("<tr>" + "".join(_cell(v) for v in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{lines}\n</tbody></table>"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return f'<td class="{"good" if value else "bad"}">{"yes" if value else "no"}</td>'
    return f"<td>{html.escape('' if value is None else str(value))}</td>"


def summary_page(summary: dict[str, Any], quarantine: pl.DataFrame) -> str:
    """data/gate/docs/index.html: a function of the verdict alone, so that equal data give equal bytes."""
    tables = [
        (t, *(a[k] for k in ("read", "deduplicated", "quarantined", "accepted"))) for t, a in summary["tables"].items()
    ]
    codes = [
        (kind, t, code, n) for kind, by in summary["codes"].items() for t, own in by.items() for code, n in own.items()
    ]
    hard = [(r["table"], r["rule"], r["passed"], r["message"]) for r in summary["hard_rules"]]
    columns = ["table", "key", "code", "column", "found", "expected", "stage", "row"]
    notes = "".join(f"<li>{html.escape(n)}</li>" for n in [*summary["structure_broken"], *summary["notes"]])
    return page(
        "What the gate found",
        "\n".join(
            [
                "<h2>Rows</h2><p>read = accepted + deduplicated + quarantined</p>",
                table(("table", "read", "deduplicated", "quarantined", "accepted"), tables),
                "<h2>Hard rules</h2>",
                table(("table", "rule", "passed", "found"), hard),
                "<h2>Reasons</h2>",
                table(("what was set aside", "table", "code", "count"), codes) if codes else NOTHING,
                f"<ul>{notes}</ul>" if notes else "",
                f"<h2>Quarantine: {quarantine.height} lines"
                f"{f', the first {SHOWN}' if quarantine.height > SHOWN else ''}</h2>",
                table(columns, quarantine.select(columns).head(SHOWN).iter_rows()) if quarantine.height else NOTHING,
            ]
        ),
    )


def index_page(names: Sequence[str]) -> str:
    links = "".join(f'<li><a href="{html.escape(n)}.html">{html.escape(n)}</a></li>' for n in names)
    return page(
        "Data Docs",
        f"<p>The latest validation of each table by Great Expectations: the partitions that were "
        f"new.</p><ul>{links}</ul>",
    )
