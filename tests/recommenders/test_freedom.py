"""FREEDOM: which edges an epoch keeps, and how the item graphs are mixed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from fusionrec.recommenders.embedded import Prefer
from fusionrec.recommenders.freedom import FREEDOM, kept_edges, mixed, network, shares, simplex
from fusionrec.recommenders.graph import neighbours
from fusionrec.types import Interactions
from tests.contracts import world as w
from tests.recommenders.test_graph import PAIRS


def test_edges_are_kept_with_probability_one_over_the_root_of_the_degrees() -> None:
    """One of four edges: u0-i0 and u2-i1 have degrees 1 x 2, u1-i0 and u1-i1 have 2 x 2."""
    rng, n = np.random.default_rng(0), 4000
    count = sum(kept_edges(PAIRS, 0.25, rng).toarray() for _ in range(n)) / n
    rate = np.array([[2**-0.5, 0], [0.5, 0.5], [0, 2**-0.5]])
    np.testing.assert_allclose(count, rate / rate.sum(), atol=0.03)
    assert (count > 0).sum() == 4


def test_an_epoch_keeps_the_share_it_was_told_and_no_edge_twice() -> None:
    data = w.world().train.matrix()
    kept = kept_edges(data, 0.2, np.random.default_rng(1))
    assert kept.nnz == int(0.2 * data.nnz) and (kept.data == 1).all()
    assert (kept.multiply(data) != kept).nnz == 0
    assert (kept != kept_edges(data, 0.2, np.random.default_rng(2))).nnz > 0


def test_training_walks_the_kept_edges_and_evaluation_all_of_them() -> None:
    data = w.world()
    pairs = data.train.matrix()
    net = network(FREEDOM(dim=3, dropout=0.8), pairs, data.items.only(), None)
    before = [v.detach().clone() for v in net.vectors()]
    net.start_epoch(np.random.default_rng(3))
    assert net.graph.weight.shape[0] == 2 * int(0.2 * pairs.nnz) and net.whole.weight.shape[0] == 2 * pairs.nnz
    for a, b in zip(before, net.vectors(), strict=True):
        assert torch.equal(a, b)


def test_the_paper_s_weights_are_for_image_and_text_and_others_are_equal() -> None:
    graphs = {m: sparse.eye_array(3, format="csr") for m in ("image", "text", "audio")}

    def pick(asked, *names):
        return shares(asked, {m: graphs[m] for m in names}, lambda graph: 0.0)

    assert pick(None, "image", "text") == {"image": 0.1, "text": 0.9}
    assert pick(None, "audio", "image") == {"audio": 0.5, "image": 0.5}
    assert pick("equal", "image", "text") == {"image": 0.5, "text": 0.5}
    assert pick({"image": 1, "audio": 3, "text": 9}, "audio", "image") == {"audio": 0.75, "image": 0.25}
    with pytest.raises(ValueError, match="audio"):
        pick({"image": 1.0}, "audio", "image")
    with pytest.raises(ValueError, match=">= 0"):
        pick({"image": -1.0, "audio": 2}, "audio", "image")
    assert pick(None) == {}


def test_the_grid_of_mixtures_lies_on_the_simplex() -> None:
    for n, points in ((2, 11), (3, 66), (4, 84), (9, 9)):
        grid = simplex(n)
        assert len(grid) == points + 1 and grid[0] == (1 / n,) * n
        np.testing.assert_allclose([sum(p) for p in grid], 1)


def test_validation_prefers_the_modality_that_tells_the_taste() -> None:
    data = w.world()
    rng = np.random.default_rng(4)
    taste = np.eye(2, dtype=np.float32)[np.arange(w.ITEMS) % 2] + 0.05 * rng.normal(size=(w.ITEMS, 2))
    noise = rng.normal(size=(w.ITEMS, 5))
    here = np.ones(w.ITEMS, bool)
    graphs = {m: neighbours(x.astype(np.float32), here, 6) for m, x in (("audio", noise), ("text", taste))}
    found = shares("validation", graphs, Prefer(data.train, data.valid, FREEDOM().training))
    assert found["text"] >= 0.5 and sum(found.values()) == pytest.approx(1)


def test_an_item_is_raised_by_its_own_neighbours_in_training_and_in_the_choice() -> None:
    def one(user: int, item: int) -> Interactions:
        return Interactions(np.array([user], np.int32), np.array([item], np.int32), None, 1, 4)

    graph = sparse.csr_matrix((np.ones(2, np.float32), ([0, 2], [1, 3])), (4, 4))  # 0 has the neighbour 1, 2 has 3
    how = FREEDOM().training.model_copy(update={"metric": "recall@1"})
    assert Prefer(one(0, 1), one(0, 0), how)(graph) == 1.0, "who touched 1 is shown 0"
    assert Prefer(one(0, 3), one(0, 2), how)(graph) == 1.0


def test_an_item_that_lacks_a_modality_gives_its_weight_to_the_others() -> None:
    a = sparse.csr_matrix(np.array([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 0]], np.float32))
    b = sparse.csr_matrix(np.array([[0, 0, 0], [0, 0.5, 0.5], [0, 0.5, 0.5]], np.float32))
    found = mixed({"a": a, "b": b}, {"a": 0.1, "b": 0.9})
    np.testing.assert_allclose(found.toarray(), [[0.5, 0.5, 0], [0.05, 0.5, 0.45], [0, 0.5, 0.5]], rtol=1e-6)
    assert mixed({}, {}) is None


def test_the_item_vector_is_the_graph_s_plus_one_pass_over_similar_items() -> None:
    graph = sparse.csr_matrix(np.array([[0.5, 0.5], [0, 1]], np.float32))
    items = w.world().items.only()
    net = network(FREEDOM(dim=4, reg=0.0), PAIRS, items, graph)
    plain = net.nodes.split(net.nodes.propagated(net.whole, 2))[1]
    id_a, id_b = net.nodes.item
    torch.testing.assert_close(net.vectors()[1] - plain, torch.stack([(id_a + id_b) / 2, id_b]))


def test_modality_pairs_count_only_where_both_items_have_it() -> None:
    data = w.world()
    items = data.items.only("text")
    absent, present = np.flatnonzero(~items.present["text"]), np.flatnonzero(items.present["text"])
    pairs = data.train.matrix()
    at = [torch.tensor([n]) for n in (0, int(present[0]), int(absent[0]))]
    loss = {reg: float(network_of(items, pairs, reg).loss(*at).detach()) for reg in (0.0, 7.0)}
    assert loss[0.0] == pytest.approx(loss[7.0], rel=1e-6)
    at[2] = torch.tensor([int(present[5])])
    assert float(network_of(items, pairs, 7.0).loss(*at).detach()) > loss[0.0] + 1


def network_of(items, pairs, reg):
    torch.manual_seed(0)
    return network(FREEDOM(dim=3, dropout=0.0, reg=reg), pairs, items, None)
