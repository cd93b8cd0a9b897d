"""What every re-ranker promises (ranking/rerankers/base.py): all that are registered, and a toy one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest

from fusionrec.kinds import members
from fusionrec.ranking.rerankers import AnyReranker
from fusionrec.ranking.rerankers.base import Reranker, RerankerSpec
from fusionrec.types import Float32, Int64, ItemSet
from tests.contracts import world as w

DEPTH, B = 20, 7


class Unchanged(RerankerSpec):
    kind: Literal["unchanged"] = "unchanged"

    def build(self) -> Reranker:
        return Same(self.depth)


@dataclass
class Same(Reranker):
    depth: int

    def attach(self, items: ItemSet) -> None:
        pass

    def rerank(self, items: Int64, scores: Float32, k: int) -> tuple[Int64, Float32]:
        return items[:, :k], scores[:, :k]


SPECS: dict[str, RerankerSpec] = {
    "unchanged": Unchanged(depth=DEPTH),
    **{cls.model_fields["kind"].default: cls.model_validate({"depth": DEPTH}) for cls in members(AnyReranker)},
}

pytestmark = pytest.mark.parametrize("kind", sorted(SPECS))


def built(kind: str) -> Reranker:
    reranker = SPECS[kind].build()
    reranker.attach(w.world().items)
    return reranker


def candidates() -> tuple[np.ndarray, np.ndarray]:
    """B lists of at most DEPTH items, best first; the last but one is short, the last is empty."""
    rng = np.random.default_rng(4)
    items = np.stack([rng.permutation(w.ITEMS)[:DEPTH] for _ in range(B)]).astype(np.int64)
    scores = -np.sort(-rng.normal(size=(B, DEPTH)), axis=1).astype(np.float32)
    for row, there in ((B - 2, 3), (B - 1, 0)):
        items[row, there:], scores[row, there:] = -1, -np.inf
    return items, scores


@pytest.mark.parametrize("k", [1, 5, DEPTH, DEPTH + 9])
def test_a_list_holds_candidates_each_once_and_its_scores_fall(kind: str, k: int) -> None:
    items, scores = candidates()
    found, values = built(kind).rerank(items, scores, k)
    assert found.shape == values.shape == (B, min(k, DEPTH))
    assert found.dtype == np.int64 and values.dtype == np.float32 and not np.isnan(values).any()
    assert ((found == -1) == np.isneginf(values)).all()
    for row in range(B):
        there = items[row][items[row] >= 0]
        real = found[row][found[row] >= 0]
        assert len(set(real.tolist())) == len(real) == min(k, len(there)) and set(real) <= set(there)
        assert (found[row, : len(real)] >= 0).all(), "none stands before an item"
        assert (np.diff(values[row, : len(real)]) <= 0).all()


def test_what_is_given_stays_as_it_was_and_the_answer_is_the_same_again(kind: str) -> None:
    items, scores = candidates()
    kept, reranker = (items.copy(), scores.copy()), built(kind)
    first = reranker.rerank(items, scores, 8)
    np.testing.assert_array_equal(items, kept[0])
    np.testing.assert_array_equal(scores, kept[1])
    for one, other in zip(first, reranker.rerank(items, scores, 8), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_request_is_answered_as_it_would_be_alone(kind: str) -> None:
    items, scores = candidates()
    found, values = built(kind).rerank(items, scores, 8)
    for row in range(B):
        alone = built(kind).rerank(items[row : row + 1], scores[row : row + 1], 8)
        np.testing.assert_array_equal(alone[0][0], found[row])
        np.testing.assert_allclose(alone[1][0], values[row], rtol=1e-5, atol=1e-6)


def test_nobody_asks_and_a_catalogue_without_content(kind: str) -> None:
    items, scores = candidates()
    assert built(kind).rerank(items[:0], scores[:0], 8)[0].shape == (0, 8)
    bare = SPECS[kind].build()
    bare.attach(w.world().items.only())
    assert (bare.rerank(items, scores, 1)[0][:, 0] == items[:, 0]).all(), "nothing to tell items apart by"
