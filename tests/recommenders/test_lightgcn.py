"""LightGCN: its loss by hand and what it learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fusionrec.recommenders.lightgcn import LightGCN, network
from fusionrec.recommenders.validation import validation_metric
from tests.contracts import world as w
from tests.recommenders.test_graph import HALF, PAIRS


def test_the_loss_of_one_batch_by_hand() -> None:
    net = network(LightGCN(dim=1, layers=1, reg=0.5), PAIRS)
    net.nodes.weight.data = torch.tensor([[1.0], [2], [3], [4], [5]])
    user, better, worse = (1 + 4 * HALF) / 2, (4 + HALF + 1) / 2, (5 + 1 + 3 * HALF) / 2
    bpr = math.log(1 + math.exp(-user * (better - worse)))
    own = (1 + 4 + 5) / 1  # norms of the vectors before propagation, one row each
    at = (torch.tensor([0]), torch.tensor([0]), torch.tensor([1]))
    assert float(net.loss(*at).detach()) == pytest.approx(bpr + 0.5 * own, rel=1e-5)


def test_it_finds_the_two_tastes_of_the_world() -> None:
    data = w.world()
    how = {"epochs": 60, "batch": 64, "lr": 0.02, "patience": 0}
    model = LightGCN.model_validate({"dim": 8, "training": how}).build()
    model.fit(data.train, data.valid, data.items)
    scores = model.score(w.requests(data.train, list(range(w.USERS))))[:, 1 : w.ITEMS - w.COLD]
    same = (np.arange(w.USERS)[:, None] % 2) == (np.arange(1, w.ITEMS - w.COLD)[None] % 2)
    assert scores[same].mean() > scores[~same].mean() + 0.5
    assert validation_metric(model, data.train, data.valid) > 0.1
