"""When a loss is a spike: more than so many times the running median of the losses of its phase.

The median is over a window of the last steps, so a slow rise is none, and one outlier does not move the measure. Each
phase starts anew: another mixture or masking has another loss.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any


class SpikeWatch:
    """The last losses of a phase.

    Args:
        factor: a loss above `factor` times their median is a spike.
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

    def __init__(self, factor: float, window: int = 50) -> None:
        if not factor > 1:
            raise ValueError(f"spike_factor must be above 1 (a multiple of the median loss); got {factor}")
        if window < 5:
            raise ValueError(f"spike_window must be at least 5 steps; got {window}")
        self.factor = factor
        self.losses: deque[float] = deque(maxlen=window)
        self.least = max(5, window // 5)
        self.phase = -1

    def enter(self, phase: int) -> None:
        """Forget the losses of another phase.

        Args:
            phase: index of the phase that the next loss belongs to.
        """
        if phase != self.phase:
            self.losses.clear()
            self.phase = phase

    def median_exceeded(self, loss: float) -> float | None:
        """The median that a loss exceeds `factor` times; None if it is no spike.

        Args:
            loss: of the step to judge.
        """
        if len(self.losses) < self.least:
            return None
        median = statistics.median(self.losses)
        return median if loss > self.factor * median else None

    def add(self, loss: float) -> None:
        """Take a step's loss into the window."""
        self.losses.append(loss)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"phase": self.phase, "losses": list(self.losses)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what a checkpoint kept.

        Args:
            state: of `state_dict`.
        """
        self.phase = int(state["phase"])
        self.losses.clear()
        self.losses.extend(float(loss) for loss in state["losses"])
