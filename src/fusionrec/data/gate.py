"""The gate: soft rules set rows aside with a reason, hard rules stop the run, and every row is accounted for.

Rules that look at one row run through Great Expectations, once for each partition: the verdict is remembered under the
partition's content hash and the rules' digest, so an unchanged partition is not judged again (and the library not even
imported). Rules across tables and shares are computed in every run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from fusionrec.data.account import summarise
from fusionrec.data.expectations import Outcome
from fusionrec.data.files import write_json
from fusionrec.data.rules import CLOCK_CODES, Rules, examined, media_frame, media_suite, suite
from fusionrec.data.schema import TABLES, media_columns, printable, row_key, sort_quarantine, tagged
from fusionrec.data.tables import accept, content_hash, partitions
from fusionrec.data.verdict import Verdict
from fusionrec.media.base import expected
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
    verdict.summary = summarise(frames, ledger, verdict, rules)
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
    outcomes, verdict.pages[table] = expectations.run(table, looked_at, suite(table, looked_at.columns, rules))
    found: list[tuple[int, Line]] = []
    for outcome in outcomes:
        rule = outcome.rule
        if rule.level == "hard":
            if not outcome.passed:
                verdict.broken.append(_hard(table, outcome))
            continue
        for at, shown in zip(outcome.rows, outcome.found, strict=True):
            line = {"key": keys[at], "code": rule.code, "column": rule.reported, "found": shown}
            found.append((at, {**line, "expected": rule.expected, "row": rule.level == "row", "element": None}))
    files = media_frame(rows, table) if media_columns(table, rows.columns) else None
    if files is None or not files.height:
        return found
    outcomes, verdict.pages[f"{table}-media"] = expectations.run(f"{table}-media", files, media_suite())
    for outcome in outcomes:
        for at, code in zip(outcome.rows, outcome.found, strict=True):
            file = files.row(at, named=True)
            line = {"key": keys[file["row"]], "code": code, "column": file["column"], "found": printable(file["path"])}
            line |= {"expected": expected(code), "row": False, "element": file["element"]}
            found.append((file["row"], line))
    return found


def _hard(table: str, outcome: Outcome) -> str:
    """A broken hard rule of the structure as one line."""
    example = f", e.g. {outcome.found[0]}" if any(outcome.found) else ""
    rows = f"{len(outcome.rows)} rows" if outcome.rows else "it missing"
    rule = outcome.rule
    return f"{table}: {rule.code}: column {rule.reported}: expected {rule.expected}, found {rows}{example}"


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
