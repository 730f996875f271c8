"""When a loss is a spike: more than so many times the running median of the losses of its phase.

The median is over a window of the last steps, so a slow rise is none, and one outlier does not move the measure. Each
phase starts anew: another mixture or masking has another loss. So do steps of another kind: phrases masked whole are
several times as hard as words, and Adaptive Hybrid Masking takes them in turns. Where training text is nearly known by
heart the loss is close to zero and batches differ by multiples of it, so a spike is also at least `LEAST_RISE` above
the median.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any

SPIKE_FACTOR = 3.0
"""Default factor: an encoder whose loss is 2 would have to fall back to little more than the frequencies of tokens."""
LEAST_RISE = 1.0
"""Nats."""


class SpikeWatch:
    """The last losses of a phase, steps of each kind apart.

    Args:
        factor: a loss above `factor` times their median, and `LEAST_RISE` above it, is a spike.
        window: how many losses the median is over; none is judged before a fifth of them (at least 5) are known.

    Raises:
        ValueError: if the factor is not above 1 or the window below 5.

    Example:
        >>> watch = SpikeWatch(factor=3.0, window=10)
        >>> for loss in (2.0, 2.2, 1.8, 2.1, 1.9):
        ...     assert watch.median_exceeded(loss) is None
        ...     watch.add(loss)
        >>> watch.median_exceeded(5.9), watch.median_exceeded(6.1)
        (None, 2.0)
    """

    def __init__(self, factor: float = SPIKE_FACTOR, window: int = 50) -> None:
        if not factor > 1:
            raise ValueError(f"spike_factor must be above 1 (a multiple of the median loss); got {factor}")
        if window < 5:
            raise ValueError(f"spike_window must be at least 5 steps; got {window}")
        self.factor, self.window = factor, window
        self.least = max(5, window // 5)
        self.phase, self.kind = -1, ""
        self._losses: dict[str, deque[float]] = {}

    @property
    def losses(self) -> deque[float]:
        """The last ones of the phase and kind at hand."""
        return self._losses.setdefault(self.kind, deque(maxlen=self.window))

    def enter(self, phase: int, kind: str = "") -> None:
        """Say what the next loss is of; the losses of another phase are forgotten.

        Args:
            phase: its index.
            kind: of the step: "word", "phrase", ...
        """
        if phase != self.phase:
            self._losses.clear()
        self.phase, self.kind = phase, kind

    def median_exceeded(self, loss: float) -> float | None:
        """The median that a loss is a spike over; None if it is no spike.

        Args:
            loss: of the step to judge.
        """
        if len(self.losses) < self.least:
            return None
        median = statistics.median(self.losses)
        return median if loss > max(self.factor * median, median + LEAST_RISE) else None

    def add(self, loss: float) -> None:
        """Take a step's loss into the window."""
        self.losses.append(loss)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"phase": self.phase, "losses": {kind: list(losses) for kind, losses in self._losses.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what a checkpoint kept.

        Args:
            state: of `state_dict`.
        """
        self.phase = int(state["phase"])
        kept = state["losses"] if isinstance(state["losses"], Mapping) else {}  # earlier versions knew no kinds
        self._losses = {kind: deque(map(float, losses), self.window) for kind, losses in kept.items()}
