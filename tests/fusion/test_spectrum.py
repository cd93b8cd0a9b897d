"""Worked by hand: for two numbers the orthonormal transform is (p + q, p - q) / sqrt(2), and its own inverse."""

from __future__ import annotations

import torch

from fusionrec.fusion.spectrum import Spectrum
from tests.fusion.hand import build, close, fuse

DIMS = {"a": 1, "b": 2}
X = {"a": [1.0], "b": [1.0, -2.0]}
MAPS = {"tokens__project__0__weight": [[3.0], [1.0]], "tokens__project__1__weight": [[1.0, 0.0], [0.0, 1.0]]}
PASS = [[1.0, 0.0], [1.0, 0.0]]


def test_the_product_of_spectra() -> None:
    """(3, 1) -> (4, 2) / sqrt(2); (1, -2) -> (-1, 3) / sqrt(2); product (-2, 3) -> (1, -5) / sqrt(2)."""
    module = build(Spectrum(), DIMS, 2, filters__0=PASS, filters__1=PASS, fused=PASS, **MAPS)
    close(fuse(module, "ab", **X), 1 / 2**0.5, -5 / 2**0.5)
    close(fuse(module, "a", **X), 3, 1)  # an absent modality is left out of the product
    close(fuse(module, "b", **X), 1, -2)
    close(fuse(module, "", **X), 2**0.5, 0)  # the empty product is 1 everywhere: an impulse


def test_each_has_its_filter_and_the_product_one_more() -> None:
    """Filters: a (5, 1), b (1, 2), product (1, 10): (-2 5, 3 2 10) = (-10, 60) -> (50, -70) / sqrt(2)."""
    module = build(
        Spectrum(),
        DIMS,
        2,
        filters__0=[[5.0, 0.0], [1.0, 0.0]],
        filters__1=[[1.0, 0.0], [2.0, 0.0]],
        fused=[[1.0, 0.0], [10.0, 0.0]],
        **MAPS,
    )
    close(fuse(module, "ab", **X), 50 / 2**0.5, -70 / 2**0.5)
    close(fuse(module, "a", **X), 20, 0)  # (4 5, 2 1 10) / sqrt(2) = (20, 20) / sqrt(2)


def test_filters_are_complex() -> None:
    """Multiplying frequency k of 4 by exp(-2 pi i k / 4) = 1, -i, -1 moves every number one place on."""
    module = build(
        Spectrum(),
        {"a": 4},
        None,
        tokens__project__0__weight=torch.eye(4).tolist(),
        filters__0=[[1.0, 0.0], [0.0, -1.0], [-1.0, 0.0]],
        fused=[[1.0, 0.0]] * 3,
    )
    close(fuse(module, "a", a=[1.0, 2.0, 3.0, 4.0]), 4, 1, 2, 3)


def test_it_starts_as_a_sum_with_interactions() -> None:
    """prod(1 + s_m) - 1 - sum(s_m) = s_a s_b: small vectors, small interaction."""
    torch.manual_seed(0)
    module = Spectrum().build({"a": 3, "b": 5}, 4).eval()
    x = {"a": [0.01, -0.02, 0.03], "b": [0.02, 0.01, -0.01, 0.0, 0.03]}
    none, a, b, both = (fuse(module, present, **x) for present in ("", "a", "b", "ab"))
    torch.testing.assert_close(both - none, (a - none) + (b - none), rtol=0, atol=1e-3)
    assert float((a - none).norm()) > 0.01
