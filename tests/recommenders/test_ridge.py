"""The inverse behind EASE against numpy, and EASE's weights against their definition."""

import numpy as np
import pytest

from fusionrec.recommenders import ridge


def gram(n: int, dtype: type) -> np.ndarray:
    x = np.random.default_rng(n).random((2 * n, n)) < 0.2
    return (x.T.astype(dtype) @ x.astype(dtype)).astype(dtype)


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-10), (np.float32, 1e-4)])
@pytest.mark.parametrize("n", [1, 7, 1100])
def test_the_inverse_is_the_inverse(n: int, dtype: type, tolerance: float) -> None:
    g = gram(n, dtype)
    expected = np.linalg.inv(g.astype(np.float64) + 3.0 * np.eye(n))
    got = ridge.inverse(g.copy(), 3.0)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, expected, atol=tolerance * np.abs(expected).max())
    np.testing.assert_array_equal(got, got.T)


def test_it_works_in_place() -> None:
    g = gram(11, np.float64)
    got = ridge.inverse(g, 1.0)
    assert np.shares_memory(got, g)


def test_a_matrix_that_is_not_positive_definite_is_refused() -> None:
    with pytest.raises(ValueError, match="raise l2"):
        ridge.inverse(np.array([[1.0, 2.0], [2.0, 1.0]]), 0.5)


def test_weights_by_hand() -> None:
    """Two items, G = [[3, 1], [1, 2]], l2 = 1: G + I = [[4, 1], [1, 3]], item 1 on item 0: 1/4."""
    weight = ridge.weights(ridge.inverse(np.array([[3.0, 1.0], [1.0, 2.0]]), 1.0))
    np.testing.assert_allclose(weight, [[0, 1 / 4], [1 / 3, 0]], atol=1e-7)
    assert weight.dtype == np.float32
