"""Fault X16: an item may have any of the 16 subsets of four modalities, none included, and is still answered for.

Real retrievers and fusions, modalities of different widths (5, 7, 11, 13), a catalogue where every subset occurs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, combinations

import numpy as np
import pytest
from scipy import sparse

from fusionrec.evaluation import missing
from fusionrec.evaluation.knockout import EVERY
from fusionrec.evaluation.protocol import Result, evaluate
from fusionrec.evaluation.slices import Slice
from fusionrec.fusion.attention import Attention
from fusionrec.fusion.concat import Concat
from fusionrec.fusion.weighted import Weighted
from fusionrec.recommenders.base import Retriever
from fusionrec.recommenders.blend import Blend
from fusionrec.recommenders.content import Content
from fusionrec.recommenders.popularity import Popularity
from fusionrec.recommenders.two_tower import TwoTower
from fusionrec.types import Bool, Interactions, ItemSet, Requests, item_order

DIMS = {"audio": 5, "image": 7, "text": 11, "video": 13}
SUBSETS = list(chain.from_iterable(combinations(DIMS, n) for n in range(len(DIMS) + 1)))
USERS, ITEMS, COLD, B = 83, 9 * 16, 16, 6
WARM_ITEM, COLD_ITEM = 20, ITEMS - 3
TOWER = {"kind": "two_tower", "dim": 8, "width": 6, "modality_dropout": 0.2, "training": {"epochs": 5, "batch": 16}}
FUSIONS = {"concat": Concat(), "weighted": Weighted(), "attention": Attention()}
MODELS = {
    "content": Content(width=6),
    "two_tower": TwoTower.model_validate(TOWER),
    # the weights are given, for validation may well choose zero for so small a world
    "blend": Blend.model_validate({"parts": [{"kind": "ease"}, TOWER], "weights": [1.0, 1.0]}),
    "blend_content": Blend.model_validate(
        {"parts": [{"kind": "ease"}, {"kind": "content", "width": 6}], "weights": [1.0, 1.0]}
    ),
}
CASES = [(model, fusion) for model in ("two_tower", "blend") for fusion in FUSIONS]
CASES += [
    ("content", "concat"),
    ("blend_content", "concat"),
]  # content lays modalities side by side, whatever is chosen


@dataclass(frozen=True)
class World:
    items: ItemSet
    train: Interactions
    requests: Requests
    positives: sparse.csr_matrix


@cache
def world() -> World:
    """Item n has the subset n % 16; three tastes, which each modality shows its own way; the last are cold."""
    rng = np.random.default_rng(5)
    taste, fan = rng.integers(0, 3, ITEMS), np.arange(USERS) % 3
    features, present = {}, {}
    for name, dim in DIMS.items():
        here = np.array([name in SUBSETS[n % 16] for n in range(ITEMS)])
        x = rng.normal(size=(ITEMS, dim)) + 2.5 * np.eye(3)[taste] @ rng.normal(size=(3, dim))
        features[name], present[name] = (x * here[:, None]).astype(np.float32), here
    items = ItemSet(
        tuple(item_order(f"item-{n}" for n in range(ITEMS))),
        features,
        present,
        {name: np.zeros(ITEMS, np.int16) for name in DIMS},
    )
    likes = rng.random((USERS, ITEMS)) < np.where(fan[:, None] == taste[None], 0.3, 0.03)
    later = likes & (rng.random(likes.shape) < 0.4)
    later[:, ITEMS - COLD :] = likes[:, ITEMS - COLD :]
    later[:, [WARM_ITEM, COLD_ITEM]] = False
    past = likes & ~later
    past[:, ITEMS - COLD :] = False
    past[:, WARM_ITEM] = np.arange(USERS) % 5 == 0  # nobody who is asked about it has it in the history
    user, item = np.nonzero(past)
    train = Interactions(user.astype(np.int32), item.astype(np.int32), None, USERS, ITEMS)
    requests = Requests(np.arange(USERS, dtype=np.int64), train.matrix())
    return World(items, train, requests, sparse.csr_matrix(later.astype(np.float32)))


@cache
def fitted(model: str, fusion: str) -> Retriever:
    made = MODELS[model].build(FUSIONS[fusion])
    w = world()
    made.fit(w.train, w.train.select(np.arange(len(w.train)) % 7 == 0), w.items, seed=1)
    return made


def given(subset: tuple[str, ...], item: int) -> ItemSet:
    """The catalogue where ``item`` has everything of ``subset`` and nothing else."""
    w = world()
    rng = np.random.default_rng(11)
    features, present = dict(w.items.features), dict(w.items.present)
    for name, dim in DIMS.items():
        features[name], present[name] = features[name].copy(), present[name].copy()
        value = rng.normal(size=dim).astype(np.float32)  # drawn for every modality, so that subsets share their values
        features[name][item], present[name][item] = value if name in subset else np.nan, name in subset
    return replace(w.items, features=features, present=present)


def asked() -> Requests:
    """Users whose history does not hold the item that is changed."""
    rows = np.array([1, 2, 3, 4, 6, 7])
    assert len(rows) == B and not world().requests.history[rows, WARM_ITEM].sum()
    return Requests(rows.astype(np.int64), world().requests.history[rows])


def only(item: int) -> Bool:
    out = np.zeros(ITEMS, bool)
    out[item] = True
    return out


@pytest.mark.parametrize("model, fusion", CASES)
@pytest.mark.parametrize("item", [WARM_ITEM, COLD_ITEM], ids=["known item", "new item"])
def test_every_subset_of_an_item_is_answered_and_tells_apart(model: str, fusion: str, item: int) -> None:
    retriever, scores = fitted(model, fusion), {}
    try:
        for subset in SUBSETS:
            retriever.attach(given(subset, item))
            found = retriever.score(asked())
            assert found.shape == (B, ITEMS) and not np.isnan(found).any(), subset
            scores[subset] = found[:, item]
            listed, _ = retriever.recommend(asked(), 1, only(item))
            # without any content an item is found by its id where people chose it, or by a model of popularity
            answers = (
                bool(subset) or model in ("two_tower", "blend") or (model == "blend_content" and item == WARM_ITEM)
            )
            assert (np.isfinite(scores[subset]) == answers).all(), subset
            assert (listed == (item if answers else -1)).all(), subset
    finally:
        retriever.attach(world().items)
    finite = {subset: s for subset, s in scores.items() if np.isfinite(s).all()}
    for a, b in combinations(finite, 2):
        assert np.abs(finite[a] - finite[b]).max() > 1e-4, f"{a} and {b} give one score: a mask changes nothing"


@pytest.mark.parametrize("model, fusion", [c for c in CASES if not c[0].startswith("blend")])
def test_what_one_item_lacks_changes_no_other_item(model: str, fusion: str) -> None:
    retriever = fitted(model, fusion)
    others = np.arange(ITEMS) != COLD_ITEM
    try:
        retriever.attach(given(SUBSETS[-1], COLD_ITEM))
        whole = retriever.score(asked())[:, others]
        retriever.attach(given((), COLD_ITEM))
        np.testing.assert_allclose(retriever.score(asked())[:, others], whole, rtol=1e-5, atol=1e-5)
    finally:
        retriever.attach(world().items)


def full_result(retriever: Retriever) -> Result:
    w = world()
    return evaluate(retriever, w.requests, [Slice("all", w.positives)], (10,))


@pytest.mark.parametrize("model, fusion", [("two_tower", "concat"), ("two_tower", "attention"), ("blend", "weighted")])
def test_the_whole_catalogue_without_any_subset(model: str, fusion: str) -> None:
    """NDCG@10 by subset of the whole catalogue: any content is better than none, and all of it beats popularity."""
    w, retriever = world(), fitted(model, fusion)
    popularity = Popularity().build()
    popularity.fit(w.train, w.train, w.items.only())
    floor = full_result(popularity).mean("all", "ndcg@10")[0]
    means = {}
    try:
        for subset in SUBSETS:
            retriever.attach(w.items.without(*(set(DIMS) - set(subset))))
            means[subset] = full_result(retriever).mean("all", "ndcg@10")[0]
            assert np.isfinite(means[subset])
    finally:
        retriever.attach(w.items)
    assert means[SUBSETS[-1]] > floor, means
    assert all(means[subset] > means[()] for subset in SUBSETS[1:]), means


def test_what_random_loss_costs_is_within_bounds() -> None:
    """30 % of all entries lost keeps at least 80 % of NDCG@10, 60 % at least 55 %, both above popularity."""
    w, retriever = world(), fitted("two_tower", "concat")
    popularity = Popularity().build()
    popularity.fit(w.train, w.train, w.items.only())
    floor = full_result(popularity).mean("all", "ndcg@10")[0]
    points = missing.degradation(retriever, w.requests, w.positives, full_result(retriever), "ndcg@10", repeats=200)
    score = {p.share: p.mean for p in points if p.hidden == EVERY}
    assert score[0.3] > 0.8 * score[0.0] and score[0.6] > 0.55 * score[0.0], score
    assert score[0.6] > floor, (score, floor)
