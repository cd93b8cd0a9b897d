"""Products, layer means and losses: against dense matrices and numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import sparse

from fusionrec.recommenders.graph import bipartite
from fusionrec.recommenders.propagation import (
    Features,
    Nodes,
    Product,
    bpr_loss,
    info_nce,
    layer_mean,
    layer_rows,
    norms,
    rows,
    squares,
)
from tests.recommenders.test_graph import HALF, PAIRS


def a_matrix(n: int, m: int, seed: int = 0) -> sparse.csr_matrix:
    return sparse.random_array((n, m), density=0.2, rng=np.random.default_rng(seed), dtype=np.float32).tocsr()


def test_a_product_and_its_gradient_are_those_of_the_dense_matrix() -> None:
    matrix = a_matrix(13, 7)
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(1), requires_grad=True)
    g = torch.randn(13, 5, generator=torch.Generator().manual_seed(2))
    found = Product(matrix)(x)
    found.backward(g)
    dense = torch.from_numpy(matrix.toarray())
    torch.testing.assert_close(found, dense @ x)
    torch.testing.assert_close(x.grad, dense.T @ g)


def test_a_product_with_an_empty_matrix_is_zero() -> None:
    x = torch.ones(3, 2, requires_grad=True)
    found = Product(sparse.csr_matrix((4, 3), dtype=np.float32))(x)
    found.sum().backward()
    assert found.shape == (4, 2) and not found.any() and not x.grad.any()


def test_a_matrix_is_no_part_of_the_state() -> None:
    assert Product(a_matrix(3, 5)).state_dict() == {}


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    product, x = Product(a_matrix(211, 97)), torch.randn(97, 19)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = product(x)
        torch.set_num_threads(2)
        assert torch.equal(product(x), one)
    finally:
        torch.set_num_threads(before)


def test_one_layer_on_three_users_and_two_items_by_hand() -> None:
    nodes = Nodes((3, 2), 1)
    nodes.weight.data = torch.tensor([[1.0], [2], [3], [4], [5]])
    user, item = nodes.split(nodes.propagated(Product(bipartite(PAIRS), symmetric=True), 1))
    # neighbours: u0: i0; u1: i0 and i1; u2: i1; weights 1/sqrt(2), 1/2, 1/2, 1/sqrt(2)
    torch.testing.assert_close(user.ravel(), torch.tensor([1 + 4 * HALF, 2 + 4.5, 3 + 5 * HALF]) / 2)
    torch.testing.assert_close(item.ravel(), torch.tensor([4 + HALF + 1, 5 + 1 + 3 * HALF]) / 2)


@pytest.mark.parametrize("layers", [0, 1, 2, 4])
def test_the_layer_mean_and_its_gradient_are_those_of_the_powers(layers: int) -> None:
    graph = bipartite(a_matrix(11, 7, 3).sign())
    dense = torch.from_numpy(graph.toarray())
    x = torch.randn(18, 5, generator=torch.Generator().manual_seed(4), requires_grad=True)
    found = layer_mean(x, Product(graph, symmetric=True), layers)
    expected = sum(torch.linalg.matrix_power(dense, p) @ x for p in range(layers + 1)) / (layers + 1)
    torch.testing.assert_close(found, expected)
    g = torch.randn(18, 5, generator=torch.Generator().manual_seed(5))
    (mine,), (theirs,) = (torch.autograd.grad(y, x, g) for y in (found, expected))
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("layers", [1, 3])
def test_rows_of_the_layer_mean_and_their_gradient_are_those_of_the_whole(layers: int) -> None:
    product = Product(bipartite(a_matrix(11, 7, 3).sign()), symmetric=True)
    x = torch.randn(18, 5, generator=torch.Generator().manual_seed(4), requires_grad=True)
    at = torch.tensor([3, 3, 0]), torch.tensor([17, 3, 12])  # repeats within and between
    found, own = layer_rows(x, product, layers, *at)
    whole = layer_mean(x, product, layers)
    for n in range(2):
        torch.testing.assert_close(found[n], whole[at[n]])
        torch.testing.assert_close(own[n], x[at[n]])

    def loss(rows_of_mean: torch.Tensor, rows_of_x: torch.Tensor) -> torch.Tensor:
        return (rows_of_mean**3).sum() + (rows_of_x**2).sum()

    mine = torch.autograd.grad(loss(found, own), x)[0]
    theirs = torch.autograd.grad(loss(whole[torch.stack(at)], x[torch.stack(at)]), x)[0]
    torch.testing.assert_close(mine, theirs)


def test_the_layer_mean_refuses_a_matrix_that_is_not_symmetric() -> None:
    with pytest.raises(AssertionError, match="symmetric"):
        layer_mean(torch.zeros(5, 2), Product(a_matrix(5, 5)), 2)


def test_xavier_is_drawn_for_users_and_items_apart() -> None:
    torch.manual_seed(0)
    user, item = Nodes((6, 3000), 10).split(Nodes((6, 3000), 10).weight)
    assert 0.3 < float(user.detach().abs().max()) <= math.sqrt(6 / 16)
    assert float(item.detach().abs().max()) <= math.sqrt(6 / 3010)


def test_rows_are_gathered_and_repeats_add_up_in_the_gradient() -> None:
    x = torch.arange(12.0).view(4, 3).requires_grad_()
    a, b = rows(x, torch.tensor([1, 1]), torch.tensor([3, 1]))
    assert a.tolist() == [[3, 4, 5]] * 2 and b.tolist() == [[9, 10, 11], [3, 4, 5]]
    (a + 10 * b).sum().backward()
    assert x.grad[:, 0].tolist() == [0, 12, 0, 10]


def test_the_bpr_loss_by_hand() -> None:
    user = torch.tensor([[1.0, 0], [0, 2], [1, 1]])
    better = torch.tensor([[2.0, 9], [9, 1], [0, 0]])
    worse = torch.tensor([[1.0, 5], [5, 1], [0, 3]])
    # differences 1, 0, -3
    each = [math.log(1 + math.exp(-d)) for d in (1, 0, -3)]
    assert float(bpr_loss(user, better, worse)) == pytest.approx(sum(each) / 3, rel=1e-6)
    only = bpr_loss(user, better, worse, torch.tensor([1.0, 0, 1]))
    assert float(only) == pytest.approx((each[0] + each[2]) / 2, rel=1e-6)
    assert float(bpr_loss(user, better, worse, torch.zeros(3))) == 0


def test_the_regularisers_by_hand() -> None:
    a, b = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 6.0], [8.0, 0.0]])
    assert float(norms(a, b)) == pytest.approx((5 + 10) / 2)
    assert float(squares(a, b)) == pytest.approx((25 + 100) / 4)


def slow_info_nce(a: torch.Tensor, b: torch.Tensor, temperature: float) -> torch.Tensor:
    cosine = torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=-1) / temperature
    return torch.nn.functional.cross_entropy(cosine, torch.arange(len(a)))


def test_info_nce_with_counts_is_that_of_the_repeated_rows() -> None:
    rng = torch.Generator().manual_seed(6)
    a, b = (torch.randn(5, 3, generator=rng, dtype=torch.float64).float().requires_grad_() for _ in range(2))
    count = torch.tensor([1, 3, 2, 0, 1])
    again = torch.repeat_interleave(torch.arange(5), count)
    # a repeated row meets its own copies as if they were others: that is what the plain loss does, too
    cosine = torch.nn.functional.cosine_similarity(a[again][:, None], b[again][None], dim=-1) / 0.2
    expected = (torch.logsumexp(cosine, 1) - cosine.diagonal()).mean()
    found = info_nce(a, b, count, 0.2)
    torch.testing.assert_close(found, expected)
    for mine, theirs in zip(torch.autograd.grad(found, (a, b)), torch.autograd.grad(expected, (a, b)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_info_nce_without_repeats_is_cross_entropy_and_without_rows_zero() -> None:
    rng = torch.Generator().manual_seed(7)
    a, b = (torch.randn(6, 4, generator=rng) for _ in range(2))
    torch.testing.assert_close(info_nce(a, b, torch.ones(6), 0.5), slow_info_nce(a, b, 0.5))
    a.requires_grad_()
    nothing = info_nce(a, b, torch.zeros(6), 0.5)
    nothing.backward()
    assert float(nothing.detach()) == 0 and not a.grad.any()


def test_mapped_features_are_masked_and_tuned_where_asked() -> None:
    given = {"sound": (np.arange(8, dtype=np.float32).reshape(4, 2), np.array([True, False, True, True]))}
    tuned, fixed = (Features(given, 3, tune) for tune in (True, False))
    mapped, here = tuned.mapped("sound", torch.tensor([1, 2]))
    assert not mapped[0].any() and here.tolist() == [0, 1]  # masked after the map: no offset either
    mapped.sum().backward()
    assert not tuned.raw("sound").grad[[0, 1, 3]].any() and tuned.raw("sound").grad[2].any()
    assert len(list(fixed.parameters())) == 2 and len(list(tuned.parameters())) == 3
    assert list(Features(given, 3, True, unused=True).parameters()) == []


def test_info_nce_at_a_small_temperature_and_in_half_precision() -> None:
    a, b = torch.randn(9, 4), torch.randn(9, 4)
    b[0] = a[0]
    count = torch.ones(9)
    small = info_nce(a.requires_grad_(), b, count, 0.004)
    small.backward()
    assert torch.isfinite(small) and torch.isfinite(a.grad).all()
    normal = torch.nn.functional.normalize
    expected = torch.nn.functional.cross_entropy(normal(a, dim=1) @ normal(b, dim=1).T / 0.004, torch.arange(9))
    torch.testing.assert_close(small, expected, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = info_nce(a, b, count, 0.2)
    a.grad = None
    half.backward()
    torch.testing.assert_close(half.detach(), info_nce(a, b, count, 0.2).detach())
    assert torch.isfinite(a.grad).all()
