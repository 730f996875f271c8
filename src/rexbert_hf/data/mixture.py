"""Shares of sources that move over a phase, with a closed-form integral.

The integral is what makes the order seekable: how many tokens of a source came before any point of a phase is one
formula, so nothing has to be replayed (the anneal phase of the RexBERT curriculum slides from general to domain text).
Weights are lines between points that lie evenly over the phase; two points are the usual [start, end], and a curve,
such as the shares of languages while their temperature falls, is as many as it needs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

Weight = float | Sequence[float]

_SERIES_BELOW = 1e-4
"""Relative change of the total weight under which the logarithm is replaced by its series (it cancels there)."""


class Mixture:
    """Weights of named sources over a phase: a number, a pair (start, end) joined by a line, or points joined by lines.

    At every point the weights are divided by their sum, so they are shares of tokens, not of documents.

    Example:
        >>> mixture = Mixture({"general": (1.0, 0.0), "shop": (0.0, 1.0)})
        >>> mixture.shares(0.25).tolist(), mixture.integral(1.0).tolist()
        ([0.75, 0.25], [0.5, 0.5])
        >>> Mixture({"general": (1.0, 0.0, 0.0), "shop": (0.0, 1.0)}).shares(0.5).tolist()
        [0.0, 1.0]
    """

    def __init__(self, weights: Mapping[str, Weight]) -> None:
        """Check and keep the weights.

        Raises:
            ValueError: if there is no source, a weight is negative, not finite or neither a number nor two or more of
                them, two sources have different numbers of points (more than two), or all weights are zero at a point.
        """
        if not weights:
            raise ValueError("a mixture needs at least one source; got none")
        self.names = tuple(weights)
        points = {name: _points(name, weight) for name, weight in weights.items()}
        count = max(map(len, points.values()))
        self.points = np.array([_spread(name, found, count) for name, found in points.items()]).T
        """Weights at each point, float64 `[P, S]`."""
        totals = self.points.sum(axis=1)
        for number in np.flatnonzero(totals <= 0):
            place = {0: "start", count - 1: "end"}.get(int(number), f"point {number + 1} of {count}")
            raise ValueError(f"all weights of the mixture {list(self.names)} are zero at the {place} of the phase")
        pieces = [_integral(low, high, 1.0) for low, high in zip(self.points, self.points[1:], strict=False)]
        self._before = np.cumsum([np.zeros(len(self.names)), *pieces], axis=0) / (count - 1)

    @property
    def start(self) -> np.ndarray:
        """Weights at the start, float64 `[S]`."""
        return self.points[0]

    @property
    def end(self) -> np.ndarray:
        """Weights at the end, float64 `[S]`."""
        return self.points[-1]

    def _piece(self, t: float) -> tuple[int, float]:
        """The line that point `t` lies on, and how far along it."""
        lines = len(self.points) - 1
        along = min(max(float(t), 0.0), 1.0) * lines
        number = min(int(along), lines - 1)
        return number, along - number

    def shares(self, t: float) -> np.ndarray:
        """Share of each source at point `t` in [0, 1], float64 `[S]`, summing to 1."""
        number, along = self._piece(t)
        weights = self.points[number] + (self.points[number + 1] - self.points[number]) * along
        return weights / weights.sum()

    def integral(self, t: float) -> np.ndarray:
        """Integral of the shares from 0 to `t`, float64 `[S]`, summing to `t`.

        Times the tokens of the phase, it is the number of tokens that each source has given up to `t`.
        """
        number, along = self._piece(t)
        inside = _integral(self.points[number], self.points[number + 1], along)
        return self._before[number] + inside / (len(self.points) - 1)

    def __repr__(self) -> str:
        parts = (f"{n}: {a:g} to {b:g}" for n, a, b in zip(self.names, self.start, self.end, strict=True))
        return f"Mixture({', '.join(parts)})"


def _integral(start: np.ndarray, end: np.ndarray, t: float) -> np.ndarray:
    """Integral of the shares from 0 to `t` where weights go along lines from `start` at 0 to `end` at 1."""
    slope = end - start
    total, drift = start.sum(), slope.sum()
    change = drift * t / total
    if abs(change) < _SERIES_BELOW:
        # Integral of (a + b x) / (A + B x) by the powers of u = B t / A; the next term is below 1e-12.
        first = 1 - change / 2 + change**2 / 3
        second = 0.5 - change / 3 + change**2 / 4
        return (start * t * first + slope * t**2 * second) / total
    return slope / drift * t + (start - slope * total / drift) / drift * math.log1p(change)


def _points(name: str, weight: Weight) -> list[float]:
    found = [weight, weight] if isinstance(weight, int | float) else list(weight)
    if len(found) < 2 or not all(isinstance(w, int | float) and math.isfinite(w) and w >= 0 for w in found):
        raise ValueError(f"weight of '{name}' must be a number >= 0 or a pair (start, end) of such; got {weight!r}")
    return [float(w) for w in found]


def _spread(name: str, points: list[float], count: int) -> list[float]:
    """A line from start to end as so many points; other numbers of points must be equal."""
    if len(points) == count:
        return points
    if len(points) > 2:
        raise ValueError(f"weight of '{name}' has {len(points)} points, another source {count}: give all as many")
    return np.linspace(points[0], points[1], count).tolist()
