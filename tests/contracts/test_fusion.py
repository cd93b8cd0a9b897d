"""What every fusion promises (fusion/base.py): absent modalities are masked, whatever their values are."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import nn

from fusionrec.fusion import AnyFusion
from fusionrec.kinds import members

SPECS = {cls.model_fields["kind"].default: cls for cls in members(AnyFusion)}
DIMS = {"audio": 2, "image": 7, "text": 11}  # M=3, all widths differ
NAMES = sorted(DIMS)
B, D = 5, 4

pytestmark = [
    pytest.mark.parametrize("kind", sorted(SPECS)),
    pytest.mark.parametrize("dim", [pytest.param(D, id="dim 4"), pytest.param(None, id="natural width")]),
]


def built(kind: str, dim: int | None) -> nn.Module:
    torch.manual_seed(0)
    return SPECS[kind].model_validate({"kind": kind}).build(DIMS, dim).eval()


def batch(seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(B, width, generator=generator) for name, width in DIMS.items()}


SUBSETS = [s for n in range(len(NAMES) + 1) for s in combinations(NAMES, n)]


def mask_of(present: tuple[str, ...]) -> torch.Tensor:
    return torch.tensor([[name in present for name in NAMES]] * B)


@pytest.mark.parametrize("present", SUBSETS, ids=["+".join(s) or "nothing" for s in SUBSETS])
def test_any_subset_gives_finite_vectors_of_the_declared_width(kind: str, dim: int | None, present) -> None:
    module = built(kind, dim)
    out = module(batch(), mask_of(present))
    assert out.shape == (B, module.dim)
    assert dim is None or module.dim == dim
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("value", [1e6, float("nan"), float("inf")])
@pytest.mark.parametrize("absent", NAMES)
def test_masked_values_have_no_influence(kind: str, dim: int | None, absent: str, value: float) -> None:
    module = built(kind, dim)
    mask = torch.ones(B, len(NAMES), dtype=torch.bool)
    mask[1:4, NAMES.index(absent)] = False
    x, dirty = batch(), batch()
    dirty[absent][1:4] = value
    assert torch.equal(module(x, mask), module(dirty, mask))


@pytest.mark.parametrize("changed", NAMES)
def test_present_values_have_influence(kind: str, dim: int | None, changed: str) -> None:
    module = built(kind, dim)
    mask = torch.ones(B, len(NAMES), dtype=torch.bool)
    x, other = batch(), batch()
    other[changed] = batch(2)[changed]
    assert (module(x, mask) != module(other, mask)).any(dim=1).all()


def test_the_order_of_the_dict_does_not_matter(kind: str, dim: int | None) -> None:
    module, x, mask = built(kind, dim), batch(), torch.rand(B, 3, generator=torch.Generator().manual_seed(4)) > 0.3
    assert torch.equal(module(x, mask), module(dict(reversed(list(x.items()))), mask))


def test_rows_are_independent(kind: str, dim: int | None) -> None:
    module, x, mask = built(kind, dim), batch(), torch.rand(B, 3, generator=torch.Generator().manual_seed(4)) > 0.3
    whole = module(x, mask)
    for row in range(B):
        alone = module({m: v[[row]] for m, v in x.items()}, mask[[row]])
        torch.testing.assert_close(alone[0], whole[row], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("present", SUBSETS[1:], ids=["+".join(s) for s in SUBSETS[1:]])
def test_gradients_reach_every_present_modality_and_no_other(kind: str, dim: int | None, present) -> None:
    module = built(kind, dim)
    x = {m: v.requires_grad_() for m, v in batch().items()}
    out = module(x, mask_of(present))
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(3))).sum().backward()
    for name in NAMES:
        reached = x[name].grad is not None and bool((x[name].grad != 0).any())
        assert reached == (name in present)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in module.parameters())


def test_gradients_are_finite_beside_dirty_masked_values(kind: str, dim: int | None) -> None:
    module, x = built(kind, dim), batch()
    mask = torch.ones(B, len(NAMES), dtype=torch.bool)
    mask[2] = False
    x["text"][2] = float("nan")
    x["image"].requires_grad_()
    module(x, mask).square().sum().backward()
    assert torch.isfinite(x["image"].grad).all()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in module.parameters())


def test_weights_survive_a_round_trip(kind: str, dim: int | None) -> None:
    module, mask = built(kind, dim), torch.ones(B, 3, dtype=torch.bool)
    torch.manual_seed(99)
    other = SPECS[kind].model_validate({"kind": kind}).build(DIMS, dim).eval()
    other.load_state_dict(module.state_dict(), strict=True)
    assert torch.equal(module(batch(), mask), other(batch(), mask))


def test_one_modality_is_enough(kind: str, dim: int | None) -> None:
    torch.manual_seed(0)
    module = SPECS[kind].model_validate({"kind": kind}).build({"text": 11}, dim).eval()
    out = module({"text": batch()["text"]}, torch.tensor([[True], [False], [True], [True], [False]]))
    assert out.shape == (B, module.dim)
    assert torch.isfinite(out).all()
