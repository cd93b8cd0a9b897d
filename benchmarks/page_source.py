"""What the parts of docs/results.md share: the results files, where a figure comes from, a plain table."""

from __future__ import annotations

import json
from typing import Any

from workspace import RESULTS

from fusionrec.evaluation.table import markdown


def read(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def source(found: dict[str, Any]) -> str:
    cores, commit = found["machine"].get("cores") or found["machine"]["cpus"], found["commit"][:9]
    return f"*`{found['command']}` on {cores} cores without GPU, commit {commit}; 95 % intervals by user bootstrap.*\n"


def plain(title: str, found: dict[str, Any], columns: tuple[str, ...]) -> list[str]:
    rows = [{c.replace("_", " "): "–" if r.get(c) is None else str(r[c]) for c in columns} for r in found["rows"]]
    return [f"## {title}\n", markdown(rows), source(found).replace("; 95 % intervals by user bootstrap", "")]
