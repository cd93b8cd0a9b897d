"""What changed between two evaluated models: parameters, scores, amounts of data; in words, as data, and as a page.

Pure: no registry, no clock. :func:`record` is kept with each registered version; :func:`compare` sets two of them
side by side, and :func:`render` makes the page. The verdict of the gate, where there is one, is quoted.

The scores of two versions are compared from their means and intervals alone (values of single users are personal
and stay at home). The interval of a difference is recovered from the two intervals as if the measurements
were independent (MOVER: Zou and Donner, Statistics in Medicine 27, 2008). Two models on the same users
usually agree on many of them, so it is on the careful side; the gate's paired test is the sharper one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, ValidationError

from fusionrec.errors import IntegrityError
from fusionrec.evaluation import page, words
from fusionrec.evaluation.table import MAIN, number
from fusionrec.types import Spec

SIZES = {
    "items": "items",
    "items_without_train": "items without training history",
    "train.pairs": "choices to learn from",
    "train.users": "users to learn from",
    "valid.pairs": "choices for tuning",
    "test.pairs": "choices to test on",
    "test.users": "users to test on",
}


class Score(Spec):
    """One row of table.json."""

    mean: float = Field(allow_inf_nan=False)
    low: float | None = Field(None, allow_inf_nan=False)
    high: float | None = Field(None, allow_inf_nan=False)
    n: int


class Record(Spec):
    """What of a version a later one is compared with. ``params`` dotted key -> text; ``scores`` slice -> metric."""

    format_version: Literal[1] = 1
    label: str
    metric: str
    params: dict[str, str]
    scores: dict[str, dict[str, Score]]
    sizes: dict[str, int]
    pairs_digest: str | None
    """Tells whether two versions were measured on the same choices; None where the log has no times."""


def record(
    params: Mapping[str, Any], table: Sequence[Mapping[str, Any]], tests: Mapping[str, Any], sizes: Mapping[str, Any]
) -> Record:
    """``params``: resolved parameters, nested; ``table``, ``tests``: table.json and tests.json; ``sizes``: the
    summary.json of data/splits."""
    scores: dict[str, dict[str, Score]] = {}
    label = MAIN
    for row in table:
        if row["model"] != MAIN:
            continue
        label = str(row["label"])
        if row["mean"] is not None:
            score = Score(mean=row["mean"], low=row["low"], high=row["high"], n=row["n"])
            scores.setdefault(row["slice"], {})[row["metric"]] = score
    return Record(
        label=label,
        metric=tests["main_metric"],
        params=flat(params),
        scores=scores,
        sizes={key: found for key in SIZES if (found := _inner(sizes, key)) is not None},
        pairs_digest=tests["pairs_digest"],
    )


def load(data: bytes) -> Record:
    """The inverse of ``to_json(record.model_dump(mode="json"))``. Raises IntegrityError for anything else."""
    try:
        return Record.model_validate_json(data)
    except ValidationError as error:
        raise IntegrityError(
            f"the record to compare with is not usable ({error.error_count()} problems, first: "
            f"{error.errors()[0]['msg']}); the comparison is left out"
        ) from None


def flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted keys, other values as JSON."""
    if isinstance(value, Mapping) and value:
        return {
            k: v for key, inner in value.items() for k, v in flat(inner, f"{prefix}.{key}" if prefix else key).items()
        }
    return {prefix: json.dumps(value, ensure_ascii=False, sort_keys=True).strip('"')} if prefix else {}


def compare(
    before: Record | None,
    after: Record,
    verdict: Mapping[str, Any] | None = None,
    names: tuple[str, str] = ("the champion", "this model"),
) -> dict[str, Any]:
    """Everything the page says, as plain JSON values.

    ``before``: the champion's record, or None where there is no champion; ``verdict``: what the gate found
    (registry/verdict.py), if it has judged; ``names`` of the two. ``params``, ``scores``, ``sizes``: rows; ``answer``:
    sentences.
    """
    old = before or after.model_copy(update={"scores": {}, "sizes": {}})
    keys = [key for key in sorted({*old.params, *after.params}) if old.params.get(key) != after.params.get(key)]
    same = (
        None
        if before is None or not (old.pairs_digest and after.pairs_digest)
        else old.pairs_digest == after.pairs_digest
    )
    found: dict[str, Any] = {
        "first": before is None,
        "names": list(names),
        "labels": [old.label, after.label],
        "metric": after.metric,
        "same_choices": same,
        "params": [{"key": k, "before": old.params.get(k), "after": after.params.get(k)} for k in keys],
        "scores": _scores(old, after),
        "sizes": [
            {"name": SIZES.get(k, k), "before": old.sizes.get(k), "after": after.sizes.get(k)}
            for k in [*SIZES, *sorted({*old.sizes, *after.sizes} - set(SIZES))]
            if k in old.sizes or k in after.sizes
        ],
        "verdict": _quoted(verdict),
    }
    return {**found, "answer": answer(found)}


