"""Products of a search that compares every row: the same numbers, whether a library may share them out or not."""

from __future__ import annotations

import numpy as np
import pytest

from rexbert_hf.retrieval.serving import exact

SHAPES = [
    (1, 64, 10),
    (1, 256, 1_024),
    (1, 256, 1_025),
    (1, 256, 3_001),
    (7, 100, 900),
    (3, 768, 5_000),
    (1, 64, 140_000),
]


@pytest.mark.parametrize(("queries", "dim", "rows"), SHAPES)
def test_products_are_those_of_float64(queries, dim, rows):
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((queries, dim)), rng.standard_normal((rows, dim))
    found = exact.inner_products(one.astype(np.float32), other.astype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, one @ other.T, atol=2e-5 * dim**0.5)


@pytest.mark.parametrize(
    ("queries", "dim", "rows"), [(1, 256, 3_001), (2, 100, 9_000), (3, 768, 2_000), (1, 384, 20_000)]
)
def test_a_small_one_goes_in_parts_that_no_thread_is_woken_for(monkeypatch, queries, dim, rows):
    sizes = []
    stock = np.matmul
    monkeypatch.setattr(
        np, "matmul", lambda a, b, **rest: sizes.append((a.size * b.shape[1], b.shape[1])) or stock(a, b, **rest)
    )
    exact.inner_products(np.ones((queries, dim), np.float32), np.ones((rows, dim), np.float32))
    assert len(sizes) > 1
    assert sum(count for _, count in sizes) == rows
    assert max(size for size, _ in sizes) <= exact._THREADED


@pytest.mark.parametrize("dim", [100, 384])
def test_equal_rows_have_equal_scores(dim):
    """Else of two products of one text the second could come first."""
    rng = np.random.default_rng(0)
    row = rng.standard_normal((1, dim)).astype(np.float32)
    scores = exact.inner_products(rng.standard_normal((1, dim)).astype(np.float32), np.repeat(row, 8_000, axis=0))
    assert len(np.unique(scores)) == 1
