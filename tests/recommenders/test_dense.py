"""Scores are the same whoever asks beside them, and the arrays that are given are left alone."""

from __future__ import annotations

import numpy as np
import pytest

from fusionrec.recommenders.dense import dot_products
from fusionrec.recommenders.topk import top_k


@pytest.mark.parametrize("items", [1, 7, 43, 1000, 5003])
@pytest.mark.parametrize("width", [3, 64])
def test_alone_and_in_company_equal_items_stay_equal(items: int, width: int) -> None:
    """Each item has a twin with the same vector: ties go to the lower row, however many requests are scored."""
    rng = np.random.default_rng(items)
    x = np.repeat(rng.normal(size=(items, width)), 2, axis=0).astype(np.float32)
    users = rng.normal(size=(9, width)).astype(np.float32)
    together = dot_products(users, x)
    np.testing.assert_allclose(together, users.astype(np.float64) @ x.T.astype(np.float64), rtol=1e-3, atol=1e-4)
    best, _ = top_k(together, min(10, 2 * items))
    for n in range(len(users)):
        alone = dot_products(users[n : n + 1], x)
        assert alone.shape == (1, 2 * items)
        np.testing.assert_array_equal(top_k(alone, min(10, 2 * items))[0][0], best[n])


def test_any_memory_is_taken_and_none_is_written_to() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 6)), rng.normal(size=(5, 6))
    expected = a @ b.T
    locked = b.astype(np.float32)
    locked.flags.writeable = False
    turned = np.asfortranarray(a.astype(np.float32))[::-1][::-1]
    for left, right in ((a, b), (turned, locked), (a[:, ::-1][:, ::-1], b[::-1][::-1]), (a.astype(">f4"), b)):
        found = dot_products(left, right)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        assert found.dtype == np.float32 and found.flags.writeable
        found[:] = 7
    np.testing.assert_array_equal(locked, b.astype(np.float32))
    assert dot_products(a[:0], b).shape == (0, 5)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        dot_products(a, b[:, :5])
