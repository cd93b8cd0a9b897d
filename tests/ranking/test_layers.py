"""The pieces of ranking networks against torch's own, and worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from fusionrec.ranking.deepfm import DeepFM
from fusionrec.ranking.heads.esmm import ESMM
from fusionrec.ranking.heads.mmoe import MMoE
from fusionrec.ranking.heads.shared_bottom import SharedBottom
from fusionrec.ranking.layers import Examination, log_not, log_probability, task_losses

NONE: frozenset[str] = frozenset()


def test_log_not_is_exact_at_both_ends() -> None:
    logit = torch.linspace(-60, 12, 200, dtype=torch.float64)
    torch.testing.assert_close(log_not(log_probability(logit)), log_probability(-logit), rtol=1e-6, atol=1e-20)


def test_the_loss_is_cross_entropy_of_the_rows_that_have_a_label_over_all_rows() -> None:
    logit = torch.randn(7, generator=torch.Generator().manual_seed(0), requires_grad=True)
    y = torch.tensor([1.0, 0, math.nan, 1, 0, math.nan, 0])
    here = ~torch.isnan(y)
    found = task_losses({"click": log_probability(logit)}, {"click": y}, NONE)["click"]
    torch.testing.assert_close(found, 5 / 7 * binary_cross_entropy_with_logits(logit[here], y[here]))
    found.backward()
    assert torch.isfinite(logit.grad).all() and not logit.grad[~here].any()


def test_a_batch_in_which_nothing_happens_and_one_without_a_label_have_finite_gradients() -> None:
    logit = torch.full((3,), 40.0, requires_grad=True)  # certain, and wrong
    losses = task_losses(
        {"click": log_probability(logit), "rating": logit},
        {"click": torch.zeros(3), "rating": torch.full((3,), math.nan)},
        frozenset({"rating"}),
    )
    assert losses["rating"] == 0 and 10 < losses["click"] < 20
    sum(losses.values()).backward()
    assert torch.isfinite(logit.grad).all()


def test_the_second_order_is_the_sum_over_pairs() -> None:
    torch.manual_seed(0)
    mix = DeepFM(dim=3, hidden=(4,)).interaction(5 * 3 + 2).eval()
    fields = torch.randn(6, 5, 3)
    flat = torch.cat([fields.flatten(1), torch.randn(6, 2)], dim=1)
    pairs = sum(fields[:, a] * fields[:, b] for a in range(5) for b in range(a))
    torch.testing.assert_close(mix(fields, flat)[:, 4:7], pairs, rtol=1e-4, atol=1e-5)
    assert mix(fields, flat).shape == (6, mix.width)


def test_examination_is_one_in_the_first_place_and_less_elsewhere() -> None:
    seen = Examination(np.array([3, 5, 5, 1, 2]))
    places = torch.tensor([1, 2, 4, 9, 0])  # the fifth place was never met: as the last one
    found = seen(places).exp()
    assert found[0] == 1 and (found[1:] < 1).all() and found[2] == found[3]
    seen(places).sum().backward()
    assert seen.seen.grad[1] == 0 and (seen.seen.grad[[0, 2, 4]] != 0).all()


def test_a_place_that_training_did_not_meet_reads_as_one_that_it_did() -> None:
    seen = Examination(np.array([0, 6, 3, 0, 1, 0, 0]))
    seen.seen.data = torch.linspace(0.3, -0.3, 7)
    own = torch.nn.functional.logsigmoid(seen.PACE * seen.seen).exp()
    unknown = (6 * 1 + 3 * own[2] + own[4]) / 10
    torch.testing.assert_close(
        seen(torch.tensor([0, 1, 2, 3, 4, 5, 6, 200])).exp(),
        torch.stack([unknown, own.new_ones(()), own[2], own[2], own[4], own[4], own[4], own[4]]),
    )
    late = Examination(np.array([2, 0, 0, 5]))
    late.seen.data = torch.tensor([0.1, 0.2, 0.3, 0.4])
    assert len(set(late(torch.tensor([1, 2, 3])).tolist())) == 1 and late(torch.tensor([0])) != late(torch.tensor([3]))
    for nothing in (np.zeros(4, np.int64), np.array([7])):  # of no place anything was learnt
        assert Examination(nothing).log_seen()[1] == 0


@pytest.mark.parametrize("head", [SharedBottom(), MMoE(), ESMM()])
def test_heads_give_log_probabilities_and_values(head: SharedBottom) -> None:
    torch.manual_seed(0)
    tasks = ("click", "conversion", "rating")
    built = head.build(11, tasks, frozenset({"rating"}))
    out = built(torch.randn(5, 11))
    assert tuple(out) == tasks and all(v.shape == (5,) for v in out.values())
    assert (out["click"] < 0).all() and (out["conversion"] < 0).all()
    sum(v.sum() for v in out.values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in built.parameters())


def test_esmm_never_promises_more_purchases_than_clicks() -> None:
    out = ESMM().build(4, ("click", "conversion"), NONE)(torch.randn(50, 4))
    assert (out["conversion"] < out["click"]).all()
    with pytest.raises(ValueError, match="esmm needs the tasks click and conversion; conversion has no label"):
        ESMM().build(4, ("click",), NONE)


def test_experts_are_mixed_by_each_tasks_own_gate() -> None:
    torch.manual_seed(0)
    head = MMoE(experts=2, expert=3).build(4, ("a", "b"), NONE)
    for task, sure in (("a", 0), ("b", 1)):  # each task trusts one expert alone
        head.gates[task].weight.data.zero_()
        head.gates[task].bias.data = torch.tensor([50.0, -50.0] if sure == 0 else [-50.0, 50.0])
    z = torch.randn(5, 4)
    known = torch.relu(head.experts(z)).view(5, 2, 3)
    for task, at in (("a", 0), ("b", 1)):
        alone = head.towers(dict.fromkeys(("a", "b"), known[:, at]))
        torch.testing.assert_close(head(z)[task], alone[task])
