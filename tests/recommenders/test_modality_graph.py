"""Modality graph: where the fused vector enters, and what an unseen item is."""

from __future__ import annotations

import numpy as np
import torch

from fusionrec.fusion.concat import Concat
from fusionrec.fusion.graph import Graph
from fusionrec.recommenders.modality_graph import ModalityGraph, network
from tests.contracts import world as w

DATA = w.world()


def fitted(fusion=None):
    how = {"epochs": 3, "batch": 64, "lr": 0.01}
    model = ModalityGraph.model_validate({"dim": 6, "layers": 3, "width": 4, "training": how}).build(fusion)
    model.fit(DATA.train, DATA.valid, DATA.items)
    return model


def test_the_net_of_modality_nodes_is_the_default_and_any_other_can_be_injected() -> None:
    assert isinstance(ModalityGraph().build().fusion, Graph)
    a, b = fitted(), fitted(Concat())
    assert isinstance(b.fusion, Concat)
    assert not np.allclose(a.item, b.item)


def test_an_item_node_is_id_plus_fused_and_alone_without_modalities() -> None:
    torch.manual_seed(0)
    mask = DATA.items.mask()
    x = {m: np.where(DATA.items.present[m][:, None], DATA.items.features[m], 0) for m in ("image", "text")}
    fuse = Graph().build({"image": 7, "text": 11}, 6)
    net = network(ModalityGraph(dim=6), DATA.train.matrix(), fuse, x, mask)
    start = net.nodes.split(net.start())
    torch.testing.assert_close(start[0], net.nodes.split(net.nodes.weight)[0])
    extra = (start[1] - net.nodes.item).detach().numpy()
    assert not extra[~mask.any(1)].any() and np.abs(extra[mask.any(1)]).max(1).min() > 0


def test_a_new_item_is_a_node_without_edges() -> None:
    model = fitted()
    cold = np.array([w.ITEMS - 1, w.ITEMS - 2])
    features, mask = model.space.apply(DATA.items)
    with torch.no_grad():
        fused = model.fuse({m: torch.from_numpy(v[cold]) for m, v in features.items()}, torch.from_numpy(mask[cold]))
    np.testing.assert_allclose(model.item_vectors[cold], (model.mean + fused.numpy()) / 4, rtol=1e-4, atol=1e-6)
