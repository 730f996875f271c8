"""Settings of Adaptive Hybrid Masking in a phase's `masking.options`: alpha_0, T1, smoothing, and which mode runs.

The options of `masking.kind: ahm` are these keys and the collator's own (`kinds`, `max_spread`, `per_span`, ...).
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rexbert_hf.masking import AdaptiveSwitch
from rexbert_hf.settings import from_dict

STEP_MODES = ("sampled", "weighted", "constant")
"""What `AdaptiveSettings.mode` may be."""
INITIAL = ("initial_steps", "initial_tokens", "initial_epochs")
"""The three ways to write T1."""


@dataclass
class AdaptiveSettings:
    """How the mode of each step is chosen.

    Attributes:
        mode: "sampled" draws one mode a step, word mode with probability alpha; "weighted" runs both and adds their
            losses with the weights alpha and 1 - alpha (equation 7 as written: the same expectation, twice the work);
            "constant" draws with `alpha_0` throughout.
        alpha_0: alpha of the initial stage; the paper gives no value, only that it is above .5.
        initial_steps: T1 in steps. At most one of the three is set; without any it is one epoch, as in the paper.
        initial_tokens: T1 in tokens of training.
        initial_epochs: T1 in passes over the phase's sources.
        ema: as in `AdaptiveSwitch`.
        slope_ema: as in `AdaptiveSwitch`.
        alpha_min: as in `AdaptiveSwitch`.
        alpha_max: as in `AdaptiveSwitch`.

    Example:
        >>> AdaptiveSettings(initial_steps=100).switch(100).alpha
        0.75
    """

    mode: str = "sampled"
    alpha_0: float = 0.75
    initial_steps: int | None = None
    initial_tokens: int | None = None
    initial_epochs: float | None = None
    ema: float = 0.0
    slope_ema: float = 0.0
    alpha_min: float = 0.0
    alpha_max: float = 1.0

    def __post_init__(self) -> None:
        if self.mode not in STEP_MODES:
            raise ValueError(f"unknown mode '{self.mode}': use one of {', '.join(STEP_MODES)}")
        given = [name for name in INITIAL if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"set at most one of {', '.join(INITIAL)}; got {' and '.join(given)}")
        if any(getattr(self, name) < 0 for name in given):
            raise ValueError(f"{given[0]} must not be negative; got {getattr(self, given[0])}")
        if not given:
            self.initial_epochs = 1.0
        self.switch(0)

    def switch(self, initial_steps: int) -> AdaptiveSwitch:
        """A new switch with T1 in steps; one that never leaves `alpha_0` in constant mode."""
        if self.mode == "constant":
            initial_steps = sys.maxsize
        return AdaptiveSwitch(self.alpha_0, initial_steps, self.ema, self.slope_ema, self.alpha_min, self.alpha_max)


_KEYS = {field.name for field in dataclasses.fields(AdaptiveSettings)}


def split_options(options: Mapping[str, Any]) -> tuple[AdaptiveSettings, dict[str, Any]]:
    """Part the options of a phase into the settings and those of the collator.

    Args:
        options: `masking.options` of a phase with `masking.kind: ahm`.

    Raises:
        ValueError: if a setting has a wrong type or value.

    Example:
        >>> settings, rest = split_options({"alpha_0": 0.8, "initial_tokens": "2M", "per_span": True})
        >>> settings.alpha_0, settings.initial_tokens, rest
        (0.8, 2000000, {'per_span': True})
    """
    settings = from_dict(AdaptiveSettings, {key: value for key, value in options.items() if key in _KEYS})
    return settings, {key: value for key, value in options.items() if key not in _KEYS}


def scaled_options(options: Mapping[str, Any], scale: float) -> dict[str, Any]:
    """The options with T1 multiplied, for a curriculum that is scaled as a whole.

    Example:
        >>> scaled_options({"alpha_0": 0.8}, 0.5)
        {'alpha_0': 0.8, 'initial_epochs': 0.5}
    """
    settings, _ = split_options(options)
    name = next(name for name in INITIAL if getattr(settings, name) is not None)
    value = getattr(settings, name) * scale
    return {**options, name: value if name == "initial_epochs" else round(value)}
