"""Which masking mode the next step takes: equations 2-5 of the E-BERT paper, as a small state machine.

The paper's indexes slip in equation 4 and its quotients may divide by nothing; the readings taken here are in
`AdaptiveSwitch`. What matters in practice is noise. The rule looks at the sign and size of one step's change, and the
loss of a batch varies more than it falls in a step: fed with such losses as they are, alpha is near 0 or 1 for half of
the steps and .76 = tanh(1) on average, whatever the modes learn. Simulated (`tests/masking/test_switch.py`: losses that
fall from 6 to 2 and from 7 to 3, words four times as fast, deviation .1), mean alpha in the quarters of 9,000 steps:

    losses without noise       .42 .34 .25 .19
    ema 0, the paper           .75 .76 .76 .77
    ema .9                     .75 .74 .75 .75
    ema .99                    .66 .60 .64 .66
    ema .99, slope_ema .99     .44 .38 .27 .20    (with alpha_min .05 and alpha_max .95)

`ema` alone changes little, because the change of a moving average has the sign of (new loss - average), which is as
random as the loss. `slope_ema` averages the changes too, and then they show progress. A smoothed index stays at zero,
or above it, for long, and without bounds a mode was absent for 944 steps; with them for 101 (65 with the paper's).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MODES = ("word", "phrase")
"""The masking modes."""
EPS = 1e-8
"""Keeps gamma finite and puts alpha at tanh(1) where neither mode makes progress."""


@dataclass
class ModeProgress:
    """What the switch knows of one mode.

    Attributes:
        first: its first loss, L1; None before it ran.
        last: its last loss, smoothed.
        slope: its reductions, smoothed from zero on.
        reductions: how many they are.
        eta: its fitting index.
    """

    first: float | None = None
    last: float = 0.0
    slope: float = 0.0
    reductions: int = 0
    eta: float = 0.0

    def observe(self, loss: float, ema: float, slope_ema: float) -> None:
        """Take in a loss of this mode."""
        if self.first is None:
            self.first = self.last = loss
            return
        smooth = ema * self.last + (1 - ema) * loss
        self.slope = slope_ema * self.slope + (1 - slope_ema) * (self.last - smooth)
        self.last = smooth
        self.reductions += 1
        # The average began at zero, which would make the mode that ran less look more fitted.
        slope = self.slope / (1 - slope_ema**self.reductions)
        total = self.first - smooth
        self.eta = max(slope, 0.0) / total if total > 0 else 0.0


@dataclass
class AdaptiveSwitch:
    """Turn the losses of the two modes into the probability of word mode at the next step.

    A mode's fitting index eta is its last loss reduction over its total one (equations 2 and 3), recomputed when the
    mode ran and kept otherwise; where the total reduction is not positive, eta is 0. Then gamma = (eta_w + eps) /
    (eta_p + eps) with eps = 1e-8, and alpha = tanh(gamma) (equations 4 and 5), cut to `alpha_min` ... `alpha_max`.
    After update number t, `alpha` is that of step t + 1, which is `alpha_0` while t + 1 <= `initial_steps`, and before
    the first update.

    Args:
        alpha_0: probability of word mode in the initial stage; the paper says above .5.
        initial_steps: T1, the length of that stage.
        ema: weight of the past when losses are smoothed; 0 takes them as they are.
        slope_ema: weight of the past when their reductions are smoothed (a weighted mean, also while they are few); 0
            takes the last one, as the paper.
        alpha_min: lowest alpha after the initial stage.
        alpha_max: highest.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> switch = AdaptiveSwitch(alpha_0=0.8, initial_steps=2)
        >>> for mode, loss in [("word", 4.0), ("phrase", 6.0), ("word", 3.5), ("phrase", 4.0), ("word", 3.0)]:
        ...     switch.update(mode, loss)
        >>> switch.eta_word, switch.eta_phrase, round(switch.alpha, 4)
        (0.5, 1.0, 0.4621)
    """

    alpha_0: float
    initial_steps: int
    ema: float = 0.0
    slope_ema: float = 0.0
    alpha_min: float = 0.0
    alpha_max: float = 1.0
    steps: int = field(default=0, init=False)
    progress: dict[str, ModeProgress] = field(
        default_factory=lambda: {mode: ModeProgress() for mode in MODES}, init=False, repr=False
    )

    def __post_init__(self) -> None:
        if not 0 <= self.alpha_0 <= 1:
            raise ValueError(f"alpha_0 is a probability; got {self.alpha_0}")
        if self.initial_steps < 0:
            raise ValueError(f"initial_steps must not be negative; got {self.initial_steps}")
        for name in ("ema", "slope_ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1); got {getattr(self, name)}")
        if not 0 <= self.alpha_min <= self.alpha_max <= 1:
            raise ValueError(f"0 <= alpha_min <= alpha_max <= 1 must hold; got {self.alpha_min} and {self.alpha_max}")

    @property
    def eta_word(self) -> float:
        """Fitting index of word mode; the larger, the more there still is to learn."""
        return self.progress["word"].eta

    @property
    def eta_phrase(self) -> float:
        """Fitting index of phrase mode."""
        return self.progress["phrase"].eta

    @property
    def alpha(self) -> float:
        """Probability of word mode at the next step."""
        if not self.steps or self.steps < self.initial_steps:
            return self.alpha_0
        gamma = (self.eta_word + EPS) / (self.eta_phrase + EPS)
        return min(max(math.tanh(gamma), self.alpha_min), self.alpha_max)

    def update(self, mode: str, loss: float) -> None:
        """Take in the loss of a step.

        Args:
            mode: "word" or "phrase", the mode of the step.
            loss: of the whole step.

        Raises:
            ValueError: for another mode, or a loss that is not finite.
        """
        self.update_all({mode: loss})

    def update_all(self, losses: Mapping[str, float]) -> None:
        """Take in the losses of a step that ran both modes, as equation 7 does; it counts as one step.

        Args:
            losses: by mode.

        Raises:
            ValueError: for another mode, or a loss that is not finite.
        """
        for mode, loss in losses.items():
            if mode not in self.progress:
                raise ValueError(f"unknown masking mode '{mode}': use one of {', '.join(MODES)}")
            if not math.isfinite(loss):
                raise ValueError(f"the loss of a step in {mode} mode is {loss}: the switch needs finite losses")
        for mode, loss in losses.items():
            self.progress[mode].observe(float(loss), self.ema, self.slope_ema)
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """What decides all later values of alpha, beside the arguments; JSON keeps it bit for bit."""
        return {"steps": self.steps, "progress": {mode: vars(value).copy() for mode, value in self.progress.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`.

        Example:
            >>> switch, other = AdaptiveSwitch(0.8, 0), AdaptiveSwitch(0.8, 0)
            >>> switch.update("word", 2.0)
            >>> other.load_state_dict(switch.state_dict())
            >>> other == switch
            True
        """
        self.steps = int(state["steps"])
        self.progress = {mode: ModeProgress(**state["progress"][mode]) for mode in MODES}
