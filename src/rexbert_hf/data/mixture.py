"""Shares of sources that move linearly over a phase, with a closed-form integral.

The integral is what makes the order seekable: how many tokens of a source came before any point of a phase is one
formula, so nothing has to be replayed (the anneal phase of the RexBERT curriculum slides from general to domain text).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

Weight = float | tuple[float, float] | list[float]

_SERIES_BELOW = 1e-4
"""Relative change of the total weight under which the logarithm is replaced by its series (it cancels there)."""


class Mixture:
    """Weights of named sources over a phase, each a number or a pair (start, end) joined by a line.

    At every point the weights are divided by their sum, so they are shares of tokens, not of documents.

    Example:
        >>> mixture = Mixture({"general": (1.0, 0.0), "shop": (0.0, 1.0)})
        >>> mixture.shares(0.25).tolist(), mixture.integral(1.0).tolist()
        ([0.75, 0.25], [0.5, 0.5])
    """

    def __init__(self, weights: Mapping[str, Weight]) -> None:
        """Check and keep the weights.

        Raises:
            ValueError: if there is no source, a weight is negative, not finite or not one or two numbers, or all
                weights are zero at the start or the end.
        """
        if not weights:
            raise ValueError("a mixture needs at least one source; got none")
        self.names = tuple(weights)
        ends = [_two(name, weight) for name, weight in weights.items()]
        self.start = np.array([start for start, _ in ends])
        self.end = np.array([end for _, end in ends])
        for place, values in (("start", self.start), ("end", self.end)):
            if values.sum() <= 0:
                raise ValueError(f"all weights of the mixture {list(self.names)} are zero at the {place} of the phase")

    def shares(self, t: float) -> np.ndarray:
        """Share of each source at point `t` in [0, 1], float64 `[S]`, summing to 1."""
        weights = self.start + (self.end - self.start) * t
        return weights / weights.sum()

    def integral(self, t: float) -> np.ndarray:
        """Integral of the shares from 0 to `t`, float64 `[S]`, summing to `t`.

        Times the tokens of the phase, it is the number of tokens that each source has given up to `t`.
        """
        t = min(max(float(t), 0.0), 1.0)
        slope = self.end - self.start
        total, drift = self.start.sum(), slope.sum()
        change = drift * t / total
        if abs(change) < _SERIES_BELOW:
            # Integral of (a + b x) / (A + B x) by the powers of u = B t / A; the next term is below 1e-12.
            first = 1 - change / 2 + change**2 / 3
            second = 0.5 - change / 3 + change**2 / 4
            return (self.start * t * first + slope * t**2 * second) / total
        return slope / drift * t + (self.start - slope * total / drift) / drift * math.log1p(change)

    def __repr__(self) -> str:
        parts = (f"{n}: {a:g} to {b:g}" for n, a, b in zip(self.names, self.start, self.end, strict=True))
        return f"Mixture({', '.join(parts)})"


def _two(name: str, weight: Weight) -> tuple[float, float]:
    pair = (weight, weight) if isinstance(weight, int | float) else tuple(weight)
    if len(pair) != 2 or not all(isinstance(w, int | float) and math.isfinite(w) and w >= 0 for w in pair):
        raise ValueError(f"weight of '{name}' must be a number >= 0 or a pair (start, end) of such; got {weight!r}")
    return float(pair[0]), float(pair[1])
