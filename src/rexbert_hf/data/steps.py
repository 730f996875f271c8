"""Steps of a phase: how many, and how many token slots each has, in closed form of the step.

A batch may grow linearly with the tokens seen: b(t) = B (f + (1 - f) t / W) after t tokens, so dt/ds = b(t) gives
t(s) = W f / (1 - f) (exp(k s) - 1) with k = B (1 - f) / W until t = W, and after that the batch is B. No loop over
steps is needed to know the tokens before any of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LOAD_TOLERANCE = 0.0005


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


@dataclass(frozen=True)
class StepPlan:
    """Steps of a phase that spend a budget exactly, all but the last two of them full.

    The last two share what is left, so that none is nearly empty. Their micro-batches hold a multiple of the sequence
    length, because full-length pieces leave no gap only in such a bin.

    Attributes:
        warmup: slots of the full steps.
        micro_batches: micro-batches of a step.
        seq_length: longest piece.
        num_steps: steps of the phase.
        full_steps: how many of them are as large as `warmup` says.
        slots: slots of all steps together.

    Example:
        >>> plan = StepPlan.fit(BatchWarmup(1000), micro_batches=2, seq_length=100, max_tokens=4500, load=1.0)
        >>> [plan.micro_capacity(step) for step in range(plan.num_steps)]
        [500, 500, 500, 400, 400]
    """

    warmup: BatchWarmup
    micro_batches: int
    seq_length: int
    num_steps: int
    full_steps: int
    slots: float

    @classmethod
    def fit(cls, warmup: BatchWarmup, micro_batches: int, seq_length: int, max_tokens: int, load: float) -> StepPlan:
        """Lay out as few steps as hold `max_tokens` when filled to `load`.

        A load higher by `LOAD_TOLERANCE` is preferred to a remainder: a budget of whole batches is whole steps.
        """
        steps = max(1, math.ceil(warmup.step_at(max_tokens / min(1.0, load + LOAD_TOLERANCE)) - 1e-9))
        slots = warmup.slots_before(steps)
        if slots * load <= max_tokens:
            return cls(warmup, micro_batches, seq_length, steps, steps, slots)
        return cls(warmup, micro_batches, seq_length, steps, max(0, steps - 2), max_tokens / load)

    def slots_before(self, step: float) -> float:
        """Slots of all steps before `step`, which may be fractional."""
        if step <= self.full_steps:
            return self.warmup.slots_before(step)
        first = self.warmup.slots_before(self.full_steps)
        return first + (self.slots - first) * (step - self.full_steps) / (self.num_steps - self.full_steps)

    def micro_capacity(self, step: int) -> int:
        """Slots of each micro-batch of a step."""
        if step < self.full_steps:
            return self.warmup.slots_of(step) // self.micro_batches
        share = (self.slots_before(self.num_steps) - self.slots_before(self.full_steps)) / (
            self.num_steps - self.full_steps
        )
        sequences = math.ceil(share / self.micro_batches / self.seq_length - 1e-9)
        return min(sequences * self.seq_length, self.warmup.batch_tokens // self.micro_batches)
