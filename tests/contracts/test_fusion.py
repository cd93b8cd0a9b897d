"""What every fusion promises (fusion/base.py): absent modalities are masked, whatever their values are."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fusionrec.fusion import AnyFusion
from fusionrec.fusion.base import FusionSpec
from fusionrec.kinds import members
from fusionrec.recommenders.training import Training
from fusionrec.recommenders.two_tower import TwoTower
from fusionrec.types import Interactions, ItemSet, Requests, item_order

SPECS = {cls.model_fields["kind"].default: cls for cls in members(AnyFusion)}
DIMS = {"audio": 2, "image": 7, "text": 11}  # M=3, all widths differ
NAMES = sorted(DIMS)
SUBSETS = [s for n in range(len(NAMES) + 1) for s in combinations(NAMES, n)]
B, D = 8, 4  # one row for each of the 8 masks
# Beside the defaults: other settings of the same fusions. A new fusion needs no line here.
VARIANTS: dict[str, dict[str, Any]] = {
    "weighted, additive": {"kind": "weighted", "weights": {"text": 1.0, "image": 0.5, "audio": None}},
    "transform, linear": {"kind": "transform", "map": "linear"},
    "transform, mlp and concat": {"kind": "transform", "combine": "concat"},
    "self_attention, 2 heads": {"kind": "self_attention", "heads": 2},
    "cross_attention, every number": {"kind": "cross_attention", "pieces": None},
    "graph, 1 step": {"kind": "graph", "steps": 1},
    "gated, linear": {"kind": "gated", "expert": "linear"},
}
CASES = {kind: {"kind": kind} for kind in sorted(SPECS)} | VARIANTS

cases = pytest.mark.parametrize("case", CASES)
widths = pytest.mark.parametrize("dim", [pytest.param(D, id="dim 4"), pytest.param(None, id="natural width")])


def spec(case: str) -> FusionSpec:
    return SPECS[CASES[case]["kind"]].model_validate(CASES[case])


def built(case: str, dim: int | None, dims: dict[str, int] | None = None, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return spec(case).build(DIMS if dims is None else dims, dim).eval()


def moved(case: str, dim: int | None) -> nn.Module:
    """Away from its first values, as after training: nothing holds only because a weight starts at zero."""
    module, generator = built(case, dim), torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return module


def batch(seed: int = 1, rows: int = B) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(rows, width, generator=generator) for name, width in DIMS.items()}


def mask_of(present: tuple[str, ...], rows: int = B) -> torch.Tensor:
    return torch.tensor([[name in present for name in NAMES]] * rows)


def every_mask() -> torch.Tensor:
    """(8, 3): each row another subset."""
    return torch.cat([mask_of(s, 1) for s in SUBSETS])


def dirty(mask: torch.Tensor, value: float) -> dict[str, torch.Tensor]:
    x = batch()
    for column, name in enumerate(NAMES):
        x[name][~mask[:, column]] = value
    return x


def backward(module: nn.Module, x: dict[str, torch.Tensor], mask: torch.Tensor) -> dict[str, torch.Tensor | None]:
    """Gradients of a random combination of the outputs, for the inputs (``x.<name>``) and the parameters."""
    module.zero_grad(set_to_none=True)
    x = {name: v.clone().requires_grad_() for name, v in x.items()}
    out = module(x, mask)
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(3))).sum().backward()
    return {f"x.{name}": v.grad for name, v in x.items()} | {n: p.grad for n, p in module.named_parameters()}


def reached(gradient: torch.Tensor | None) -> bool:
    return gradient is not None and bool((gradient != 0).any())


@cases
@widths
def test_any_subset_gives_finite_vectors_of_the_declared_width(case: str, dim: int | None) -> None:
    for module in (built(case, dim), moved(case, dim)):
        for present in SUBSETS:
            out = module(batch(), mask_of(present))
            assert out.shape == (B, module.dim), present
            assert out.dtype == torch.float32
            assert torch.isfinite(out).all(), present
        assert dim is None or module.dim == dim


@cases
@widths
@pytest.mark.parametrize("value", [1e6, float("nan"), float("inf"), float("-inf")])
def test_values_of_absent_modalities_change_neither_result_nor_gradients(
    case: str, dim: int | None, value: float
) -> None:
    module, mask = moved(case, dim), every_mask()
    assert torch.equal(module(dirty(mask, value), mask), module(batch(), mask))
    clean, found = backward(module, batch(), mask), backward(module, dirty(mask, value), mask)
    for name, gradient in clean.items():
        assert (gradient is None) == (found[name] is None), name
        if gradient is not None:
            assert torch.isfinite(gradient).all(), name
            assert torch.equal(found[name], gradient), name


@cases
@widths
def test_present_values_have_influence_and_absence_is_no_zero_vector(case: str, dim: int | None) -> None:
    module, x = moved(case, dim), batch()
    whole = module(x, mask_of(tuple(NAMES)))
    for name in NAMES:
        changed = module(x | {name: batch(2)[name]}, mask_of(tuple(NAMES)))
        zero = module(x | {name: torch.zeros_like(x[name])}, mask_of(tuple(NAMES)))
        masked = module(x, mask_of(tuple(set(NAMES) - {name})))
        assert (changed != whole).any(dim=1).all(), name
        assert (masked != zero).any(dim=1).all(), name


@cases
@widths
def test_the_order_of_a_dict_does_not_matter(case: str, dim: int | None) -> None:
    module, x, mask = built(case, dim), batch(), every_mask()
    other = built(case, dim, dict(reversed(list(DIMS.items()))))
    expected = module(x, mask)
    for order in (NAMES, NAMES[::-1], ["image", "text", "audio"]):
        assert torch.equal(module({name: x[name] for name in order}, mask), expected)
        assert torch.equal(other({name: x[name] for name in order}, mask), expected)


@cases
@widths
def test_rows_are_independent(case: str, dim: int | None) -> None:
    """In a batch of all eight masks, each row is what it is alone."""
    module, x, mask = built(case, dim), batch(), every_mask()
    whole = module(x, mask)
    for row in range(B):
        alone = module({m: v[[row]] for m, v in x.items()}, mask[[row]])
        torch.testing.assert_close(alone[0], whole[row], rtol=1e-6, atol=1e-6)
    nobody = module({m: v[:0] for m, v in x.items()}, mask[:0])
    assert nobody.shape == (0, module.dim)


@cases
@widths
def test_gradients_reach_every_present_modality_and_no_other(case: str, dim: int | None) -> None:
    for module in (built(case, dim), moved(case, dim)):
        for present in SUBSETS:
            found = backward(module, batch(), mask_of(present))
            for name in NAMES:
                assert reached(found[f"x.{name}"]) == (name in present), (present, name)


def columns_of(parameter: str) -> set[int]:
    """The modalities a parameter belongs to: numbers in its name are columns of the mask (fusion/tokens.py)."""
    return {int(part) for part in re.findall(r"(?<=\.)\d+(?=\.|$)", parameter)}


@cases
@widths
def test_parameters_of_an_absent_modality_do_not_learn(case: str, dim: int | None) -> None:
    module = moved(case, dim)
    everything = backward(module, batch(), mask_of(tuple(NAMES)))
    for column, name in enumerate(NAMES):
        found = backward(module, batch(), mask_of(tuple(set(NAMES) - {name})))
        own = [n for n, _ in module.named_parameters() if column in columns_of(n) and reached(everything[n])]
        assert not [n for n in own if reached(found[n])]
        # unnamed: entries of shared arrays. A map of D_m numbers has at least D_m of them that rest.
        resting = sum(
            int(((g != 0) & ((found[n] == 0) if found[n] is not None else True)).sum())
            for n, g in everything.items()
            if g is not None and not n.startswith("x.")
        )
        assert resting >= (DIMS[name] if any(True for _ in module.parameters()) else 0), (name, resting)


@cases
@widths
def test_gradients_are_those_of_the_function(case: str, dim: int | None) -> None:
    """Against finite differences, in float64, with every mask in the batch."""
    module, mask = moved(case, dim).double(), every_mask()
    x = [batch()[name].double().requires_grad_() for name in NAMES]
    assert torch.autograd.gradcheck(
        lambda *v: module(dict(zip(NAMES, v, strict=True)), mask), x, fast_mode=True, atol=1e-6
    )


@cases
@widths
def test_weights_survive_a_file(case: str, dim: int | None, tmp_path: Path) -> None:
    module, mask = moved(case, dim), every_mask()
    save_file(module.state_dict(), tmp_path / "model.safetensors")
    other = built(case, dim, seed=99)
    other.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    assert torch.equal(module(batch(), mask), other(batch(), mask))
    assert {str(v.numpy().dtype) for v in module.state_dict().values()} <= {"float32"}  # a bundle's plain dtypes


@cases
@widths
def test_the_same_seed_gives_the_same_module(case: str, dim: int | None) -> None:
    one, two = built(case, dim, seed=4).state_dict(), built(case, dim, seed=4).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one | two)


@cases
@widths
def test_under_bfloat16_autocast(case: str, dim: int | None) -> None:
    """The same within bfloat16's 8 bits, NaN in what is absent, finite gradients."""
    module, mask = built(case, dim), every_mask()
    expected = module(batch(), mask).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(dirty(mask, float("nan")), mask)
        found = backward(module, dirty(mask, float("nan")), mask)
    assert torch.isfinite(out).all()
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.05 * float(expected.abs().max()))
    assert all(torch.isfinite(g).all() for g in found.values() if g is not None)


