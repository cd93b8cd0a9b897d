"""The gate between challenger and champion: both are scored on pairs that neither has seen; pure of MLflow.

The common set. Where both models come from a split by time: the test pairs later than both training cut-offs (one
window of time). Otherwise: the test pairs that neither model was fitted on, told by the hashed pairs in the bundles. In
either case pairs that one of the fits saw (its validation pairs too) are left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from fusionrec.data import split
from fusionrec.evaluation import slices
from fusionrec.evaluation.protocol import Result, evaluate, take
from fusionrec.evaluation.significance import paired
from fusionrec.recommenders.recommender import Recommender
from fusionrec.registry.bundle import Bundle, pair_hashes, user_hashes
from fusionrec.types import Columns, Int64, Interactions, ItemSet, Requests

FLOORED = ("warm", "cold", "missing_")
MIN_SLICE = 30
"""A slice with fewer users says too little to refuse a model for it."""
CANARIES = 64


@dataclass(frozen=True)
class Rules:
    """The numbers of the gate, from params.yaml (registry.promotion and evaluate)."""

    metric: str
    k: int
    alpha: float
    min_pairs: int
    slice_floor: float
    history: tuple[str, ...]
    repeats: int
    seed: int


@dataclass(frozen=True)
class Contender:
    """A recommender attached to the common catalogue; ``rows``: hash of a user -> the user's row in its fit."""

    name: str
    recommender: Recommender
    rows: Mapping[int, int]

    def requests(self, asked: split.Asked) -> Requests:
        """The common requests in this model's user numbering."""
        rows: Int64 = np.array([self.rows.get(int(h), -1) for h in user_hashes(asked.users)], np.int64)
        return replace(asked.requests, user=rows)


@dataclass(frozen=True)
class CommonSet:
    """Test pairs that neither model saw; ``kind`` is "time" or "unseen", ``start`` the ISO time before all pairs."""

    data: split.SplitData
    kind: str
    start: str | None
    pairs: int
    digest: str


def common_set(data: split.SplitData, bundles: Sequence[Bundle]) -> CommonSet:
    """The pairs of ``data``'s test split on which the models of ``bundles`` can be compared."""
    test = data.frames["test"]
    ends = [_moment(b.model.manifest["train_end"]) for b in bundles]
    timed = None not in ends and test[Columns.TIME].null_count() == 0
    by_time = timed and all(b.about.get("temporal") for b in bundles)
    start = max(e for e in ends if e is not None) if by_time else None
    if start is not None:
        test = test.filter(pl.col(Columns.TIME) > start)
    hashes = pair_hashes(test[Columns.USER], test[Columns.ITEM])
    seen = np.zeros(len(hashes), bool)
    for b in bundles:
        seen |= np.isin(hashes, b.pairs)
    test = test.filter(pl.Series(~seen, dtype=pl.Boolean))
    kept = np.sort(hashes[~seen])
    digest = hashlib.sha256(kept.astype("<u8").tobytes()).hexdigest()
    return CommonSet(
        replace(data, frames={**data.frames, "test": test}),
        "time" if by_time else "unseen",
        start.isoformat() if start is not None else None,
        test.height,
        digest,
    )


def contender(
    name: str, bundle: Bundle, items: ItemSet, fingerprints: Mapping[str, str], users: pl.DataFrame | None = None
) -> Contender:
    """The recommender of a bundle, attached to the common catalogue ``items``; ``users``: their attributes.

    Its vectors are the current ones where the encoder is the same, else those of its own snapshot (an item that the
    snapshot lacks is then absent, as it was for that model).
    """
    own = bundle.catalogue
    at = {item: row for row, item in enumerate(own.items.ids)}
    rows = np.array([at.get(i, -1) for i in items.ids], np.int64)
    parts: dict[str, dict[str, Any]] = {"features": {}, "present": {}, "group": {}}
    for m in bundle.modalities:
        current = fingerprints.get(m) == own.fingerprints[m]
        for part, arrays in parts.items():
            if current:
                arrays[m] = getattr(items, part)[m]
            else:
                old = getattr(own.items, part)[m]
                arrays[m] = np.where((rows >= 0).reshape(-1, *[1] * (old.ndim - 1)), old[rows], old.dtype.type(0))
    recommender = bundle.attached(ItemSet(items.ids, **parts), users)
    return Contender(name, recommender, {int(h): row for row, h in enumerate(bundle.users)})


