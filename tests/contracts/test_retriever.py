"""What every retriever promises (recommenders/base.py). Every registered one, and a toy sequential one, must pass."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from safetensors.numpy import load, save

from fusionrec.fusion.concat import Concat
from fusionrec.kinds import members
from fusionrec.recommenders import AnyRetriever
from fusionrec.recommenders.base import Retriever, RetrieverSpec
from fusionrec.types import Interactions, ItemSet, Requests
from tests.contracts import world as w
from tests.contracts.toys import NextItem

# What a spec needs beyond its defaults, and fewer epochs: the contract is not about quality.
EXAMPLES = {
    "bpr": {"dim": 5, "training": {"epochs": 3, "batch": 64, "lr": 0.01, "weight_decay": 0.0}},
    "ials": {"dim": 5, "iterations": 3},
    "two_tower": {"dim": 5, "width": 3, "training": {"epochs": 3, "batch": 8}},
    "blend": {"parts": [{"kind": "ease"}, {"kind": "content", "width": 3}]},
    "generated": {
        "of": {"kind": "content", "width": 3},
        "width": 5,
        "latent": 3,
        "hidden": 8,
        "training": {"epochs": 40},
    },
}
TRAINED = ("bm3", "freedom", "lattice", "lightgcn", "mgcn", "modality_graph", "vbpr")
TINY = {"epochs": 3, "batch": 64}
EXAMPLES |= {kind: {"dim": 5, "training": TINY} for kind in TRAINED}
SPECS = {cls.model_fields["kind"].default: cls for cls in (*members(AnyRetriever), NextItem)}
B, K = 5, 3

pytestmark = pytest.mark.parametrize("kind", sorted(SPECS))


def spec_of(kind: str) -> RetrieverSpec:
    return SPECS[kind].model_validate({"kind": kind, **EXAMPLES.get(kind, {})})


def fitted(kind: str, data: w.World, seed: int = 0) -> Retriever:
    model = spec_of(kind).build(Concat())
    model.fit(data.train, data.valid, data.items, seed=seed)
    return model


@cache
def model_of(kind: str) -> tuple[Retriever, w.World]:
    """One fit a kind, shared; a test that attaches another catalogue must restore a copy."""
    data = w.world()
    return fitted(kind, data), data


def copy_of(kind: str, items: ItemSet) -> Retriever:
    model, _ = model_of(kind)
    other = spec_of(kind).build(Concat())
    other.restore(load(save(_contiguous(model.arrays()))), model.fit_ids)
    other.attach(items)
    return other


def _contiguous(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k: np.ascontiguousarray(v) for k, v in arrays.items()}


def close(a: np.ndarray, b: np.ndarray) -> None:
    """Equal up to float32 rounding, with -inf in the same places."""
    np.testing.assert_array_equal(np.isneginf(a), np.isneginf(b))
    finite = np.isfinite(a)
    np.testing.assert_allclose(a[finite], b[finite], rtol=2e-4, atol=2e-4)


def some(data: w.World) -> Requests:
    return w.requests(data.train, [7, 2, 30, 0, 11])


def test_scores_have_the_promised_shape_and_no_nan(kind: str) -> None:
    model, data = model_of(kind)
    scores = model.score(some(data))
    assert scores.shape == (B, w.ITEMS)
    assert scores.dtype == np.float32
    assert not np.isnan(scores).any()
    assert not np.isposinf(scores).any()
    assert np.isfinite(scores[:, : w.ITEMS - w.COLD]).any(axis=1).all()  # known users get something


def test_recommends_the_best_of_what_may_be_recommended(kind: str) -> None:
    model, data = model_of(kind)
    request = some(data)
    candidates = np.arange(w.ITEMS) % 3 != 0
    items, scores = model.recommend(request, K, candidates)
    assert items.shape == scores.shape == (B, K)
    assert (items.dtype, scores.dtype) == (np.int64, np.float32)
    full = model.score(request)
    for row in range(B):
        allowed = np.flatnonzero(candidates & (request.history[row].toarray().ravel() == 0) & np.isfinite(full[row]))
        best = allowed[np.lexsort((allowed, -full[row, allowed]))][:K]  # ties: lower row first
        assert items[row, : len(best)].tolist() == best.tolist()
        assert (items[row, len(best) :] == -1).all()
        assert np.isneginf(scores[row, len(best) :]).all()


def test_seen_replaces_the_history_as_what_is_masked(kind: str) -> None:
    model, data = model_of(kind)
    request = some(data)
    seen = request.history.tolil()
    top = model.recommend(request, 1)[0][:, 0]
    seen[np.arange(B), top] = 1
    items, _ = model.recommend(replace(request, seen=seen.tocsr()), w.ITEMS)
    assert not any(top[row] in items[row] for row in range(B))


def test_the_tail_is_empty_where_fewer_items_remain(kind: str) -> None:
    model, data = model_of(kind)
    items, scores = model.recommend(some(data), w.ITEMS + 4)
    assert items.shape == (B, w.ITEMS + 4)
    assert ((items == -1) == np.isneginf(scores)).all()
    assert (items[:, -4:] == -1).all()
    for row in items:
        real = row[row >= 0]
        assert len(set(real.tolist())) == len(real)


def test_blocks_and_the_order_of_requests_do_not_matter(kind: str) -> None:
    model, data = model_of(kind)
    order = [3, 0, 4, 2, 1]
    request = some(data)
    turned = w.requests(data.train, [[7, 2, 30, 0, 11][o] for o in order])
    close(model.score(turned), model.score(request)[order])
    whole, blocks = model.recommend(request, K), model.recommend(request, K, block=2)
    np.testing.assert_array_equal(whole[0], blocks[0])


def test_a_reordered_catalogue_changes_nothing_but_the_rows(kind: str) -> None:
    model, data = model_of(kind)
    rows = np.random.default_rng(3).permutation(w.ITEMS)
    other = copy_of(kind, w.rearranged(data.items, rows))
    close(other.score(w.columns(some(data), rows)), model.score(some(data))[:, rows])


def test_new_items_leave_the_scores_of_the_old_ones(kind: str) -> None:
    model, data = model_of(kind)
    other = copy_of(kind, w.extended(data.items, 4))
    scores, before = other.score(w.widened(some(data), 4)), model.score(some(data))
    assert scores.shape == (B, w.ITEMS + 4)
    if model.relative:  # comparable within one catalogue only, but what can be scored stays
        np.testing.assert_array_equal(np.isfinite(scores[:, : w.ITEMS]), np.isfinite(before))
    else:
        close(scores[:, : w.ITEMS], before)
    assert np.isfinite(scores[:, w.ITEMS :]).all() == model.cold_item
    assert np.isfinite(scores[:, w.ITEMS :]).any() == model.cold_item


def test_removed_items_leave_the_scores_of_the_others(kind: str) -> None:
    model, data = model_of(kind)
    rows = np.array([r for r in range(w.ITEMS) if r not in (2, 13, 42)])
    request = w.requests(data.train, [u for u in range(w.USERS) if not data.train.matrix()[u, [2, 13]].sum()][:B])
    other = copy_of(kind, w.rearranged(data.items, rows))
    scores, before = other.score(w.columns(request, rows)), model.score(request)[:, rows]
    if model.relative:
        np.testing.assert_array_equal(np.isfinite(scores), np.isfinite(before))
    else:
        close(scores, before)


def test_arrays_restore_the_same_scores_bit_for_bit(kind: str) -> None:
    model, data = model_of(kind)
    arrays = model.arrays()
    assert arrays
    assert all(isinstance(a, np.ndarray) and a.dtype.kind in "biuf" for a in arrays.values())
    np.testing.assert_array_equal(copy_of(kind, data.items).score(some(data)), model.score(some(data)))


def test_the_same_seed_gives_the_same_bits(kind: str) -> None:
    model, data = model_of(kind)
    again = fitted(kind, w.world())
    np.testing.assert_array_equal(again.score(some(data)), model.score(some(data)))
    assert {k: v.tobytes() for k, v in again.arrays().items()} == {k: v.tobytes() for k, v in model.arrays().items()}


def test_what_is_masked_has_no_influence(kind: str) -> None:
    model, data = model_of(kind)
    dirty = {}
    for name, x in data.items.features.items():
        dirty[name] = x.copy()
        dirty[name][~data.items.present[name]] = np.nan
    other = fitted(kind, replace(data, items=replace(data.items, features=dirty)))
    np.testing.assert_array_equal(other.score(some(data)), model.score(some(data)))


def test_a_knocked_out_modality_is_as_if_its_values_were_never_there(kind: str) -> None:
    _, data = model_of(kind)
    without = data.items.without("text")
    noise = dict(without.features)
    noise["text"] = np.full_like(noise["text"], 1e6)
    a, b = copy_of(kind, without), copy_of(kind, replace(without, features=noise))
    np.testing.assert_array_equal(a.score(some(data)), b.score(some(data)))


def test_cold_item_says_whether_unseen_items_are_scored(kind: str) -> None:
    model, data = model_of(kind)
    cold = np.arange(w.ITEMS - w.COLD, w.ITEMS)
    with_content = cold[data.items.mask()[cold].any(1)]
    finite = np.isfinite(model.score(some(data)))
    assert finite[:, with_content].all() == model.cold_item
    assert finite[:, with_content].any() == model.cold_item


def test_folds_in_says_whether_a_fresh_history_counts(kind: str) -> None:
    model, data = model_of(kind)
    scores = model.score(w.strangers([[0, 2, 4, 6], [1, 3, 5, 7]], w.ITEMS))
    warm = scores[:, : w.ITEMS - w.COLD]
    differs = bool((warm[0] != warm[1]).any())
    assert differs == model.folds_in


def test_cold_user_says_whether_a_stranger_is_answered(kind: str) -> None:
    model, _ = model_of(kind)
    items, scores = model.recommend(w.strangers([[]], w.ITEMS), K)
    assert not np.isnan(scores).any()
    if model.cold_user:
        assert (items >= 0).all()


def test_vectors_multiply_to_the_scores(kind: str) -> None:
    model, data = model_of(kind)
    item, user = model.vectors_item(), model.vectors_user(some(data))
    assert (item is None) == (user is None)
    assert (item is not None) == (model.retrieval == "mips")
    if item is not None and user is not None:
        scores, product = model.score(some(data)), user @ item.T
        assert user.shape == (B, item.shape[1])
        finite = np.isfinite(scores)
        np.testing.assert_allclose(product[finite], scores[finite], rtol=1e-4, atol=1e-4)


def tiny(pairs: list[tuple[int, int]], users: int, n_items: int) -> w.World:
    """These pairs, one a day; nothing in validation."""
    rng = np.random.default_rng(5)
    items = ItemSet(
        tuple(f"i{n}" for n in range(n_items)),
        {"text": rng.normal(size=(n_items, 4)).astype(np.float32)},
        {"text": np.ones(n_items, bool)},
        {"text": np.zeros(n_items, np.int16)},
    )
    user, item = (np.array(c, np.int32) for c in zip(*pairs, strict=True))
    train = Interactions(user, item, np.arange(len(pairs), dtype=np.int64) * w.DAY, users, n_items)
    return w.World(items, train, train.select(np.zeros(len(pairs), bool)))


@pytest.mark.parametrize(
    "pairs, users, n_items",
    [
        pytest.param([(0, 0)], 1, 1, id="one user, one item, one interaction"),
        pytest.param([(0, 1)], 2, 3, id="one interaction"),
        pytest.param([(u, 2) for u in range(6)], 6, 4, id="all touch the same item"),
        pytest.param([(0, i) for i in range(5)] + [(1, 0)], 2, 5, id="a user has seen everything"),
    ],
)
def test_tiny_data_gives_an_answer_or_an_empty_one(kind: str, pairs, users: int, n_items: int) -> None:
    data = tiny(pairs, users, n_items)
    model = fitted(kind, data)
    items, scores = model.recommend(w.requests(data.train, list(range(users))), 2)
    assert items.shape == (users, 2)
    assert not np.isnan(scores).any()
    for row in range(users):
        assert not set(items[row].tolist()) & {i for u, i in pairs if u == row}


def test_a_catalogue_without_any_modality_is_valid(kind: str) -> None:
    data = w.world()
    model = fitted(kind, replace(data, items=ItemSet(data.items.ids)))
    assert not np.isnan(model.score(some(data))).any()


def test_misuse_is_refused_with_the_numbers(kind: str) -> None:
    model, data = model_of(kind)
    nothing = data.train.select(np.zeros(len(data.train), bool))
    with pytest.raises(ValueError, match="nothing to train on"):
        spec_of(kind).build(Concat()).fit(nothing, nothing, data.items)
    with pytest.raises(ValueError, match=f"{w.ITEMS} items, the catalogue of {w.ITEMS + 4}"):
        spec_of(kind).build(Concat()).fit(data.train, data.valid, w.extended(data.items, 4))
    with pytest.raises(ValueError, match="history speaks of"):
        model.score(w.widened(some(data), 4))
    if model.needs_time:
        timeless = replace(data.train, time=None)
        with pytest.raises(ValueError, match="needs timestamps"):
            spec_of(kind).build(Concat()).fit(timeless, data.valid, data.items)
    else:
        fitted(kind, w.World(data.items, replace(data.train, time=None), replace(data.valid, time=None)))