@cases
@widths
def test_everything_is_made_on_the_device_of_the_parameters(case: str, dim: int | None) -> None:
    """On the meta device, which refuses to meet a tensor of another device (and to decide by a value)."""
    module = built(case, dim).to("meta")
    out = module({name: v.to("meta") for name, v in batch().items()}, every_mask().to("meta"))
    assert out.device.type == "meta"
    assert out.shape == (B, module.dim)


@cases
@widths
@pytest.mark.parametrize("many", [1, 2, 5])
def test_any_number_of_modalities(case: str, dim: int | None, many: int) -> None:
    dims = dict(list({"audio": 5, "image": 7, "text": 11, "rating": 1, "video": 13}.items())[:many])
    given = CASES[case].get("weights")
    torch.manual_seed(0)
    values = CASES[case] | ({"weights": given | {"rating": 0.1, "video": 0.2}} if given else {})
    module = SPECS[values["kind"]].model_validate(values).build(dims, dim).eval()
    mask = torch.rand(9, many, generator=torch.Generator().manual_seed(2)) > 0.4
    mask[0], mask[1] = False, True
    out = module({name: torch.randn(9, width) for name, width in dims.items()}, mask)
    assert out.shape == (9, module.dim)
    assert torch.isfinite(out).all()


@cases
@widths
def test_input_that_does_not_fit_is_refused(case: str, dim: int | None) -> None:
    module, x, mask = built(case, dim), batch(), every_mask()
    with pytest.raises(ValueError, match=r"built for the modalities .*'text'.*got \['audio', 'image'\]"):
        module({name: x[name] for name in ("audio", "image")}, mask)
    with pytest.raises(ValueError, match=r"expected bool \(batch, 3\)"):
        module(x, torch.cat([mask, mask[:, :1]], dim=1))
    with pytest.raises(ValueError, match=r"expected bool \(batch, 3\)"):
        module(x, mask.float())
    with pytest.raises(ValueError, match=r"'image' is \(8, 6\), expected \(8, 7\)"):
        module(x | {"image": x["image"][:, :6]}, mask)


