"""The gate's account: every row read is accepted, a repeat, or quarantined; and the rules about shares and sizes."""

from __future__ import annotations

from typing import Any

import polars as pl

from fusionrec.data.rules import Rules
from fusionrec.data.schema import KEY
from fusionrec.data.tables import accept
from fusionrec.data.verdict import Verdict
from fusionrec.types import Columns as C


def summarise(
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
