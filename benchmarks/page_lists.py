"""The parts of docs/results.md on lists beside their mean: hidden values, what lists hold beside hits, slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusionrec.evaluation.table import markdown
from fusionrec.registry.ranker import ONLY

SHARES = (0.0, 0.3, 0.6)
AROUND = {
    "coverage": "share of the items that somebody is recommended",
    "gini": "0 where every item is as often in a list, 1 where one item fills all",
    "novelty": "mean of -log2 of the share of users who chose the item before",
    "popularity": "mean of that share itself",
    "diversity": "mean distance of a list's items by content",
    "popular": "share of the few items that collect a third of all choices",
    "new": "share of new items",
}
NAMES = {"asked": "what users chose", "model": "fused", "two-stage": "fused, then its ranker", "ease": "EASE"}
SLICES = {
    "history_none": "users without history",
    "history_few": "users with few choices before",
    "activity_low": "the least active third",
    "activity_mid": "the middle third",
    "activity_high": "the most active third",
    "missing_text": "items without text",
    "missing_image": "items without image",
    "missing_audio": "items without audio",
    "missing_video": "items without video",
}
SLICED = ("popularity", "ease", "model", "two-stage")


def named(model: str) -> str:
    return f"{model.removeprefix(ONLY)} alone" if model.startswith(ONLY) else NAMES.get(model, model)


def degraded(curve: Sequence[dict[str, str]]) -> list[str]:
    """The fused model's NDCG@20 when a share of the values is hidden from it, without training it again."""
    rows: dict[str, dict[str, str]] = {}
    for r in curve:
        if float(r["share"]) in SHARES:
            span = "{:.3f} [{:.3f}, {:.3f}]".format(*(float(r[name]) for name in ("score", "low", "high")))
            rows.setdefault(r["hidden"], {"hidden": r["hidden"]})[f"{float(r['share']):.0%}"] = span
    text = "NDCG@20 when a share of the (item, modality) cells is hidden from the fitted model, without retraining:\n"
    return [text, markdown([*rows.values()])] if rows else []


def around(rows: Sequence[dict[str, str]]) -> list[str]:
    """Coverage, diversity, novelty and popularity bias of the lists, beside what users asked for."""
    if not rows:
        return []
    told = [{"model": named(r["model"]), **{name: f"{float(r[name]):.3f}" for name in AROUND}} for r in rows]
    words = "; ".join(f"*{name}*: {meaning}" for name, meaning in AROUND.items())
    return [f"What lists hold beside hits (the first {rows[0]['k']}). {words}.\n", markdown(told)]


def by_slice(table: Sequence[dict[str, Any]]) -> list[str]:
    """NDCG@20 of slices of users and of items."""
    at = {(r["model"], r["slice"]): r for r in table if r["metric"] == "ndcg@20" and r["mean"] is not None}
    rows = []
    for part, words in SLICES.items():
        if ("model", part) in at:
            means = {named(m): f"{at[m, part]['mean']:.3f}" for m in SLICED if (m, part) in at}
            rows.append({"slice": words, **means, "users": f"{at['model', part]['n']:,}"})
    return ["NDCG@20 by slices of users, and of the items that they chose:\n", markdown(rows)] if rows else []
