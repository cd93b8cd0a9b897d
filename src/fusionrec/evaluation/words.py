"""Numbers and names as people read them: the one place that says how a page writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NONE = "–"
METRICS = {"recall": "Recall", "ndcg": "NDCG", "map": "MAP", "mrr": "MRR", "hitrate": "Hit rate"}
SLICES = {
    "all": "all",
    "warm": "items with history",
    "cold": "new items, among all",
    "cold_only": "new items, among new",
    "cold_users": "users not in training",
    "history_none": "users without history",
    "history_few": "users with 1 to 3 choices",
    "activity_low": "users: short history",
    "activity_mid": "users: medium history",
    "activity_high": "users: long history",
}
"""What a slice is called, in the order of pages; see :mod:`fusionrec.evaluation.slices`."""


def metric(key: str) -> str:
    """``ndcg@20`` -> ``NDCG@20``."""
    name, at, k = key.partition("@")
    return f"{METRICS.get(name, name)}{at}{k}"


def slice_name(part: str) -> str:
    """``missing_text`` -> ``items without text``; others from :data:`SLICES`."""
    if part.startswith("missing_"):
        return f"items without {part.removeprefix('missing_')}"
    return SLICES.get(part, part.replace("_", " "))


def in_order(parts: Iterable[str]) -> list[str]:
    """Slices in the order of :data:`SLICES`, the others by name behind them."""
    known = list(SLICES)
    return sorted(set(parts), key=lambda p: (known.index(p) if p in known else len(known), p))


def number(x: float | None) -> str:
    """Three decimals, a true minus; a dash for None. What rounds to nothing has no sign."""
    return NONE if x is None else f"{round(x, 3) + 0.0:.3f}".replace("-", "\u2212")


def signed(x: float | None) -> str:
    """Three decimals with a sign, a true minus; a dash for None. What rounds to nothing has no sign."""
    if x is None:
        return NONE
    return f"{'+' if round(x, 3) > 0 else ''}{number(x)}"


def thousands(x: float) -> str:
    """Thin spaces between thousands: 12 345."""
    return f"{x:,.0f}".replace(",", "\u202f").replace("-", "\u2212")


def percent(x: float | None) -> str:
    """A share as whole percent; below 10 % with one decimal, unless that is nothing."""
    if x is None:
        return NONE
    text = f"{100 * x:.1f}" if 0.0005 <= abs(x) < 0.0995 else f"{100 * x:.0f}"
    return f"{text.replace('-', chr(0x2212))}\u202f%"


def times(x: float | None) -> str:
    return NONE if x is None else f"{x:.1f}×"


def p_value(x: float | None) -> str:
    if x is None:
        return NONE
    return "<\u00a00.001" if x < 0.001 else f"{x:.3f}"


def chance(p: float) -> str:
    """A p value as how often chance alone would show as much: ``2 times in 1 000``."""
    if p < 0.001:
        return "less than once in 1\u202f000 times"
    if p < 0.0095:
        n = round(1000 * p)
        return f"about {n} times in 1\u202f000" if n > 1 else "about once in 1\u202f000 times"
    n = round(100 * p)
    return f"about {n} times in 100" if n > 1 else "about once in 100 times"


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def between(row: Mapping[str, Any]) -> str:
    """`` (95 % interval 0.113 to 0.128)`` of anything with ``low`` and ``high``; nothing where there is none."""
    if row["low"] is None or row["high"] is None:
        return ""
    return f" (95\u202f% interval {number(row['low'])} to {number(row['high'])})"


def initials(names: Sequence[str]) -> dict[str, str]:
    """A short mark for each name: the fewest first letters that tell them apart (text, image -> T, I)."""
    out = {}
    for name in names:
        others = [n for n in names if n != name]
        length = next((k for k in range(1, len(name)) if not any(o[:k] == name[:k] for o in others)), len(name))
        out[name] = name[:length].capitalize()
    return out
