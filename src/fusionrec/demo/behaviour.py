"""Ninety days of browsing: sessions, impressions with a position, clicks and what follows a click.

What is shown depends on the true preference (a recommender is already at work) and on chance; where it is
shown does not: the order inside a list is random, so the position only biases what is examined
(examination 1/sqrt(position); Joachims et al. 2017, "Unbiased learning-to-rank with biased feedback").
Lists are drawn without replacement by the Gumbel top-k trick (Kool et al. 2019).

Legend: S sessions, K = 12 slots, U users, I items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusionrec.demo.factors import CATEGORIES, FACTORS, stream
from fusionrec.demo.world import DAYS, TRAIN_DAYS, VALID_DAYS, World
from fusionrec.types import Bool, Float32, Int64

SLOTS, RANDOM_SLOTS = 12, 3
EXAMINATION = (1.0 / np.sqrt(np.arange(1, SLOTS + 1))).astype(np.float32)
EXPOSURE_SLOPE, APPEAL_EXPOSURE = 0.8, 0.5
NEWCOMER = -1.0
"""Added to the exposure logit of an item for the rest of the log when it is launched after the training window:
the shop's list trusts what it knows (the opposite of a boost for new items)."""
CLICK_SLOPE = 1.1
TARGET_CTR = 0.29
SESSIONS_PER_USER = 16.5
SEARCH_SHARE = 0.25
CATEGORY_BOOST, WANTED_BOOST = 3.0, 2.0
HIDE_CLICKED = 0.9
REPEAT_CLICK = 0.15
LATE_CLICKED = 150 / 160
"""Share of the items launched in the valid (and test) window that must be clicked in it."""


@dataclass(frozen=True)
class Sessions:
    """S sessions in time order of days: ``user``, ``day`` (1..90), what a search wanted, and the list shown (S, K)."""

    user: Int64
    day: Int64
    search: Bool
    category: Int64
    occasion: Int64
    origin: Int64
    shown: Int64
    random_slot: Bool
    clicked: Bool
    click_offset: float

    def __len__(self) -> int:
        return len(self.user)


def exposure_logits(world: World) -> Float32:
    """(U, I) float32: what the shop's list favours; new items get no boost, rather less."""
    appeal = (world.items.appeal - world.items.appeal.mean()) / world.items.appeal.std()
    late = world.items.launch > TRAIN_DAYS
    shift = (APPEAL_EXPOSURE * appeal + NEWCOMER * late).astype(np.float32)
    return np.asarray(EXPOSURE_SLOPE * world.utility + shift, np.float32)


def inclusion(logits: Float32, slots: int) -> Float32:
    """Probability (U, I) that an item is among the ``slots`` of a Gumbel top-k draw from ``logits``.

    In the race picture item i arrives after an exponential time of rate exp(logit); the k-th arrival time is
    concentrated, so 1 - exp(-rate * t) with t chosen to admit ``slots`` items on average is close.
    """
    rate = np.exp(logits - logits.max(axis=1, keepdims=True))
    low, high = np.full((len(rate), 1), -20, np.float32), np.full((len(rate), 1), 20, np.float32)
    for _ in range(24):
        middle = (low + high) / 2
        few = -np.expm1(-rate * np.exp(middle)).sum(axis=1, keepdims=True) < slots
        low, high = np.where(few, middle, low), np.where(few, high, middle)
    return np.asarray(-np.expm1(-rate * np.exp(high)), np.float32)


def show_probability(world: World, logits: Float32) -> Float32:
    """Probability (U, I) to be in a list that draws from all items: the favoured slots, then the random ones."""
    chosen = inclusion(logits, SLOTS - RANDOM_SLOTS)
    by_chance = (1 - chosen) * RANDOM_SLOTS / (len(world.items) - SLOTS + RANDOM_SLOTS)
    return np.asarray(chosen + by_chance, np.float32)


def click_offset(world: World, logits: Float32) -> float:
    """The offset c of sigmoid(slope * utility - c) that gives :data:`TARGET_CTR` on first lists, before examination."""
    sample = slice(0, 400)
    show, utility = show_probability(world, logits[sample]), world.utility[sample]
    low, high = -20.0, 40.0
    for _ in range(30):
        c = (low + high) / 2
        rate = float((show * _sigmoid(CLICK_SLOPE * utility - c)).sum() / show.sum()) * float(EXAMINATION.mean())
        low, high = (c, high) if rate > TARGET_CTR else (low, c)
    return (low + high) / 2


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))


def simulate(world: World) -> Sessions:
    """Draw all sessions of the 90 days. Deterministic in the world's seed; about 2 s at 1,000 x 2,000."""
    user, day = _calendar(world)
    search, category, occasion, origin = wants(world, user)
    logits = exposure_logits(world)
    offset = click_offset(world, logits)
    shown = np.zeros((len(user), SLOTS), np.int64)
    random_slot = np.zeros((len(user), SLOTS), bool)
    clicked = np.zeros((len(user), SLOTS), bool)
    known = np.zeros(world.utility.shape, bool)
    for d in range(1, DAYS + 1):
        rows = np.flatnonzero(day == d)
        if not len(rows):
            continue
        rng, who = stream(world.seed, "day", d), user[rows]
        base = boosted(world, logits[who], category[rows], occasion[rows], origin[rows])
        drawn, chance = lists(rng, base, world.items.launch <= d, known[who])
        hit = clicks(rng, world, who, drawn, known, offset)
        shown[rows], random_slot[rows], clicked[rows] = drawn, chance, hit
        known[np.broadcast_to(who[:, None], drawn.shape)[hit], drawn[hit]] = True
    _force_late(world, user, day, shown, random_slot, clicked)
    return Sessions(user, day, search, category, occasion, origin, shown, random_slot, clicked, offset)