def _scores(old: Record, new: Record) -> list[dict[str, Any]]:
    """The main metric of every slice, and recall over all users and among new items; None where one has no users."""
    k = new.metric.partition("@")[2]
    asked = [("all", new.metric), ("all", f"recall@{k}")]
    asked += [
        (part, new.metric) for part in words.in_order({*old.scores, *new.scores}) if part not in ("all", "cold_only")
    ]
    asked += [("cold_only", m) for m in sorted(new.scores.get("cold_only", {})) if m.startswith("recall@")]
    rows = []
    for part, metric in dict.fromkeys(asked):
        a, b = (r.scores.get(part, {}).get(metric) for r in (old, new))
        if a or b:
            rows.append({"slice": part, "metric": metric, **_difference(a, b)})
    return rows


def _difference(a: Score | None, b: Score | None) -> dict[str, Any]:
    """b - a with its interval; ``sure``: the interval leaves zero out."""
    out: dict[str, Any] = {name: s and s.model_dump(mode="json") for name, s in (("before", a), ("after", b))}
    out |= {"difference": None, "low": None, "high": None, "sure": False}
    if a is None or b is None:
        return out
    d = b.mean - a.mean
    out["difference"] = number(d)
    if None in (a.low, a.high, b.low, b.high):
        return out
    low = d - math.hypot(b.mean - b.low, a.high - a.mean)  # type: ignore[operator]
    high = d + math.hypot(b.high - b.mean, a.mean - a.low)  # type: ignore[operator]
    return out | {"low": number(low), "high": number(high), "sure": low > 0 or high < 0}


def _quoted(verdict: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The parts of a verdict that the page shows; a refused one may lack the numbers."""
    if verdict is None:
        return None
    keys = (
        "verdict",
        "opponent",
        "metric",
        "p",
        "difference",
        "low",
        "high",
        "users",
        "challenger_mean",
        "opponent_mean",
    )
    return {key: verdict.get(key) for key in keys} | {
        "reasons": [str(r) for r in verdict.get("reasons", ())],
        "pairs": (verdict.get("window") or {}).get("pairs"),
    }


def answer(found: Mapping[str, Any]) -> list[str]:
    """One paragraph: the score before and after, how sure that is, and what the gate said."""
    before, after = found["names"]
    name = words.metric(found["metric"])
    main = next((r for r in found["scores"] if (r["slice"], r["metric"]) == ("all", found["metric"])), None)
    out = []
    if found["first"]:
        out.append(f"There is no earlier champion to compare {after} with.")
    elif main is None or main["difference"] is None:
        out.append(f"{name} was not measured for both, so {after} and {before} cannot be compared.")
    elif main["difference"] == 0:
        out.append(f"{name} is {words.number(main['after']['mean'])} for both.")
    else:
        step = "rises to" if main["difference"] > 0 else "falls to"
        scores = f"{words.number(main['after']['mean'])} from {words.number(main['before']['mean'])} of {before}"
        out.append(
            f"Each in its own evaluation, {name} {step} {scores}: a difference of "
            f"{words.signed(main['difference'])}{_between(main)}, taken as two separate measurements."
        )
        out.append("The interval leaves zero out." if main["sure"] else "From these alone it may well be chance.")
        if found["same_choices"] is False:
            out.append("The two were measured on different choices, so part of the difference may be the choices.")
    if gate := found["verdict"]:
        out.append(_said(gate))
    n = len(found["params"])
    if not found["first"]:
        out.append(f"{n or 'No'} parameter{'' if n == 1 else 's'} differ{'s' if n == 1 else ''}.")
    return out


def _said(gate: Mapping[str, Any]) -> str:
    passed = "let it pass" if gate["verdict"] == "passed" else "refused it"
    if gate["difference"] is None or gate["p"] is None:
        return f"The gate {passed}: {'; '.join(gate['reasons']) or 'no reason was recorded'}."
    gained = gate["difference"] > 0
    chance = f"chance alone would show as much {words.chance(gate['p'])}" if gained else "that is no gain"
    choices = f" and {words.thousands(gate['pairs'])} choices" if gate["pairs"] else ""
    told = (
        f"The gate {passed}. Its comparison is the sharper one, and the one that counts: both on the same "
        f"{words.thousands(gate['users'] or 0)} users{choices}, user by user, the difference to {gate['opponent']} is "
        f"{words.signed(gate['difference'])}{_between(gate)}; {chance}."
    )
    return told if gate["verdict"] == "passed" else f"{told} Reasons: {'; '.join(gate['reasons'])}."


def _between(row: Mapping[str, Any]) -> str:
    if row["low"] is None or row["high"] is None:
        return ""
    return f" (95\u202f% interval {words.signed(row['low'])} to {words.signed(row['high'])})"


def _inner(sizes: Mapping[str, Any], dotted: str) -> int | None:
    value: Any = sizes
    for key in dotted.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return int(value) if isinstance(value, int) else None


def render(found: Mapping[str, Any]) -> bytes:
    """``comparison.html``: one self-contained page about the result of :func:`compare`."""
    return page.render("comparison.html", {"found": found, "slice_name": words.slice_name})
