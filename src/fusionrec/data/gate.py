"""The gate: soft rules set rows aside with a reason, hard rules stop the run, and every row is accounted for.

Rules that look at one row run through Great Expectations, once for each partition: the verdict is remembered under the
partition's content hash and the rules' digest, so an unchanged partition is not judged again (and the library not even
imported). Rules across tables and shares are computed in every run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from fusionrec.data import docs
from fusionrec.data.files import fresh_folder, write_bytes, write_json
from fusionrec.data.ingest import sort_quarantine, tagged
from fusionrec.data.rules import CLOCK_CODES, Rule, Rules, examined, media_frame, media_suite, suite
from fusionrec.data.schema import KEY, TABLES, printable, row_key
from fusionrec.data.tables import accept, content_hash, parquet, partitions
from fusionrec.errors import DataRejected
from fusionrec.types import Columns as C

LINE = {
    "key": pl.String,
    "code": pl.String,
    "column": pl.String,
    "found": pl.String,
    "expected": pl.String,
    "row": pl.Boolean,
    "element": pl.Int32,
}
Line = dict[str, Any]


@dataclass
class Verdict:
    """``quarantine``: lines of ingest and validate; ``summary``: data/gate/summary.json; ``broken``: one line a broken
    hard rule; ``pages``: renderers of the Data Docs by table, of what was judged in this run."""

    quarantine: pl.DataFrame
    summary: dict[str, Any]
    broken: list[str]
    pages: dict[str, Callable[[], str]] = field(default_factory=dict)
    judged: int = 0
    remembered: int = 0


def judge(
    frames: dict[str, pl.DataFrame],
    ledger: dict[str, dict[str, int]],
    ingested: pl.DataFrame,
    rules: Rules,
    memory: Path | None,
) -> Verdict:
    """Judge canonical tables (written rows); ``ingested``: the quarantine of ingest; ``memory``: the folder of
    verdicts."""
    verdict = Verdict(ingested, {}, [])
    lines: dict[str, pl.DataFrame] = {}
    for table in TABLES:
        if table in frames:
            lines[table] = _judge_rows(frames[table], table, rules, memory, verdict)
    _cross(frames, lines)
    parts = [ingested]
    for table, found in lines.items():
        rows = _one_line_a_row(frames[table], found.filter("row"), table)
        parts += [tagged(rows, table, "validate", True), tagged(found.filter(~pl.col("row")), table, "validate", False)]
    verdict.quarantine = sort_quarantine(pl.concat(parts))
    verdict.summary = _summary(frames, ledger, verdict, rules)
    return verdict


def _judge_rows(frame: pl.DataFrame, table: str, rules: Rules, memory: Path | None, verdict: Verdict) -> pl.DataFrame:
    """Lines of the rules that look at one row, from memory where a partition was judged before."""
    known: list[Line] = []
    fresh: list[tuple[str, pl.DataFrame]] = []
    for _, rows in partitions(frame, table):
        name = f"{table}-{content_hash(rows)}-{rules.digest()}"
        remembered = _recall(memory, name)
        if remembered is None:
            fresh.append((name, rows))
        else:
            known += remembered
    verdict.remembered += len(partitions(frame, table)) - len(fresh)
    verdict.judged += len(fresh)
    if fresh:
        rows = pl.concat([part for _, part in fresh])
        at = [name for name, part in fresh for _ in range(part.height)]
        found = _expect(rows, table, rules, verdict)
        by_part: dict[str, list[Line]] = {name: [] for name, _ in fresh}
        for position, line in found:
            by_part[at[position]].append(line)
            known.append(line)
        for name, own in by_part.items():
            if memory is not None and not any(line["code"] in CLOCK_CODES for line in own):
                write_json(memory / f"{name}.json", own)
    return pl.DataFrame(known, schema=LINE)


def _recall(memory: Path | None, name: str) -> list[Line] | None:
    try:
        return list(json.loads((memory / f"{name}.json").read_text(encoding="utf-8"))) if memory is not None else None
    except (OSError, ValueError):
        return None


def _expect(rows: pl.DataFrame, table: str, rules: Rules, verdict: Verdict) -> list[tuple[int, Line]]:
    """Run Great Expectations; -> (position of the row, line), in rule order. Hard rules go to ``verdict.broken``."""
    from fusionrec.data import expectations

    keys = rows.select(row_key(table, rows.columns).alias("key")).to_series()
    looked_at = examined(rows, table)
    batches: list[tuple[str, pl.DataFrame, list[Rule], pl.DataFrame | None]] = [
        (table, looked_at, suite(table, looked_at.columns, rules), None)
    ]
    files = media_frame(rows) if table == "items" else None
    if files is not None and files.height:
        batches.append((f"{table}-media", files, media_suite(), files))
    found: list[tuple[int, Line]] = []
    for name, frame, checks, media in batches:
        outcomes, verdict.pages[name] = expectations.run(name, frame, checks)
        for outcome in outcomes:
            rule = outcome.rule
            if rule.level == "hard":
                if not outcome.passed:
                    example = f", e.g. {outcome.found[0]}" if any(outcome.found) else ""
                    verdict.broken.append(
                        f"{table}: {rule.code}: column {rule.reported}: expected {rule.expected}, found "
                        f"{len(outcome.rows) or 'it missing'}{' rows' if outcome.rows else ''}{example}"
                    )
                continue
            for at, shown in zip(outcome.rows, outcome.found, strict=True):
                row, column, element = at, rule.reported, None
                if media is not None:
                    row, column, element, shown = _medium(media, at, rule.code, shown)
                found.append(
                    (
                        row,
                        {
                            "key": keys[row],
                            "code": rule.code,
                            "column": column,
                            "found": shown,
                            "expected": rule.expected,
                            "row": rule.level == "row",
                            "element": element,
                        },
                    )
                )
    return found


def _medium(media: pl.DataFrame, at: int, code: str, shown: str) -> tuple[int, str, int | None, str]:
    one = media.row(at, named=True)
    shown = printable(one["path"]) if code.startswith("unreadable") else f"{shown} pixels"
    return one["row"], one["column"], one["element"], shown


def _cross(frames: dict[str, pl.DataFrame], lines: dict[str, pl.DataFrame]) -> None:
    """Rules across tables, added to ``lines``: known items, creation before the first event."""
    items, log = frames["items"], frames["interactions"]
    good = items.filter(~pl.col(C.ITEM).is_in(lines["items"].filter("row")["key"].implode()))
    known, usable = items[C.ITEM].implode(), good[C.ITEM].implode()
    stray = log.filter(~pl.col(C.ITEM).is_in(usable))
    code = pl.when(pl.col(C.ITEM).is_in(known)).then(pl.lit("quarantined_item")).otherwise(pl.lit("unknown_item"))
    lines["interactions"] = pl.concat(
        [
            lines["interactions"],
            stray.select(
                row_key("interactions", log.columns).alias("key"),
                code.alias("code"),
                pl.lit(C.ITEM).alias("column"),
                pl.col(C.ITEM).map_elements(printable, pl.String).alias("found"),
                pl.lit("an accepted item").alias("expected"),
                pl.lit(True).alias("row"),
                pl.lit(None, dtype=pl.Int32).alias("element"),
            ),
        ]
    )
    if C.CREATED in items.columns and C.TIME in log.columns:
        used = accept(
            log, tagged(lines["interactions"].filter("row"), "interactions", "validate", True), "interactions"
        )
        late = good.join(used.group_by(C.ITEM).agg(pl.col(C.TIME).min()), on=C.ITEM).filter(
            pl.col(C.CREATED) > pl.col(C.TIME)
        )
        lines["items"] = pl.concat(
            [
                lines["items"],
                late.select(
                    pl.col(C.ITEM).alias("key"),
                    pl.lit("created_after_event").alias("code"),
                    pl.lit(C.CREATED).alias("column"),
                    pl.col(C.CREATED).dt.strftime("%Y-%m-%dT%H:%M:%SZ").alias("found"),
                    pl.col(C.TIME).dt.strftime("at or before the first event, %Y-%m-%dT%H:%M:%SZ").alias("expected"),
                    pl.lit(False).alias("row"),
                    pl.lit(None, dtype=pl.Int32).alias("element"),
                ),
            ]
        )


def _one_line_a_row(frame: pl.DataFrame, lines: pl.DataFrame, table: str) -> pl.DataFrame:
    """Exactly one line for every row that goes: the first broken rule of its key. Rows that share a key go together."""
    if lines.height == 0:
        return lines
    first = lines.unique("key", keep="first", maintain_order=True)
    keys = frame.select(row_key(table, frame.columns).alias("key"))
    return keys.join(first, on="key", how="inner").select(list(LINE))


def _summary(
    frames: dict[str, pl.DataFrame], ledger: dict[str, dict[str, int]], verdict: Verdict, rules: Rules
) -> dict[str, Any]:
    """data/gate/summary.json; breaks of the share and size rules go to ``verdict.broken``."""
    lines = verdict.quarantine
    whole = lines.filter("row")
    tables: dict[str, dict[str, int]] = {}
    for table, account in ledger.items():
        gone = whole.filter(pl.col("table") == table).height
        tables[table] = {
            "read": account["read"],
            "deduplicated": account["deduplicated"],
            "quarantined": gone,
            "accepted": account["read"] - account["deduplicated"] - gone,
        }
        left = accept(frames[table], lines, table).height
        if left != tables[table]["accepted"]:
            raise RuntimeError(f"{table}: {left} rows are left, the account says {tables[table]}")
    counted = lines.group_by("table", "code", "row").len().sort("table", "code", "row")
    codes: dict[str, dict[str, dict[str, int]]] = {"rows": {}, "cells": {}}
    for table, code, row, count in counted.iter_rows():
        codes["rows" if row else "cells"].setdefault(table, {})[code] = count
    hard = _hard_rules(tables, codes["rows"], rules)
    for rule in hard:
        if not rule["passed"]:
            verdict.broken.append(f"{rule['table']}: {rule['rule']}: {rule['message']}")
    return {
        "format_version": 1,
        "tables": tables,
        "codes": codes,
        "hard_rules": hard,
        "structure_broken": sorted(
            line for line in verdict.broken if line.split(": ")[1] not in {r["rule"] for r in hard}
        ),
        "notes": _notes(frames),
    }


def _hard_rules(
    tables: dict[str, dict[str, int]], codes: dict[str, dict[str, int]], rules: Rules
) -> list[dict[str, Any]]:
    out = []

    def add(table: str, rule: str, limit: float, found: float, passed: bool, message: str) -> None:
        out.append(
            {
                "table": table,
                "rule": rule,
                "limit": limit,
                "found": round(found, 6),
                "passed": passed,
                "message": message,
            }
        )

    for table, least in (("items", rules.min_items), ("interactions", rules.min_interactions)):
        left = tables[table]["accepted"]
        empty = "nothing to train on: " if left == 0 else ""
        add(
            table,
            f"min_{table}",
            least,
            left,
            left >= least,
            f"{empty}found {left} accepted rows, expected at least {least}",
        )
    for table, account in tables.items():
        share = account["quarantined"] / max(account["read"], 1)
        why = ", ".join(f"{c} {n}" for c, n in sorted(codes.get(table, {}).items(), key=lambda p: (-p[1], p[0]))[:3])
        add(
            table,
            "max_quarantined",
            rules.max_quarantined,
            share,
            share <= rules.max_quarantined,
            f"found {share:.1%} of {account['read']} rows quarantined ({why or 'none'}), "
            f"expected at most {rules.max_quarantined:.0%}",
        )
    read = tables["interactions"]["read"]
    unknown = codes.get("interactions", {}).get("unknown_item", 0) / max(read, 1)
    add(
        "interactions",
        "max_unknown_items",
        rules.max_unknown_items,
        unknown,
        unknown <= rules.max_unknown_items,
        f"found {unknown:.1%} of {read} rows that name an item not in items, "
        f"expected at most {rules.max_unknown_items:.0%}",
    )
    return out


def _notes(frames: dict[str, pl.DataFrame]) -> list[str]:
    notes = []
    for table, column in KEY.items():
        if table in frames and table != "users":  # pseudonyms have no case
            ids = frames[table][column]
            alike = ids.len() - ids.str.to_lowercase().n_unique()
            if alike:
                notes.append(f"{table}: {alike} ids differ from another id in case only; they stay distinct")
    if C.TIME not in frames["interactions"].columns:
        notes.append("interactions: no timestamps; temporal splits are not possible")
    if "users" in frames:
        strangers = (
            frames["interactions"].filter(~pl.col(C.USER).is_in(frames["users"][C.USER].implode()))[C.USER].n_unique()
        )
        if strangers:
            notes.append(f"interactions: {strangers} users are not in users; they have no attributes")
    return notes


def write(folder: Path, verdict: Verdict) -> None:
    """data/gate: the quarantine as Parquet and CSV, the page, the summary last."""
    with fresh_folder(folder) as building:
        write_bytes(building / "quarantine.parquet", parquet(verdict.quarantine))
        write_bytes(building / "quarantine.csv", spreadsheet(verdict.quarantine))
        write_bytes(
            building / "docs" / "index.html", docs.summary_page(verdict.summary, verdict.quarantine).encode("utf-8")
        )
        write_json(building / "summary.json", verdict.summary)


def spreadsheet(frame: pl.DataFrame) -> bytes:
    """CSV whose cells no spreadsheet takes for a formula: a text that starts like one gets an apostrophe in front."""
    texts = [c for c in frame.columns if frame[c].dtype == pl.String]
    safe = frame.with_columns(
        [
            pl.when(pl.col(c).str.contains(r"^\s*[=+\-@\t\r\n|%]"))
            .then(pl.lit("'") + pl.col(c))
            .otherwise(pl.col(c))
            .alias(c)
            for c in texts
        ]
    )
    return safe.write_csv(quote_style="non_numeric").encode("utf-8")


def write_data_docs(folder: Path, verdict: Verdict) -> None:
    """Great Expectations Data Docs of what was judged in this run; untouched where nothing was."""
    for name, body in verdict.pages.items():
        write_bytes(folder / f"{name}.html", docs.page(f"Data Docs: {name}", body()).encode("utf-8"))
    if verdict.pages:
        names = sorted(p.stem for p in folder.glob("*.html") if p.stem != "index")
        write_bytes(folder / "index.html", docs.index_page(names).encode("utf-8"))


def require(verdict: Verdict, where: str) -> None:
    """Raises DataRejected with one line for each broken hard rule; ``where`` says where the details are."""
    if verdict.broken:
        raise DataRejected("\n".join([*_first_nothing(verdict.broken), f"details: {where}"]))


def _first_nothing(broken: Sequence[str]) -> list[str]:
    """ "Nothing to train on" is the one-line cause where it applies, whatever else is broken."""
    return sorted(broken, key=lambda line: "nothing to train on" not in line)
