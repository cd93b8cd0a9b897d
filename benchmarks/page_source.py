"""What the parts of docs/results.md share: the results files, where a figure comes from, a plain table."""

from __future__ import annotations

import json
from typing import Any

from workspace import RESULTS

from fusionrec.evaluation.table import markdown

LEAST = 0.75
"""Of its products, what an epoch is asked to reach."""
TRIED = (
    "Most of the rest is traffic: Adam reads and writes every vector in every batch, rows are gathered and scattered, "
    "and in an epoch the products find less in the caches than alone. Tried: products as embedding bags, layers by "
    "Horner's rule, sums of a batch's rows only, fused Adam, memory kept, one thread for small steps. "
)


def read(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


BOUNDS = (
    "*ratio bound*: how much of a physical limit is reached (1: at it), or how many times what is used fits into what "
    "is allowed. *ratio peer*: how many times as fast as the peer.\n"
)


def source(found: dict[str, Any]) -> str:
    cores, commit = found["machine"].get("cores") or found["machine"]["cpus"], found["commit"][:9]
    return f"*`{found['command']}` on {cores} cores without GPU, commit {commit}; 95 % intervals by user bootstrap.*\n"


def plain(title: str, found: dict[str, Any], columns: tuple[str, ...]) -> list[str]:
    rows = [{c.replace("_", " "): "–" if r.get(c) is None else str(r[c]) for c in columns} for r in found["rows"]]
    return [f"## {title}\n", markdown(rows), source(found).replace("; 95 % intervals by user bootstrap", "")]


def training(found: dict[str, Any]) -> list[str]:
    """The speed of training, and in words which epochs miss their bound and what the peers take."""
    epochs = {r["case"].removeprefix("epoch-"): r for r in found["rows"] if r["case"].startswith("epoch-")}
    bound = {name: r["ratio_bound"] for name, r in epochs.items() if name.endswith("-1-thread")}
    missed = [f"{name.removesuffix('-1-thread')} {ratio:.2f}" for name, ratio in bound.items() if ratio < LEAST]
    peers = {name: r["ratio_peer"] for name, r in epochs.items() if r["peer_name"] == "MMRec"}
    text = (
        "An epoch against its own sparse and dense products repeated alone (`bound`), against those and Adam's steps "
        "alone (`with adam`), and against the same model of MMRec in the same run. "
    )
    text += f"Aim: {LEAST} of the products. With one thread missed by {', '.join(missed)}. {TRIED}" if missed else ""
    if peers:
        text += f"MMRec takes {min(peers.values()):.1f} to {max(peers.values()):.1f} times as long (aim 1.5)."
    columns = ("case", "ours", "peer", "peer_name", "bound", "unit", "ratio_peer", "ratio_bound", "with_adam",
               "ratio_with_adam")  # fmt: skip
    title, *rest = plain("Speed of training", found, columns)
    return [title, text.strip() + "\n", *rest]
