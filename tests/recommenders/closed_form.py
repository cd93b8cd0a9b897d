"""A small planted world for the closed-form models: two tastes, content that tells them apart, some items untouched."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fusionrec.types import Interactions, ItemSet

USERS, ITEMS, UNTOUCHED = 90, 40, 6


@dataclass(frozen=True)
class World:
    train: Interactions
    valid: Interactions
    items: ItemSet
    taste: np.ndarray  # (I,) 0 or 1


def world(seed: int = 3) -> World:
    rng = np.random.default_rng(seed)
    taste = rng.permutation(np.arange(ITEMS) % 2)
    vectors = {"image": 5, "text": 7}
    features = {
        m: (np.where(taste, 1.0, -1.0)[:, None] * (np.arange(d) < 2) + 0.3 * rng.standard_normal((ITEMS, d))).astype(
            np.float32
        )
        for m, d in vectors.items()
    }
    present = {m: rng.random(ITEMS) < 0.9 for m in vectors}
    present["text"][-UNTOUCHED:] = True
    for m in vectors:
        features[m][~present[m]] = 0
    items = ItemSet(
        tuple(f"i{n:03d}" for n in range(ITEMS)), features, present, {m: np.zeros(ITEMS, np.int16) for m in vectors}
    )
    pairs = []
    for user in range(USERS):
        likes = np.flatnonzero(taste[: ITEMS - UNTOUCHED] == user % 2)
        pairs += [(user, int(i)) for i in rng.choice(likes, 7, replace=False)]
    user, item = (np.array(c, np.int32) for c in zip(*pairs, strict=True))
    held = rng.random(len(user)) < 0.2
    both = Interactions(user, item, None, USERS, ITEMS)
    return World(both.select(~held), both.select(held), items, taste)


def without_last(full: World, n: int) -> World:
    """The same world before its last ``n`` items joined (nobody touched them)."""
    kept = ITEMS - n
    old = full.items
    items = ItemSet(
        old.ids[:kept],
        {m: v[:kept] for m, v in old.features.items()},
        {m: v[:kept] for m, v in old.present.items()},
        {m: v[:kept] for m, v in old.group.items()},
    )
    return World(replace(full.train, n_items=kept), replace(full.valid, n_items=kept), items, full.taste[:kept])