@cases
@widths
def test_training_starts_well(case: str, dim: int | None) -> None:
    """Untrained, like items lie near each other, and an item that lacks modalities is not longer than the others."""
    rng = np.random.default_rng(0)
    taste = rng.normal(size=(61, 3))
    x = {}
    for name, width in DIMS.items():  # whitened, as fusions get them
        v = taste @ rng.normal(size=(3, width)) + 0.5 * rng.normal(size=(61, width))
        x[name] = torch.from_numpy((v / v.std(0)).astype(np.float32))
    pairs = np.triu_indices(61, 1)
    alike = (taste @ taste.T / np.outer(*2 * [np.linalg.norm(taste, axis=1)]))[pairs]
    agreement, length = [], []
    for seed in range(8):
        module = built(case, dim, seed=seed)
        with torch.no_grad():
            whole, one = (
                [(module(x, mask_of(s, 61)) - module(x, mask_of((), 61))).numpy() for s in subsets]
                for subsets in ([tuple(NAMES)], [(name,) for name in NAMES])
            )
        centred = whole[0] - whole[0].mean(0)
        centred /= np.linalg.norm(centred, axis=1, keepdims=True)
        agreement.append(np.corrcoef((centred @ centred.T)[pairs], alike)[0, 1])
        length.append(np.sqrt(np.mean(np.square(one)) / np.mean(np.square(whole))))
    assert np.mean(agreement) > 0.5, agreement
    assert 0.2 < np.mean(length) < 1.2, length


