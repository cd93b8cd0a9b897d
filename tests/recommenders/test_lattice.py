"""LATTICE: how raw and learnt graphs are mixed, and when the graph learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fusionrec.recommenders.graph import neighbours
from fusionrec.recommenders.lattice import LATTICE, network
from tests.contracts import world as w

DATA = w.world()


def made(**spec) -> torch.nn.Module:
    torch.manual_seed(0)
    return network(LATTICE.model_validate({"dim": 6, "neighbours": 4} | spec), DATA.train.matrix(), DATA.items)


def dense(net: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """The raw and the learnt graph (I, I), the plain way."""
    shares = DATA.items.mask() / np.maximum(DATA.items.mask().sum(1, keepdims=True), 1)  # equal weights at the start
    raw, learnt = np.zeros((w.ITEMS, w.ITEMS)), np.zeros((w.ITEMS, w.ITEMS))
    for column, name in enumerate(("image", "text")):
        x, here = DATA.items.features[name], DATA.items.present[name]
        raw += shares[:, [column]] * neighbours(x, here, 4, weighted=True).toarray()
        f = net.features.maps[name](net.features.raw(name)).detach().numpy()
        f /= np.linalg.norm(f, axis=1, keepdims=True)
        cosine = np.where(here[:, None] & here, f @ f.T, -np.inf)
        for row in np.flatnonzero(here):
            best = np.argsort(-cosine[row], kind="stable")[:4]
            learnt[row, best] += shares[row, column] * np.maximum(cosine[row, best], 0)
    degree = learnt.sum(1)
    scale = np.divide(1, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)
    return torch.from_numpy(raw).float(), torch.from_numpy(scale[:, None] * learnt * scale).float()


@pytest.mark.parametrize("kept", [0.0, 0.9, 1.0])
def test_the_item_graph_is_the_mixture(kept: float) -> None:
    net = made(kept=kept)
    raw, learnt = dense(net)
    expected = (kept * raw + (1 - kept) * learnt) @ net.nodes.item
    torch.testing.assert_close(net.alike(), expected, rtol=1e-4, atol=1e-6)


def test_the_fixed_graph_is_the_one_that_learns() -> None:
    net = made()
    moving = net.alike().detach()
    net.fix()
    torch.testing.assert_close(net.alike().detach(), moving, rtol=1e-4, atol=1e-6)


def test_gradients_reach_the_graph_in_the_first_batch_of_an_epoch_only() -> None:
    net = made(kept=0.5)
    user, item = DATA.train.matrix().nonzero()
    at = [torch.from_numpy(np.asarray(x[:50], np.int64)) for x in (user, item, item[::-1].copy())]
    net.start_epoch(np.random.default_rng(0))
    learns = []
    for _ in range(2):
        net.zero_grad(set_to_none=True)
        net.loss(*at).backward()
        grads = [net.weight.grad, *(m.weight.grad for m in net.features.maps.values())]
        learns.append([g is not None and bool(g.any()) for g in grads])
        assert net.nodes.weight.grad.any()
    assert learns == [[True] * 3, [False] * 3]
    net.start_epoch(np.random.default_rng(1))
    net.zero_grad(set_to_none=True)
    net.loss(*at).backward()
    assert net.weight.grad is not None


def test_an_item_without_modalities_stays_alone() -> None:
    net = made()
    nothing = np.flatnonzero(~DATA.items.mask().any(1))
    assert len(nothing) and not net.alike()[nothing].any()
    user, item = net.vectors()
    plain = net.nodes.split(net.nodes.propagated(net.graph, 2))[1]
    torch.testing.assert_close(item[nothing], plain[nothing])


def test_the_catalogue_is_bounded() -> None:
    assert LATTICE().build().max_items == 50_000