def popularity(train: Interactions, items: ItemSet, users: Sequence[str]) -> Contender:
    """The floor that a first champion must beat, fitted on the challenger's own training split."""
    from fusionrec.recommenders.popularity import Popularity

    model = Popularity().build()
    model.fit(train, train.select(np.zeros(len(train), bool)), items.only())
    return Contender("popularity", Recommender(model), {int(h): row for row, h in enumerate(user_hashes(users))})


def canary(model: Contender, asked: split.Asked, k: int) -> list[str]:
    """What is plainly broken about a model: NaN, a wrong number of items, empty lists, seen items. [] where nothing."""
    requests = take(model.requests(asked), np.arange(min(CANARIES, len(asked.users))))
    n_items = requests.history.shape[1]
    try:
        scores = model.recommender.retriever.score(requests)
        if scores.shape != (len(requests), n_items):
            return [f"canary: scores of shape {scores.shape}, expected {(len(requests), n_items)}"]
        items, values = model.recommender.recommend(requests, k)
    except Exception as error:  # whatever a broken model raises, it is the model that is refused
        return [f"canary: {' '.join(str(error).split())[:160] or type(error).__name__}"]
    if np.isnan(values).any() or items.shape != (len(requests), k) or items.max(initial=-1) >= n_items:
        return ["canary: recommendations hold NaN, or items outside the catalogue"]
    known = np.diff(requests.history.indptr) > 0
    if known.any() and not (items[known] >= 0).any():
        return [f"canary: no item at all for {int(known.sum())} requests with a history"]
    return []


def judge(
    challenger: Contender, opponent: Contender, common: CommonSet, items: ItemSet, rules: Rules
) -> dict[str, Any]:
    """The findings as plain JSON: ``verdict`` passed or refused, ``reasons``, and the numbers behind them."""
    found: dict[str, Any] = {
        "metric": f"{rules.metric}@{rules.k}",
        "alpha": rules.alpha,
        "opponent": opponent.name,
        "window": {"kind": common.kind, "after": common.start, "pairs": common.pairs, "digest": common.digest},
    }
    if common.pairs < rules.min_pairs:
        return found | {"verdict": "refused", "reasons": [
            f"not comparable: {common.pairs} test pairs that neither model was trained on, expected at least "
            f"{rules.min_pairs} (registry.promotion.min_pairs)"
        ]}  # fmt: skip
    asked = split.requests(common.data, "test", rules.history)
    if broken := canary(challenger, asked, rules.k):
        return found | {"verdict": "refused", "reasons": broken}
    cold = np.bincount(common.data.train.item, minlength=len(items)) == 0
    parts = [
        part
        for part in slices.build(asked.requests, asked.positives, cold, items.present)
        if part.name == "all" or part.name.startswith(FLOORED)
    ]
    ours, theirs = (
        evaluate(model.recommender, model.requests(asked), parts, (rules.k,), name=model.name)
        for model in (challenger, opponent)
    )
    return found | _compare(ours, theirs, str(found["metric"]), rules)


def _compare(challenger: Result, opponent: Result, metric: str, rules: Rules) -> dict[str, Any]:
    test = paired(
        challenger.values["all"][metric], opponent.values["all"][metric], repeats=rules.repeats, seed=rules.seed
    )
    ours, users = challenger.mean("all", metric)
    theirs, _ = opponent.mean("all", metric)
    reasons = []
    if not (test.p < rules.alpha and test.difference > 0):
        reasons.append(
            f"not better than {opponent.model}: {metric} {ours:.4f} against {theirs:.4f} over {users} users, one-sided "
            f"p = {test.p:.4f}, expected below {rules.alpha:g}"
        )
    table = {}
    for name in sorted(set(challenger.values) - {"all"}):
        mine, n = challenger.mean(name, metric)
        other, _ = opponent.mean(name, metric)
        table[name] = {"challenger": round(mine, 6), "opponent": round(other, 6), "n": n}
        if n >= MIN_SLICE and mine < rules.slice_floor * other:
            reasons.append(
                f"slice {name}: {metric} {mine:.4f} is below {rules.slice_floor:g} of {opponent.model}'s {other:.4f} "
                f"({n} users)"
            )
    return {
        "verdict": "refused" if reasons else "passed",
        "reasons": reasons,
        "p": round(test.p, 6),
        "difference": round(test.difference, 6),
        "low": _number(test.low),
        "high": _number(test.high),
        "users": users,
        "challenger_mean": round(ours, 6),
        "opponent_mean": round(theirs, 6),
        "slices": table,
    }


def _number(value: float) -> float | None:
    return round(value, 6) if np.isfinite(value) else None


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
