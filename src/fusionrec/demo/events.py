"""Sessions -> the interaction log and the query log as tables, with times, ids and everything after a click."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl

from fusionrec.demo import words
from fusionrec.demo.behaviour import SLOTS, Sessions
from fusionrec.demo.factors import CATEGORIES, FACTORS, stream
from fusionrec.demo.world import DAYS, World
from fusionrec.types import Int64

START = datetime(2026, 1, 1, tzinfo=UTC)
START_US = int(START.timestamp()) * 1_000_000
DAY_US = 86_400_000_000
TIME = pl.Datetime("us", "UTC")
CART_RATE, PURCHASE_RATE, RATING_RATE, REVIEW_RATE, AD_RATE = 0.35, 0.45, 0.6, 0.4, 0.008


def _seconds(rng: np.random.Generator, low: float, high: float, shape: tuple[int, ...]) -> Int64:
    return rng.integers(int(low * 1e6), int(high * 1e6), shape)


def _starts(world: World, sessions: Sessions) -> Int64:
    """Start (S,) in UTC microseconds: between 07:00 and 23:30, most in the evening."""
    rng = stream(world.seed, "starts")
    hour = 7 + 16.5 * rng.beta(2.2, 1.6, len(sessions))
    return START_US + (sessions.day - 1) * DAY_US + (hour * 3.6e9).astype(np.int64)


def tables(world: World, sessions: Sessions, last_day: int = DAYS) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(interactions, queries) with raw ids, sorted by time; columns as in docs/contracts.md. Ratings, which come days
    later, are in the log up to ``last_day``."""
    rng = stream(world.seed, "events")
    start = _starts(world, sessions)
    shape = sessions.shown.shape
    seen = start[:, None] + np.arange(SLOTS) * 15_000
    pause = np.where(sessions.clicked, _seconds(rng, 6, 40, shape), _seconds(rng, 0.3, 1.5, shape))
    acted = start[:, None] + 1_000_000 + pause.cumsum(axis=1)
    utility = world.utility[sessions.user[:, None], sessions.shown]
    liking = (utility - utility[sessions.clicked].mean()) / max(float(utility[sessions.clicked].std()), 1e-6)
    warm = 1 / (1 + np.exp(-liking))
    cart = sessions.clicked & (rng.random(shape) < 2 * CART_RATE * warm)
    bought = cart & (rng.random(shape) < 2 * PURCHASE_RATE * warm)
    stars = np.clip(np.round(3.7 + 0.9 * liking + 0.7 * rng.standard_normal(shape)), 1, 5)
    rated = bought & (rng.random(shape) < RATING_RATE)
    advert = sessions.random_slot & ~sessions.clicked & (rng.random(shape) < AD_RATE)
    later = acted + _seconds(rng, 86_400, 4 * 86_400, shape)
    carted = acted + _seconds(rng, 1.5, 3, shape)
    parts = [
        _events("impression", np.ones(shape, bool), seen),
        _events("click", sessions.clicked, acted),
        _events("cart", cart, carted),
        _events("purchase", bought, carted + _seconds(rng, 1, 2.5, shape)),
        _events("ad_click", advert, acted),
        _events("rating", rated & (later < START_US + last_day * DAY_US), later, stars),
    ]
    log = _with_ids(pl.concat(parts), world, sessions)
    return _reviews(log, world), _queries(world, sessions, start)


def _events(event: str, mask: np.ndarray, time: Int64, value: np.ndarray | None = None) -> pl.DataFrame:
    session, slot = np.nonzero(mask)
    return pl.DataFrame(
        {
            "session": session,
            "slot": slot,
            "timestamp": time[mask],
            "value": pl.Series(None if value is None else value[mask], dtype=pl.Float64)
            if value is not None
            else pl.Series([None] * len(session), dtype=pl.Float64),
        }
    ).with_columns(pl.lit(event).alias("event"))


def _with_ids(log: pl.DataFrame, world: World, sessions: Sessions) -> pl.DataFrame:
    session, slot = log["session"].to_numpy(), log["slot"].to_numpy()
    users, items = pl.Series(world.users.ids), pl.Series(world.items.ids)
    rating = pl.col("event") == "rating"
    search = pl.Series(sessions.search[session])
    log = log.with_columns(
        users.gather(sessions.user[session]).alias("user_id"),
        items.gather(sessions.shown[session, slot]).alias("item_id"),
        pl.format("i{}-{}", "session", pl.col("slot") + 1).alias("impression_id"),
        (pl.col("slot") + 1).cast(pl.Int32).alias("position"),
        pl.format("s{}", "session").alias("session_id"),
        pl.when(search).then(pl.format("q{}", "session")).alias("query_id"),
        pl.when(search).then(pl.lit("search")).otherwise(pl.lit("home")).alias("surface"),
        pl.col("timestamp").cast(TIME),
    )
    # A rating is given days later, outside the session and its list; it belongs to the purchase.
    log = log.with_columns(
        pl.when(~rating).then(pl.col(c)).alias(c)
        for c in ("impression_id", "position", "session_id", "query_id", "surface")
    )
    return log.sort("timestamp", "user_id", "item_id", "event")


def _reviews(log: pl.DataFrame, world: World) -> pl.DataFrame:
    rng = stream(world.seed, "reviews")
    language = dict(zip(world.users.ids, world.users.language.tolist(), strict=True))
    texts: list[str | None] = [None] * len(log)
    rows = np.flatnonzero((log["event"] == "rating").to_numpy())
    for row, who, stars in zip(rows.tolist(), log["user_id"].gather(rows), log["value"].gather(rows), strict=True):
        if rng.random() < REVIEW_RATE:
            texts[row] = words.review(rng, language[who], int(stars))
    return log.with_columns(pl.Series("review", texts, pl.String)).select(
        "user_id",
        "item_id",
        "event",
        "value",
        "timestamp",
        "impression_id",
        "position",
        "session_id",
        "query_id",
        "surface",
        "review",
    )


def _queries(world: World, sessions: Sessions, start: Int64) -> pl.DataFrame:
    """One row a search session: the words typed, and the first item clicked (null: none)."""
    rng, rows = stream(world.seed, "queries"), np.flatnonzero(sessions.search)
    texts = []
    for s in rows.tolist():
        wanted = {"category": CATEGORIES[sessions.category[s]]}
        if sessions.occasion[s] >= 0:
            wanted["occasion"] = FACTORS["text"]["occasion"][sessions.occasion[s]]
        if sessions.origin[s] >= 0:
            wanted["origin"] = FACTORS["text"]["origin"][sessions.origin[s]]
        texts.append(words.query(rng, int(world.users.language[sessions.user[s]]), wanted))
    first = sessions.clicked[rows].argmax(axis=1)
    clicked = np.where(sessions.clicked[rows].any(axis=1), sessions.shown[rows, first], -1)
    return pl.DataFrame(
        {
            "query_id": [f"q{s}" for s in rows],
            "text": pl.Series(texts, dtype=pl.String),
            "user_id": [world.users.ids[u] for u in sessions.user[rows]],
            "clicked_item_id": pl.Series([world.items.ids[i] if i >= 0 else None for i in clicked], dtype=pl.String),
            "timestamp": pl.Series(start[rows] - 800_000).cast(TIME),
        }
    ).sort("timestamp", "query_id")
