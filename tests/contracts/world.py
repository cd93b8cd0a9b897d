"""A small made-up world for the contract tests. All sizes differ: U=31, I=43, D=7 and 11, so a broadcast bug shows.

Items 38..42 have no training interaction (cold). Item 40 has no modality at all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from fusionrec.types import Interactions, ItemSet, Requests, item_order

USERS, ITEMS, COLD = 31, 43, 5
DIMS = {"image": 7, "text": 11}
DAY = 86_400_000_000


@dataclass(frozen=True)
class World:
    items: ItemSet
    train: Interactions
    valid: Interactions


def world(seed: int = 0) -> World:
    """Two tastes: users and items of one sign meet three times as often; both modalities show the sign."""
    rng = np.random.default_rng(seed)
    taste = np.where(np.arange(ITEMS) % 2, 1.0, -1.0)
    fan = np.where(np.arange(USERS) % 2, 1.0, -1.0)
    features, present, group = {}, {}, {}
    for name, dim in DIMS.items():
        x = rng.normal(size=(ITEMS, dim)).astype(np.float32)
        x[:, 0] += 2 * taste
        here = rng.random(ITEMS) > 0.2
        here[[0, 1, 38, 39, 41, 42]] = True
        here[40] = False
        x[~here] = 0
        features[name], present[name], group[name] = x, here, (np.arange(ITEMS) % 2).astype(np.int16)
    ids = tuple(item_order(f"item-{n}" for n in range(ITEMS)))
    chance = np.where(fan[:, None] == taste[None], 0.3, 0.1)
    chance[:, ITEMS - COLD :] = 0
    chance[:, 0] = 0.9  # a clear favourite
    touched = rng.random(chance.shape) < chance
    touched[:, 1] |= ~touched.any(1)
    user, item = np.nonzero(touched)
    time = rng.permutation(len(user)).astype(np.int64) * (DAY // 16) + DAY
    order = np.lexsort((item, user, time))
    everything = Interactions(user[order].astype(np.int32), item[order].astype(np.int32), time[order], USERS, ITEMS)
    late = np.arange(len(everything)) >= int(0.85 * len(everything))
    first = np.unique(everything.item, return_index=True)[1]  # every warm item stays in train
    late[first] = False
    return World(ItemSet(ids, features, present, group), everything.select(~late), everything.select(late))


def requests(train: Interactions, users: list[int]) -> Requests:
    """Requests of these training users with their history and its times."""
    shape = (train.n_users, train.n_items)
    rows = np.array(users, np.int64)
    times = None
    if train.time is not None:
        times = sparse.csr_matrix((train.time, (train.user, train.item)), shape=shape)
        times.sort_indices()
        times = times[rows]
    return Requests(user=rows, history=train.matrix()[rows], history_time=times)


def strangers(histories: list[list[int]], n_items: int) -> Requests:
    """Requests of users the model never saw, one a history (item rows, oldest first)."""
    user = np.repeat(np.arange(len(histories)), [len(h) for h in histories])
    item = np.array([i for h in histories for i in h], np.int64)
    age = np.array([DAY * (p + 1) for h in histories for p in range(len(h))], np.int64)
    shape = (len(histories), n_items)
    history = sparse.csr_matrix((np.ones(len(item), np.float32), (user, item)), shape=shape)
    times = sparse.csr_matrix((age, (user, item)), shape=shape, dtype=np.int64)
    return Requests(user=np.full(len(histories), -1, np.int64), history=history, history_time=times)


def rearranged(items: ItemSet, rows: np.ndarray) -> ItemSet:
    """The catalogue whose row n is row ``rows[n]`` of ``items``."""
    return replace(
        items,
        ids=tuple(items.ids[r] for r in rows),
        features={m: x[rows] for m, x in items.features.items()},
        present={m: p[rows] for m, p in items.present.items()},
        group={m: g[rows] for m, g in items.group.items()},
    )


def columns(request: Requests, rows: np.ndarray) -> Requests:
    """The same requests over the catalogue of :func:`rearranged`."""
    return replace(
        request,
        history=request.history[:, rows],
        seen=None if request.seen is None else request.seen[:, rows],
        history_time=None if request.history_time is None else request.history_time[:, rows],
    )


def extended(items: ItemSet, extra: int, seed: int = 9) -> ItemSet:
    """``items`` followed by ``extra`` items that nobody has seen before, all modalities present."""
    rng = np.random.default_rng(seed)
    return replace(
        items,
        ids=items.ids + tuple(f"new-{n}" for n in range(extra)),
        features={
            m: np.concatenate([x, rng.normal(size=(extra, x.shape[1])).astype(np.float32)])
            for m, x in items.features.items()
        },
        present={m: np.concatenate([p, np.ones(extra, bool)]) for m, p in items.present.items()},
        group={m: np.concatenate([g, np.zeros(extra, np.int16)]) for m, g in items.group.items()},
    )


def widened(request: Requests, extra: int) -> Requests:
    """The same requests over the catalogue of :func:`extended`."""

    def wide(m: sparse.csr_matrix | None) -> sparse.csr_matrix | None:
        if m is None:
            return None
        return sparse.csr_matrix((m.data, m.indices, m.indptr), shape=(m.shape[0], m.shape[1] + extra))

    return replace(
        request, history=wide(request.history), seen=wide(request.seen), history_time=wide(request.history_time)
    )
