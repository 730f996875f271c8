"""The closed-form integral against a numerical one, and what a mixture refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rexbert_hf.data.mixture import Mixture

weight = st.floats(0, 10).map(lambda x: round(x, 3))
positive = st.floats(0.001, 10)


def _numerical(mixture: Mixture, t: float) -> np.ndarray:
    """Gauss-Legendre on each of 64 equal pieces."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    edges = np.linspace(0, t, 65)
    points = (edges[:-1, None] + edges[1:, None]) / 2 + (edges[1:, None] - edges[:-1, None]) / 2 * nodes
    values = np.stack([mixture.shares(float(x)) for x in points.ravel()]).reshape(64, 8, -1)
    return ((edges[1:] - edges[:-1])[:, None, None] / 2 * weights[None, :, None] * values).sum((0, 1))


@settings(max_examples=40, deadline=None)
@given(a=positive, b=positive, c=weight, d=weight, t=st.floats(0, 1))
@example(a=8.0, b=0.001, c=0.0, d=8.0, t=1.0)  # weights whose sum hardly changes
def test_integral_is_the_area_under_the_shares(a: float, b: float, c: float, d: float, t: float) -> None:
    mixture = Mixture({"x": (a, b), "y": (c, d), "z": 0.5})
    got = mixture.integral(t)
    np.testing.assert_allclose(got, _numerical(mixture, t), rtol=1e-7, atol=1e-9)
    assert got.sum() == pytest.approx(t, abs=1e-11)  # the logarithm cancels four digits before its series is taken
    assert mixture.shares(t).sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("drift", [0.0, 1e-9, 1e-5, 9e-5, 1.1e-4, 1e-3])
def test_integral_is_smooth_where_the_formula_changes(drift: float) -> None:
    mixture = Mixture({"x": (1.0, 0.2), "y": (0.5, 1.3 + drift)})
    np.testing.assert_allclose(mixture.integral(0.7), _numerical(mixture, 0.7), rtol=1e-11)


@settings(max_examples=30, deadline=None)
@given(
    x=st.lists(positive, min_size=5, max_size=5),
    y=st.lists(weight, min_size=5, max_size=5),
    ends=st.tuples(weight, weight),
    t=st.floats(0, 1),
)
@example(x=[0.001] * 5, y=[0.0, 1.0, 1.0, 1.0, 1.0], ends=(0.0, 0.0), t=1.0)  # next to nothing at a point
def test_integral_of_weights_along_several_lines(x: list, y: list, ends: tuple, t: float) -> None:
    mixture = Mixture({"x": x, "y": y, "z": ends})
    whole = np.array([np.interp(t, np.linspace(0, 1, 5), points) for points in (x, y)] + [np.interp(t, [0, 1], ends)])
    np.testing.assert_allclose(mixture.shares(t), whole / whole.sum(), rtol=1e-9, atol=1e-12)
    area = sum((_numerical_between(mixture, a, min(b, t)) for a, b in _quarters() if a < t), np.zeros(3))
    np.testing.assert_allclose(mixture.integral(t), area, rtol=1e-7, atol=1e-9)


def _quarters() -> list:
    return [(0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0)]


def _numerical_between(mixture: Mixture, low: float, high: float) -> np.ndarray:
    """Gauss-Legendre between two points joined by lines, on pieces that halve towards both: shares may jump there."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    towards = np.concatenate([[0.0], 0.5 ** np.arange(24, 0, -1)])
    edges = low + (high - low) * np.concatenate([towards, 1 - towards[-2::-1]])
    points = (edges[:-1, None] + edges[1:, None]) / 2 + (edges[1:, None] - edges[:-1, None]) / 2 * nodes
    values = np.stack([mixture.shares(float(x)) for x in points.ravel()]).reshape(len(edges) - 1, 8, -1)
    return ((edges[1:] - edges[:-1])[:, None, None] / 2 * weights[None, :, None] * values).sum((0, 1))


def test_more_points_on_the_same_lines_change_nothing() -> None:
    two = Mixture({"x": (1.0, 0.2), "y": (0.2, 1.6)})
    many = Mixture({"x": np.linspace(1.0, 0.2, 9).tolist(), "y": (0.2, 1.6)})
    for t in (0.0, 0.1, 0.5, 0.77, 1.0):
        np.testing.assert_allclose(many.integral(t), two.integral(t), rtol=1e-12)


def test_constant_weights_are_constant_shares() -> None:
    mixture = Mixture({"general": 3, "shop": [1, 1]})
    np.testing.assert_allclose(mixture.integral(0.4), [0.3, 0.1], rtol=1e-15)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "at least one source"),
        ({"a": -1.0}, "weight of 'a'"),
        ({"a": (1,)}, "weight of 'a'"),
        ({"a": (1, 2, 3), "b": (1, 2, 3, 4)}, "weight of 'a' has 3 points, another source 4"),
        ({"a": (1, 0, 1)}, "zero at the point 2 of 3"),
        ({"a": float("nan")}, "weight of 'a'"),
        ({"a": "1"}, "weight of 'a'"),
        ({"a": (0, 1), "b": 0}, "zero at the start"),
        ({"a": (1, 0)}, "zero at the end"),
    ],
)
def test_bad_weights_are_named(weights: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mixture(weights)
