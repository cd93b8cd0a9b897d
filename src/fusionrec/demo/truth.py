"""What only the generator knows: the score of the true preference (the ceiling), and the files that keep the truth.

The ceiling leaves this package as aggregates only; the preference itself is written outside the catalogue.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from fusionrec.demo import behaviour
from fusionrec.demo.behaviour import Sessions
from fusionrec.demo.events import DAY_US, START_US
from fusionrec.demo.factors import FACTORS, stream
from fusionrec.demo.world import DAYS, TRAIN_DAYS, VALID_DAYS, World
from fusionrec.evaluation import metrics
from fusionrec.types import Bool, Float32, Int64

POSITIVE = ("click", "cart", "purchase", "like")
RESAMPLES = 2000
CUTS = (10, 20)


@dataclass(frozen=True)
class Split:
    """Unique positive (user, item) pairs at their first positive event, cut by global time. Arrays (N,)."""

    user: Int64
    item: Int64
    time: Int64
    part: Int64
    """0 train, 1 valid, 2 test"""

    def matrix(self, parts: tuple[int, ...], shape: tuple[int, int]) -> Bool:
        """(U, I) bool of the pairs in these parts."""
        out = np.zeros(shape, bool)
        keep = np.isin(self.part, parts)
        out[self.user[keep], self.item[keep]] = True
        return out


def split(world: World, log: pl.DataFrame) -> Split:
    """The demo's protocol on the log with raw ids: days 1-70 train, 71-80 valid, 81-90 test."""
    good = pl.col("event").is_in(POSITIVE) | ((pl.col("event") == "rating") & (pl.col("value") >= 4))
    pairs = log.filter(good).group_by("user_id", "item_id").agg(pl.col("timestamp").min())
    pairs = pairs.sort("timestamp", "user_id", "item_id")
    users = {u: k for k, u in enumerate(world.users.ids)}
    items = {i: k for k, i in enumerate(world.items.ids)}
    time = pairs["timestamp"].dt.epoch("us").to_numpy()
    day = (time - START_US) // DAY_US
    return Split(
        np.array([users[u] for u in pairs["user_id"]], np.int64),
        np.array([items[i] for i in pairs["item_id"]], np.int64),
        time,
        np.digitize(day, [TRAIN_DAYS, VALID_DAYS]),
    )


def oracle(world: World, sessions: Sessions) -> Float32:
    """(U, I) float32: log of the true rate at which a user meets and clicks an item in the test window.

    It knows the preference, what the list favours, and for how many days of the window the item is on sale.
    """
    days = np.clip(DAYS + 1 - np.maximum(world.items.launch, VALID_DAYS + 1), 1, None)
    show = behaviour.show_probability(world, behaviour.exposure_logits(world))
    logit = behaviour.CLICK_SLOPE * world.utility - sessions.click_offset
    return (np.log(show) - np.logaddexp(0, -logit) + np.log(days)).astype(np.float32)


def per_user(
    scores: Float32, positives: Bool, masked: Bool, candidates: Bool, cuts: tuple[int, ...] = CUTS
) -> dict[str, np.ndarray]:
    """Recall@K and NDCG@K of every user with a positive, (users,) float64 each.

    ``scores`` (U, I); ``positives``, ``masked`` (U, I) bool; ``candidates`` (I,) bool.
    """
    who = np.flatnonzero(positives.any(axis=1))
    table = np.where(masked[who] | ~candidates, -np.inf, scores[who])
    best = np.argsort(-table, axis=1, kind="stable")[:, : max(cuts)]
    best = np.where(np.isfinite(np.take_along_axis(table, best, axis=1)), best, -1)
    best = np.pad(best, ((0, 0), (0, max(cuts) - best.shape[1])), constant_values=-1)
    values = metrics.per_user(best, sparse.csr_matrix(positives[who]), cuts)
    return {f"{name}@{k}": values[f"{name}@{k}"] for name in ("recall", "ndcg") for k in cuts}


def expected_random(positives: Bool, masked: Bool, candidates: Bool, k: int) -> dict[str, np.ndarray]:
    """The expectation of Recall@k and NDCG@k of a uniformly random ranking, exact, per user with a positive."""
    who = np.flatnonzero(positives.any(axis=1))
    pool = (~masked[who] & candidates).sum(axis=1)
    depth = np.minimum(k, pool)
    n = positives[who].sum(axis=1)
    gain = (1 / np.log2(np.arange(2, k + 2))).cumsum()
    return {f"recall@{k}": depth / pool, f"ndcg@{k}": n / pool * gain[depth - 1] / gain[np.minimum(n, k) - 1]}


