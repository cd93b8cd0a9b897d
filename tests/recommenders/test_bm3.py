"""BM3: its loss by hand, and that no gradient enters the targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from fusionrec.recommenders.bm3 import BM3, BM3Retriever, distance, network
from tests.contracts import world as w


def made(**spec) -> torch.nn.Module:
    torch.manual_seed(0)
    data = w.world()
    return network(BM3.model_validate({"dim": 6} | spec), data.train.matrix(), data.items)


def batch() -> list[torch.Tensor]:
    user, item = w.world().train.matrix().nonzero()
    return [torch.from_numpy(np.asarray(x[:37], np.int64)) for x in (user, item)]


def expected(net: torch.nn.Module, at: list[torch.Tensor], contrast: float, stop) -> torch.Tensor:
    user, item = net.online()
    u, i, p = user[at[0]], item[at[1]], net.predictor
    loss = (1 - cosine_similarity(p(u), stop(i))).mean() + (1 - cosine_similarity(p(i), stop(u))).mean()
    for name in ("image", "text"):
        here = torch.from_numpy(w.world().items.present[name])[at[1]]
        t = net.features.maps[name](net.features.raw(name)[at[1][here]])
        both = 2 - cosine_similarity(p(t), stop(i)[here]) - cosine_similarity(p(t), stop(t))
        loss = loss + contrast * both.mean()
    return loss


def test_the_loss_and_its_gradient_are_those_of_the_formula_with_stopped_targets() -> None:
    net, at = made(dropout=0.0, reg=0.0, contrast=1.7), batch()
    loss = net.loss(*at)
    torch.testing.assert_close(loss, expected(net, at, 1.7, torch.Tensor.detach))
    mine = torch.autograd.grad(loss, net.nodes.weight)[0]
    stopped, leaking = (
        torch.autograd.grad(expected(net, at, 1.7, stop), net.nodes.weight)[0]
        for stop in (torch.Tensor.detach, lambda x: x)
    )
    torch.testing.assert_close(mine, stopped, rtol=1e-4, atol=1e-6)
    assert float((mine - leaking).abs().max()) > 1e-3


def test_the_regulariser_is_the_norm_of_all_vectors_by_the_number_of_items() -> None:
    with_, without = made(dropout=0.0, reg=0.5), made(dropout=0.0, reg=0.0)
    user, item = with_.online()
    extra = 0.5 * (user.norm() + item.norm()) / w.ITEMS
    torch.testing.assert_close(with_.loss(*batch()) - without.loss(*batch()), extra, rtol=1e-4, atol=1e-5)


def test_dropout_touches_the_targets_in_training_only() -> None:
    net = made(dropout=0.5)
    assert float(net.loss(*batch()).detach()) != float(net.loss(*batch()).detach())
    net.eval()
    assert float(net.loss(*batch()).detach()) == float(net.loss(*batch()).detach())


def test_the_score_is_between_predictions() -> None:
    net = made()
    user, item = net.vectors()
    online = net.online()
    torch.testing.assert_close(user, net.predictor(online[0]))
    torch.testing.assert_close(item, net.predictor(online[1]))


def test_items_without_the_modality_are_left_out_of_its_terms() -> None:
    data = w.world()
    net = made(dropout=0.0, reg=0.0)
    absent = np.flatnonzero(~data.items.mask().any(1) | ~data.items.present["text"])
    net.loss(torch.zeros(len(absent), dtype=torch.int64), torch.from_numpy(absent)).backward()
    assert not net.features.raw("text").grad.any()


def test_distance_by_hand_and_no_negatives() -> None:
    a, b = torch.tensor([[1.0, 0], [1, 1]]), torch.tensor([[0.0, 2], [3, 3]])
    assert distance(a, b).tolist() == pytest.approx([1, 0], abs=1e-6)
    assert not BM3Retriever.pairwise
