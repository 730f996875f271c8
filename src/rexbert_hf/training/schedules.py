"""Learning-rate schedules as pure functions of tokens; no state, so a resumed run cannot disagree with itself.

A schedule is evaluated at the middle of a step's tokens: the first step of a warm-up then has a rate above zero and
the last step of a decay to zero still moves the weights. The 1-sqrt decay is the one of Ettin and ModernBERT
(Ettin: phase 2 to half of the peak, phase 3 to 4 % of it).
"""

from __future__ import annotations

import math
from collections.abc import Callable


def constant(progress: float, alpha_f: float = 1.0) -> float:
    """Stay at 1 whatever the progress.

    Example:
        >>> constant(0.7)
        1.0
    """
    return 1.0


def linear(progress: float, alpha_f: float = 0.0) -> float:
    """Fall in a straight line from 1 to `alpha_f`.

    Example:
        >>> linear(0.25, alpha_f=0.2)
        0.8
    """
    return alpha_f + (1 - alpha_f) * (1 - progress)


def cosine(progress: float, alpha_f: float = 0.0) -> float:
    """Fall along half a cosine from 1 to `alpha_f`.

    Example:
        >>> round(cosine(0.5, alpha_f=0.1), 6)
        0.55
    """
    return alpha_f + (1 - alpha_f) * 0.5 * (1 + math.cos(math.pi * progress))


def one_minus_sqrt(progress: float, alpha_f: float = 0.0) -> float:
    """Fall as `1 - sqrt(progress)` from 1 to `alpha_f`.

    Example:
        >>> one_minus_sqrt(0.25, alpha_f=0.5)
        0.75
    """
    return alpha_f + (1 - alpha_f) * (1 - math.sqrt(progress))


DECAYS: dict[str, Callable[[float, float], float]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "one_minus_sqrt": one_minus_sqrt,
}
"""Shapes of a decay by name: `(progress in [0, 1], alpha_f) -> factor`."""

SCHEDULES = ("warmup_stable_decay", *DECAYS)
"""Names that `schedule_factor` knows."""


def warmup_stable_decay(
    t: float, total: float, warmup: float = 0.0, decay: float = 0.0, alpha_f: float = 0.0, shape: str = "linear"
) -> float:
    """Rise linearly over `warmup`, stay at 1, fall over the last `decay` to `alpha_f`.

    Args:
        t: tokens since the start of the phase, in [0, total].
        total: tokens of the phase.
        warmup: tokens of the rise; 0 starts at 1.
        decay: tokens of the fall; 0 stays flat to the end (Ettin's phase 1).
        alpha_f: factor at the end of the fall.
        shape: a name of `DECAYS`.

    Example:
        >>> [warmup_stable_decay(t, 100, warmup=10, decay=20) for t in (5, 50, 90, 100)]
        [0.5, 1.0, 0.5, 0.0]
    """
    if t < warmup:
        return t / warmup
    if decay <= 0 or t <= total - decay:
        return 1.0
    return DECAYS[shape](min(1.0, (t - (total - decay)) / decay), alpha_f)


def schedule_factor(
    name: str, t: float, total: float, warmup: float = 0.0, decay: float = 0.0, alpha_f: float = 0.0
) -> float:
    """Factor on the phase's learning rate after `t` of `total` tokens.

    `warmup_stable_decay` falls over `decay` tokens (linearly); every other name falls over all that the warm-up left.

    Args:
        name: one of `SCHEDULES`.
        t: tokens since the start of the phase.
        total: tokens of the phase.
        warmup: tokens of linear warm-up.
        decay: tokens of the final fall, for `warmup_stable_decay` only.
        alpha_f: factor at the end.

    Raises:
        ValueError: if the name is unknown.

    Example:
        >>> schedule_factor("one_minus_sqrt", 25, 100, alpha_f=0.5)
        0.75
        >>> schedule_factor("cosine", 5, 100, warmup=10)
        0.5
    """
    if name == "warmup_stable_decay":
        return warmup_stable_decay(t, total, warmup, decay, alpha_f)
    if name not in DECAYS:
        raise ValueError(f"unknown schedule '{name}': use one of {', '.join(SCHEDULES)}")
    return warmup_stable_decay(t, total, warmup, total - warmup, alpha_f, shape=name)
