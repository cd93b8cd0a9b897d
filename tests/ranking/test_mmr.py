"""Maximal marginal relevance: by hand, by its definition, and what it does to lists."""

from __future__ import annotations

import numpy as np
import pytest

from fusionrec.evaluation.beyond import centred, diversity
from fusionrec.ranking.rerankers.mmr import MMR
from fusionrec.types import ItemSet

SIZES = {"image": 6, "text": 4}


def catalogue(n: int = 40, seed: int = 0) -> ItemSet:
    rng = np.random.default_rng(seed)
    return ItemSet(
        tuple(f"i{k:02d}" for k in range(n)),
        {name: rng.normal(size=(n, d)).astype(np.float32) for name, d in SIZES.items()},
        {name: rng.random(n) < 0.8 for name in SIZES},
        {name: np.zeros(n, np.int16) for name in SIZES},
    )


def lists(items: ItemSet, rows: int = 7, width: int = 12, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shown = np.stack([rng.permutation(len(items))[:width] for _ in range(rows)])
    scores = -np.sort(-rng.normal(size=(rows, width))).astype(np.float32)
    shown[0, -3:], scores[0, -3:] = -1, -np.inf
    return shown, scores


def by_definition(items: ItemSet, row: np.ndarray, scores: np.ndarray, weight: float, k: int) -> list[int]:
    spaces = {name: centred(items, name) for name in items.modalities}

    def alike(a: int, b: int) -> float:
        shared = [float(spaces[m][a] @ spaces[m][b]) for m in spaces if items.present[m][a] and items.present[m][b]]
        return float(np.mean(shared)) if shared else 0.0

    left = [(int(i), float(s)) for i, s in zip(row, scores, strict=True) if i >= 0]
    low, high = min(s for _, s in left), max(s for _, s in left)
    out: list[int] = []
    while left and len(out) < k:
        worth = [
            (1 - weight) * (s - low) / (high - low) - weight * max([0.0, *(alike(i, j) for j in out)]) for i, s in left
        ]
        out.append(left.pop(int(np.argmax(worth)))[0])
    return out


@pytest.mark.parametrize("weight", [0.1, 0.5, 0.9])
def test_it_is_its_definition(weight: float) -> None:
    items = catalogue()
    shown, scores = lists(items)
    last = MMR(diversity=weight).build()
    last.attach(items)
    found, value = last.rerank(shown, scores, 10)
    for row in range(len(shown)):
        wanted = by_definition(items, shown[row], scores[row], weight, 10)
        assert found[row][found[row] >= 0].tolist() == wanted
    assert (np.diff(value[1:], axis=1) <= 1e-6).all() and found.dtype == np.int64 and value.dtype == np.float32
    assert found[0, -1] == -1 and np.isneginf(value[0, -1]), "nine candidates fill nine places"


def test_without_weight_the_order_stays() -> None:
    items = catalogue()
    shown, scores = lists(items)
    last = MMR(diversity=0.0).build()
    last.attach(items)
    np.testing.assert_array_equal(last.rerank(shown, scores, 12)[0], shown)


def test_more_weight_is_more_diversity() -> None:
    items = catalogue(200)
    shown, scores = lists(items, rows=50, width=40)
    spaces = [centred(items, name) for name in items.modalities]
    told = []
    for weight in (0.0, 0.3, 0.9):
        last = MMR(diversity=weight).build()
        last.attach(items)
        told.append(diversity(last.rerank(shown, scores, 10)[0], spaces) or 0.0)
    assert told[0] < told[1] < told[2]


def test_a_twin_is_not_shown_beside_its_twin() -> None:
    items = catalogue(30)
    twin = items.features["text"][4].copy()
    for name in SIZES:
        items.present[name][[4, 5, 6]] = True
        items.features[name][5] = items.features[name][4]
    assert (items.features["text"][5] == twin).all()
    last = MMR(diversity=0.5).build()
    last.attach(items)
    found, _ = last.rerank(np.array([[4, 5, 6]]), np.array([[1.0, 0.99, 0.5]], np.float32), 2)
    assert found.tolist() == [[4, 6]]


def test_nothing_and_no_content_have_an_answer() -> None:
    bare = ItemSet(("a", "b"))
    last = MMR().build()
    last.attach(bare)
    found, value = last.rerank(np.array([[1, 0], [-1, -1]]), np.array([[2.0, 2.0], [-np.inf] * 2], np.float32), 5)
    assert found.tolist() == [[1, 0], [-1, -1]] and np.isneginf(value[1]).all() and np.isfinite(value[0]).all()
    assert last.rerank(np.zeros((0, 3), np.int64), np.zeros((0, 3), np.float32), 2)[0].shape == (0, 2)