ITEMS, COLD, USERS = 131, 30, 97


def planted(deal: bool) -> tuple[ItemSet, Interactions, Interactions, np.ndarray, np.ndarray]:
    """Three tastes that every modality shows in its own way, a third of everything absent, the last 30 items cold.

    With ``deal`` the vectors are dealt to the items at random: nothing can be learnt of new items.
    """
    rng = np.random.default_rng(11)
    taste, fan = rng.integers(0, 3, ITEMS), np.arange(USERS) % 3
    shown = rng.permutation(taste) if deal else taste
    features, present = {}, {}
    for name, width in DIMS.items():
        here = rng.random(ITEMS) > 1 / 3
        directions = rng.normal(size=(3, width))
        v = 2 * directions[shown] / np.linalg.norm(directions, axis=1)[shown, None] + rng.normal(size=(ITEMS, width))
        features[name], present[name] = np.where(here[:, None], v, np.nan).astype(np.float32), here
    ids = tuple(item_order(f"item-{n}" for n in range(ITEMS)))
    items = ItemSet(ids, features, present, {name: np.zeros(ITEMS, np.int16) for name in DIMS})
    touched = rng.random((USERS, ITEMS)) < np.where(fan[:, None] == taste[None], 0.3, 0.03)
    touched[:, ITEMS - COLD :] = False
    user, item = np.nonzero(touched)
    log = Interactions(user.astype(np.int32), item.astype(np.int32), None, USERS, ITEMS)
    late = rng.random(len(log)) < 0.15
    return items, log.select(~late), log.select(late), taste, fan


def cold_auc(fusion: FusionSpec, deal: bool = False) -> float:
    """How often a new item of the user's taste stands above a new item of another taste; 0.5 is chance."""
    items, train, valid, taste, fan = planted(deal)
    model = TwoTower(dim=6, width=9, rank=5, training=Training(epochs=10, batch=32, lr=1e-2)).build(fusion)
    model.fit(train, valid, items, seed=1)
    scores = model.score(Requests(np.arange(USERS, dtype=np.int64), train.matrix()))[:, ITEMS - COLD :]
    liked = fan[:, None] == taste[None, ITEMS - COLD :]
    wins = [(s[y][:, None] > s[~y][None]).mean() for s, y in zip(scores, liked)]
    return float(np.mean(wins))


@cases
def test_learns_what_new_items_are_like(case: str) -> None:
    assert cold_auc(spec(case)) > 0.65


def test_nothing_is_learnt_where_there_is_nothing_to_learn() -> None:
    """The control of the test above: with dealt vectors its bar is out of reach."""
    assert cold_auc(spec("concat"), deal=True) < 0.6