def interval(values: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """Mean and 95 % percentile interval over users, :data:`RESAMPLES` bootstrap resamples."""
    means = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": round(float(values.mean()), 6), "low": round(float(low), 6), "high": round(float(high), 6)}


def slices(world: World, pairs: Split) -> dict[str, tuple[Bool, Bool]]:
    """Slice name -> (positives (U, I), candidates (I,)). Cold: the item has no train pair."""
    shape = world.utility.shape
    test = pairs.matrix((2,), shape)
    warm: Bool = np.asarray(pairs.matrix((0,), shape).any(axis=0))
    everything = np.ones(shape[1], bool)
    return {
        "all": (test, everything),
        "warm": (test & warm, everything),
        "cold": (test & ~warm, everything),
        "cold_only": (test & ~warm, ~warm),
    }


def ceiling(world: World, sessions: Sessions, log: pl.DataFrame) -> dict[str, Any]:
    """The content of ceiling.json: scores of the true preference on the demo's test pairs, with intervals."""
    pairs = split(world, log)
    history = pairs.matrix((0, 1), world.utility.shape)
    scores, rng = oracle(world, sessions), stream(world.seed, "bootstrap")
    test = pairs.part == 2
    out: dict[str, Any] = {
        "label": "oracle",
        "protocol": {
            "positives": {**dict.fromkeys(POSITIVE), "rating": 4.0},
            "pairs": "unique, at the first positive event",
            "split": "global time, UTC",
            "valid_from": TRAIN_DAYS + 1,
            "test_from": VALID_DAYS + 1,
            "history": "train+valid",
            "candidates": "all items but the history",
            "interval": f"95 %, {RESAMPLES} resamples of users",
            "cold": "no pair in train",
        },
        "pairs_digest": digest(world, pairs),
        "n_pairs": int(test.sum()),
        "n_users": len(np.unique(pairs.user[test])),
        "scores": {},
        "random": {},
        "n": {},
    }
    for name, (positives, candidates) in slices(world, pairs).items():
        if not positives.any():
            continue
        values = per_user(scores, positives, history, candidates)
        out["scores"][name] = {metric: interval(x, rng) for metric, x in values.items()}
        out["n"][name] = {"users": int(positives.any(axis=1).sum()), "pairs": int(positives.sum())}
        if name == "cold_only":
            chance = expected_random(positives, history, candidates, 10)
            out["random"][name] = {metric: interval(x, rng) for metric, x in chance.items()}
    return out


def digest(world: World, pairs: Split) -> str:
    """sha256 over the sorted lines ``item_id|timestamp in microseconds`` of the test pairs."""
    rows = pairs.part == 2
    lines = sorted(f"{world.items.ids[i]}|{t}" for i, t in zip(pairs.item[rows], pairs.time[rows], strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def save(folder: Path, world: World, sessions: Sessions) -> None:
    """Write truth.npz (arrays) and truth.json (names and parameters) into an existing folder."""
    items, users = world.items, world.users
    arrays: dict[str, np.ndarray] = {
        "utility": world.utility,
        "exposure_logits": behaviour.exposure_logits(world),
        "examination": behaviour.EXAMINATION,
        "appeal": items.appeal,
        "item_latent": items.latent,
        "user_latent": users.latent,
        "launch_day": items.launch,
        "category": items.category,
        "first_day": users.first_day,
    }
    for modality, table in items.factors.items():
        arrays[f"present.{modality}"] = items.present[modality]
        for factor, values in table.items():
            arrays[f"item.{modality}.{factor}"] = values
            arrays[f"taste.{modality}.{factor}"] = users.tastes[modality][factor].astype(np.float32)
    np.savez(folder / "truth.npz", allow_pickle=False, **arrays)
    about: Mapping[str, Any] = {
        "seed": world.seed,
        "strengths": dict(world.strengths),
        "item_ids": items.ids,
        "user_ids": users.ids,
        "factors": FACTORS,
        "click": {"slope": behaviour.CLICK_SLOPE, "offset": sessions.click_offset},
        "slots": {"list": behaviour.SLOTS, "random": behaviour.RANDOM_SLOTS},
    }
    text = json.dumps(about, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    (folder / "truth.json").write_text(text, encoding="utf-8")
