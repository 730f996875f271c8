"""Batch size that grows linearly with the tokens seen, in closed form of the step.

With the batch b(t) = B (f + (1 - f) t / W) after t tokens, dt/ds = b(t) gives t(s) = W f / (1 - f) (exp(k s) - 1),
k = B (1 - f) / W, until t = W; after that the batch is B. So the tokens before any step need no loop over steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class BatchWarmup:
    """Token places per step: `start * batch_tokens` at first, `batch_tokens` once `warmup_tokens` are through.

    Example:
        >>> warmup = BatchWarmup(batch_tokens=1000, warmup_tokens=10_000, start=0.5)
        >>> [round(warmup.slots_before(s + 1) - warmup.slots_before(s)) for s in (0, 5, 12, 50)]
        [513, 658, 934, 1000]
    """

    batch_tokens: int
    warmup_tokens: float = 0
    start: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.start <= 1:
            raise ValueError(f"batch_warmup_start is a share of the batch, above 0 and at most 1; got {self.start}")
        if self.warmup_tokens < 0:
            raise ValueError(f"batch_warmup_tokens must be >= 0; got {self.warmup_tokens}")

    @property
    def _rate(self) -> float:
        return self.batch_tokens * (1 - self.start) / self.warmup_tokens if self.warmup_tokens else 0.0

    @property
    def steps(self) -> float:
        """Length of the warm-up in (fractional) steps."""
        return -math.log(self.start) / self._rate if self._rate else 0.0

    def slots_before(self, step: float) -> float:
        """Token places of all steps before `step`, which may be fractional."""
        if step >= self.steps:
            return (self.warmup_tokens if self._rate else 0.0) + self.batch_tokens * (step - self.steps)
        return self.warmup_tokens * self.start / (1 - self.start) * math.expm1(self._rate * step)

    def step_at(self, slots: float) -> float:
        """The (fractional) step before which `slots` token places lie: the inverse of `slots_before`."""
        if not self._rate:
            return slots / self.batch_tokens
        if slots >= self.warmup_tokens:
            return self.steps + (slots - self.warmup_tokens) / self.batch_tokens
        return math.log1p(slots * (1 - self.start) / (self.start * self.warmup_tokens)) / self._rate

    def slots_of(self, step: int) -> int:
        """Token places of one step."""
        if step >= self.steps:
            return self.batch_tokens
        # The last step of the warm-up is partly past it; the small term undoes rounding below a whole number.
        return min(int(self.slots_before(step + 1) - self.slots_before(step) + 1e-6), self.batch_tokens)
