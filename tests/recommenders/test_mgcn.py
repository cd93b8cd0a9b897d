"""MGCN: gating, the common and the specific part, and what a node without modalities is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from fusionrec.recommenders.mgcn import MGCN, network
from fusionrec.recommenders.propagation import info_nce, squares
from fusionrec.types import ItemSet
from tests.contracts import world as w

PAIRS = sparse.csr_matrix(np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 0]], np.float32))


def catalogue(**present: list[bool]) -> ItemSet:
    rng = np.random.default_rng(0)
    here = {m: np.array(p) for m, p in present.items()}
    features = {m: rng.normal(size=(3, 5 + n)).astype(np.float32) for n, m in enumerate(here)}
    return ItemSet(("a", "b", "c"), features, here, {m: np.zeros(3, np.int16) for m in here})


def made(items: ItemSet, **spec) -> torch.nn.Module:
    torch.manual_seed(0)
    return network(MGCN.model_validate({"dim": 4, "neighbours": 2} | spec), PAIRS, items)


def test_a_shut_gate_lets_nothing_through_and_an_open_one_the_id() -> None:
    net = made(catalogue(image=[True] * 3))
    net.gate["image"].bias.data.fill_(-60)
    [(user, item)] = net.views()
    assert float(item.detach().abs().max()) < 1e-12 and float(user.detach().abs().max()) < 1e-12
    net.gate["image"].bias.data.fill_(60)
    net.gate["image"].weight.data.zero_()
    [(user, item)] = net.views()
    torch.testing.assert_close(item, net.similar["image"](net.nodes.item))
    torch.testing.assert_close(user, net.gather(item))


def test_one_modality_is_all_common_and_halved() -> None:
    net = made(catalogue(image=[True] * 3))
    content, [(user, item)] = net.content(), net.views()
    e = torch.cat([user, item])
    torch.testing.assert_close(net.side(content, e[:, None], torch.ones(7, 1, dtype=torch.bool)), e / 2)


def test_modalities_that_agree_are_all_common() -> None:
    net = made(catalogue(audio=[True] * 3, image=[True] * 3))
    content, e = net.content(), torch.randn(7, 4)
    side = net.side(content, torch.stack([e, e], 1), torch.ones(7, 2, dtype=torch.bool))
    torch.testing.assert_close(
        side, e / 3
    )  # nothing specific; the mean runs over two specific parts and the common one


def test_the_side_by_hand_where_attention_and_gates_are_known() -> None:
    net = made(catalogue(audio=[True] * 3, image=[True] * 3))
    net.query[2].weight.data.zero_()  # all modalities alike: the common part is their mean
    for gate in net.prefer.values():
        gate.weight.data.zero_()
        gate.bias.data.zero_()  # sigmoid 1/2
    a, b = torch.full((1, 4), 3.0), torch.full((1, 4), 1.0)
    both, first = torch.tensor([[True, True]]), torch.tensor([[True, False]])
    e = torch.stack([a, b], 1)
    # common 2, specific (1 - -1) / 2 = 1/2 and -1/2: they cancel
    torch.testing.assert_close(net.side(torch.zeros(1, 4), e, both), torch.full((1, 4), 2 / 3))
    torch.testing.assert_close(net.side(torch.zeros(1, 4), e, first), torch.full((1, 4), 3 / 2))
    assert not net.side(torch.zeros(1, 4), e, torch.tensor([[False, False]])).any()


def test_a_user_has_the_modalities_of_any_of_the_items() -> None:
    net = made(catalogue(audio=[False, True, False], image=[True, False, False]))
    # users hold items {0}, {0, 1}, {1, 2}, {}
    assert net.mask.tolist() == [
        [False, True], [True, True], [True, False], [False, False], [False, True], [True, False], [False, False],
    ]  # fmt: skip
    content = net.content()
    user, item = net.vectors()
    torch.testing.assert_close(user[3], content[3])
    torch.testing.assert_close(item[2], content[6])
    assert (user[0] != content[0]).any()


@pytest.mark.parametrize("items", [catalogue(audio=[True] * 3, image=[True, False, True]), catalogue()])
def test_the_loss_over_distinct_nodes_is_the_loss_over_the_batch(items: ItemSet) -> None:
    net = made(items, contrast=0.3, reg=0.02)
    users, positives, negatives = (
        torch.tensor([0, 1, 1, 2, 2]),
        torch.tensor([0, 0, 1, 1, 2]),
        torch.tensor([2, 2, 2, 0, 2]),
    )
    user, item = net.vectors()
    u, i, j = user[users], item[positives], item[negatives]
    expected = -torch.nn.functional.logsigmoid((u * (i - j)).sum(1)).mean() + 0.02 * squares(u, i, j)
    if items.modalities:
        content = net.content()
        side = torch.cat([user, item]) - content
        for at in (users, positives + 4):
            expected = expected + 0.3 * info_nce(side[at], content[at], net.mask[at].any(1).float(), 0.2)
    torch.testing.assert_close(net.loss(users, positives, negatives), expected)


def test_a_contrast_of_some_rows_is_that_of_a_draw_of_them() -> None:
    items = catalogue(audio=[True] * 3, image=[True] * 3)
    batch = [torch.tensor(part) for part in ([0, 1, 2, 1], [0, 1, 2, 0], [1, 2, 0, 2])]

    plain = float(made(items, contrast=0.0).loss(*batch).detach())

    def contrast(rows: int | None, seed: int = 0) -> float:
        net = made(items, contrast=1.0, contrast_rows=rows)
        torch.manual_seed(seed)
        return float(net.loss(*batch).detach()) - plain

    assert contrast(3) == contrast(None) > 0, "there are three users and three items: all of them"
    # One row is told apart from its own repetitions alone: -log(1 / count); user 1 and item 0 stand there twice.
    ones = {round(contrast(1, seed) / np.log(2), 4) for seed in range(24)}
    assert ones == {0.0, 1.0, 2.0}
    drawn = {round(contrast(2, seed), 5) for seed in range(24)}
    assert drawn == {round(contrast(2, seed), 5) for seed in range(24)} and 3 < len(drawn) <= 9


def test_gradients_reach_every_parameter() -> None:
    data = w.world()
    net = network(MGCN(dim=6), data.train.matrix(), data.items)
    user, item = data.train.matrix().nonzero()
    at = [torch.from_numpy(np.asarray(x[:40], np.int64)) for x in (user, item, item[::-1].copy())]
    net.loss(*at).backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())
