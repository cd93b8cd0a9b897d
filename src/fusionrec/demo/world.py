"""The hidden truth: items with planted factors, users with tastes, and what each user makes of each item.

Legend: U users, I items. The utility of an item for a user is a sum of parts, one per modality, plus a
collaborative part that no modality shows and the item's appeal. Each part has unit variance over the pairs in
which it is present, times its strength; a modality the item lacks adds exactly nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fusionrec.demo.factors import CATEGORIES, FACTORS, PRESENT, STRENGTHS, stream
from fusionrec.errors import UsageError
from fusionrec.types import Bool, Float32, Int64

DAYS = 90
TRAIN_DAYS, VALID_DAYS = 70, 80
"""Days 1..70 train, 71..80 valid, 81..90 test."""

AGE_BANDS = ("18-24", "25-34", "35-44", "45-59", "60+")
GENDERS = ("female", "male", "other")
REGIONS = ("north", "east", "south", "west", "overseas")
SEGMENT_SHARE = 0.3
"""Share of a taste's variance that a demographic segment (age band x gender) has in common."""

LATENT = 8
PRICE_BOUNDS = ((8.0, 18.0), (18.0, 40.0), (40.0, 90.0), (90.0, 220.0))


@dataclass(frozen=True)
class Items:
    """I items: ids, factor values (I,) per modality and factor, masks, launch day (1..88), price in currency units."""

    ids: tuple[str, ...]
    factors: Mapping[str, Mapping[str, Int64]]
    present: Mapping[str, Bool]
    category: Int64
    language: Int64
    launch: Int64
    price: np.ndarray
    in_stock: Bool
    latent: np.ndarray
    appeal: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Users:
    """U users: raw ids, attributes (U,) as indices, first active day, relative activity, taste weights (U, values)."""

    ids: tuple[str, ...]
    age: Int64
    gender: Int64
    region: Int64
    language: Int64
    first_day: Int64
    activity: np.ndarray
    tastes: Mapping[str, Mapping[str, np.ndarray]]
    latent: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class World:
    """Items, users and the utility (U, I) float32 in logits."""

    seed: int
    strengths: Mapping[str, float]
    items: Items
    users: Users
    utility: Float32


def build(
    seed: int = 7, n_items: int = 1000, n_users: int = 2000, strengths: Mapping[str, float] | None = None
) -> World:
    """Draw a world. ``strengths`` overrides some of :data:`factors.STRENGTHS`; nothing else changes with it.

    Raises UsageError for an unknown part, a negative strength or a size too small to simulate.
    """
    unknown = set(strengths or {}) - set(STRENGTHS)
    if unknown:
        raise UsageError(f"unknown strength {sorted(unknown)}; known are {sorted(STRENGTHS)}")
    merged = {**STRENGTHS, **(strengths or {})}
    bad = {name: s for name, s in merged.items() if not 0 <= s < np.inf}
    if bad:
        raise UsageError(f"a strength must be a number of at least 0, found {bad}")
    if n_items < 50 or n_users < 20:
        raise UsageError(f"at least 50 items and 20 users are needed, found {n_items} and {n_users}")
    items, users = draw_items(seed, n_items), draw_users(seed, n_users)
    utility = np.zeros((n_users, n_items), np.float32)
    for name, strength in merged.items():
        if strength:
            utility += np.float32(strength) * part(items, users, name)
    return World(seed, merged, items, users, utility)


def part(items: Items, users: Users, name: str) -> Float32:
    """One part of the utility, (U, I) float32: zero where absent, mean 0 and variance 1 over the pairs present."""
    if name == "appeal":
        return np.broadcast_to(_standard(items.appeal), (len(users), len(items))).astype(np.float32)
    if name == "collaborative":
        return _standard(users.latent @ items.latent.T).astype(np.float32)
    raw = sum(taste[:, items.factors[name][factor]] for factor, taste in users.tastes[name].items())
    here = items.present[name]
    out = np.zeros((len(users), len(items)), np.float32)
    out[:, here] = _standard(np.asarray(raw)[:, here])
    return out


def _standard(x: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / x.std()


def _balanced(rng: np.random.Generator, values: int, n: int) -> Int64:
    """n values of 0..values-1, each equally often (up to one), in random order."""
    return rng.permutation(np.arange(n) % values).astype(np.int64)


def draw_items(seed: int, n: int) -> Items:
    """n items with ids AT-0000, AT-0001, ..."""
    rng = stream(seed, "items")
    factors = {
        modality: {name: _balanced(rng, len(values), n) for name, values in table.items()}
        for modality, table in FACTORS.items()
    }
    present = {modality: rng.permutation(np.arange(n) < round(share * n)) for modality, share in PRESENT.items()}
    low, high = np.array(PRICE_BOUNDS)[factors["attributes"]["price_band"]].T
    price = np.round(low * (high / low) ** rng.random(n), 1) - 0.05
    return Items(
        ids=tuple(f"AT-{k:04d}" for k in range(n)),
        factors=factors,
        present=present,
        category=_balanced(rng, len(CATEGORIES), n),
        language=_balanced(rng, 2, n),
        launch=_launches(rng, n),
        price=np.round(price, 2),
        in_stock=rng.random(n) < 0.96,
        latent=rng.standard_normal((n, LATENT)),
        appeal=rng.standard_normal(n),
    )


def _launches(rng: np.random.Generator, n: int) -> Int64:
    """Launch days: 60 % on day 1, 8 % over days 2-60, 16 % over days 71-78, 16 % over days 81-88."""
    late, trickle = round(0.16 * n), round(0.08 * n)
    days = np.concatenate(
        [
            np.ones(n - 2 * late - trickle, np.int64),
            rng.integers(2, 61, trickle),
            TRAIN_DAYS + 1 + np.arange(late) % 8,
            VALID_DAYS + 1 + np.arange(late) % 8,
        ]
    )
    return rng.permutation(days)


def draw_users(seed: int, n: int) -> Users:
    """n users; what one of them likes depends on the seed alone."""
    rng = stream(seed, "users")
    age = rng.choice(len(AGE_BANDS), n, p=[0.18, 0.30, 0.24, 0.18, 0.10])
    gender = rng.choice(len(GENDERS), n, p=[0.48, 0.46, 0.06])
    segment = age * len(GENDERS) + gender
    tastes: dict[str, dict[str, np.ndarray]] = {}
    for modality, table in FACTORS.items():
        for name, values in table.items():
            draw = stream(seed, "taste", modality, name)
            common = draw.standard_normal((len(AGE_BANDS) * len(GENDERS), len(values)))[segment]
            own = draw.standard_normal((n, len(values)))
            weight = np.sqrt(SEGMENT_SHARE) * common + np.sqrt(1 - SEGMENT_SHARE) * own
            tastes.setdefault(modality, {})[name] = weight - weight.mean(axis=1, keepdims=True)
    first = np.ones(n, np.int64)
    kind = rng.permutation(n) / n
    first[kind < 0.30] = rng.integers(2, 61, int((kind < 0.30).sum()))
    cold = kind >= 0.95
    first[cold] = rng.integers(TRAIN_DAYS + 1, VALID_DAYS + 6, int(cold.sum()))
    return Users(
        ids=tuple(f"user{k:05d}@example.org" for k in range(n)),
        age=age,
        gender=gender,
        region=rng.choice(len(REGIONS), n),
        language=rng.choice(2, n),
        first_day=first,
        activity=np.exp(0.7 * rng.standard_normal(n) - 0.7**2 / 2),
        tastes=tastes,
        latent=rng.standard_normal((n, LATENT)),
    )