def _calendar(world: World) -> tuple[Int64, Int64]:
    """At most one session a user and day, in day order; heavy users come often (log-normal)."""
    rng, users = stream(world.seed, "calendar"), world.users
    left = DAYS + 1 - users.first_day
    count = np.clip(np.round(SESSIONS_PER_USER * users.activity * left / DAYS), 2, left).astype(np.int64)
    days = np.arange(1, DAYS + 1)
    key = rng.random((len(users), DAYS)) + 2.0 * (days < users.first_day[:, None])
    np.put_along_axis(key, (users.first_day - 1)[:, None], -1.0, axis=1)
    chosen = key.argsort(axis=1).argsort(axis=1) < count[:, None]
    day, user = np.nonzero(chosen.T)
    return user.astype(np.int64), day.astype(np.int64) + 1


def wants(world: World, user: Int64) -> tuple[Bool, Int64, Int64, Int64]:
    """What search sessions look for: a random category, and an occasion and/or origin the user likes (-1: none)."""
    rng, n = stream(world.seed, "wants"), len(user)
    search = rng.random(n) < SEARCH_SHARE
    category = rng.integers(0, len(CATEGORIES), n)
    which = rng.choice(3, n, p=[0.4, 0.3, 0.3])
    picks = []
    for name in ("occasion", "origin"):
        taste = world.strengths["text"] * world.users.tastes["text"][name][user]
        gumbel = rng.gumbel(size=(n, len(FACTORS["text"][name])))
        picks.append((taste + gumbel).argmax(axis=1))
    occasion = np.where(search & (which != 1), picks[0], -1)
    origin = np.where(search & (which != 0), picks[1], -1)
    return search, np.where(search, category, -1), occasion, origin


def lists(rng: np.random.Generator, base: Float32, launched: Bool, known: Bool) -> tuple[Int64, Bool]:
    """Draw lists (S, K) for S sessions of one day, and which slots were filled at random; order is random."""
    hidden = known & (rng.random(base.shape, np.float32) < HIDE_CLICKED)
    closed = np.where(launched, np.float32(0), np.float32(-np.inf)) - 100 * hidden.astype(np.float32)
    gumbel = -np.log(-np.log(np.clip(rng.random(base.shape, np.float32), 1e-9, 1 - 6e-8)))
    favoured = np.argpartition(-(base + gumbel + closed), SLOTS - RANDOM_SLOTS, axis=1)[:, : SLOTS - RANDOM_SLOTS]
    uniform = rng.random(base.shape, np.float32) + closed
    np.put_along_axis(uniform, favoured, -np.inf, axis=1)
    filler = np.argpartition(-uniform, RANDOM_SLOTS, axis=1)[:, :RANDOM_SLOTS]
    drawn = np.concatenate([favoured, filler], axis=1)
    order = rng.random(drawn.shape).argsort(axis=1)
    return np.take_along_axis(drawn, order, axis=1), order >= SLOTS - RANDOM_SLOTS


def boosted(world: World, base: Float32, category: Int64, occasion: Int64, origin: Int64) -> Float32:
    """Exposure logits (S, I) of S sessions with what each one searches for (-1: nothing)."""
    items = world.items
    wanted = (items.factors["text"]["occasion"] == occasion[:, None]).astype(np.float32)
    wanted += items.factors["text"]["origin"] == origin[:, None]
    same = items.category == category[:, None]
    boost = CATEGORY_BOOST * same + WANTED_BOOST * wanted * items.present["text"]
    return np.asarray(base + (category >= 0)[:, None] * boost.astype(np.float32), np.float32)


def clicks(rng: np.random.Generator, world: World, who: Int64, drawn: Int64, known: Bool, offset: float) -> Bool:
    """(S, K) which slots of the lists (S, K) shown to the users ``who`` (S,) are clicked; ``known`` (U, I)."""
    p = _sigmoid(CLICK_SLOPE * world.utility[who[:, None], drawn] - offset) * EXAMINATION
    p = np.where(known[who[:, None], drawn], REPEAT_CLICK * p, p)
    return np.asarray(rng.random(drawn.shape) < p)


def _force_late(world: World, user: Int64, day: Int64, shown: Int64, random_slot: Bool, clicked: Bool) -> None:
    """Make sure that enough late launches are clicked in their own window (changes the arrays in place).

    A launch nobody clicked gets the click it was most likely to get; one that was never shown takes over a
    random slot first. Without this a cold slice could be too thin to measure.
    """
    for first, last in ((TRAIN_DAYS + 1, VALID_DAYS), (VALID_DAYS + 1, DAYS)):
        late = np.flatnonzero((world.items.launch >= first) & (world.items.launch <= last))
        inside = np.flatnonzero((day >= first) & (day <= last))
        have = np.zeros(len(world.items), bool)
        have[shown[inside][clicked[inside]]] = True
        short = int(np.ceil(LATE_CLICKED * len(late))) - int(have[late].sum())
        for item in late[~have[late]][: max(short, 0)]:
            rows, slots = np.nonzero(shown[inside] == item)
            rows = inside[rows]
            if not len(rows):
                free = inside[(day[inside] >= world.items.launch[item])]
                rows, slots = np.nonzero(random_slot[free] & ~clicked[free])
                rows = free[rows]
            best = int(np.argmax(world.utility[user[rows], item] + np.log(EXAMINATION[slots])))
            shown[rows[best], slots[best]], clicked[rows[best], slots[best]] = item, True
        have[:] = False
        have[shown[inside][clicked[inside]]] = True
        if have[late].sum() < LATE_CLICKED * len(late):
            raise AssertionError(f"{have[late].sum()} of {len(late)} launches of days {first}-{last} are clicked")
