"""Grids of hyper-parameters: a task's own, and what a user says over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Tuning:
    """A grid of hyper-parameters; where it has more than one cell, the best one on the dev split is taken.

    Args:
        learning_rates: peak rates to try.
        epochs: numbers of passes to try.
        batch_size: examples a step.

    Raises:
        ValueError: if nothing could be learnt with it.

    Example:
        >>> len(Tuning(learning_rates=(5e-6, 1e-5, 2e-5, 5e-5), epochs=(2, 3, 4, 5)).cells())
        16
    """

    learning_rates: tuple[float, ...] = (3e-5,)
    epochs: tuple[int, ...] = (3,)
    batch_size: int = 32

    def __post_init__(self) -> None:
        if not self.learning_rates or not self.epochs:
            raise ValueError("a tuning grid needs at least one learning rate and one number of epochs")
        check_grid(self.learning_rates, self.epochs, self.batch_size)

    def cells(self) -> list[tuple[float, int]]:
        """All pairs of learning rate and epochs."""
        return [(rate, epochs) for rate in self.learning_rates for epochs in self.epochs]

    def over(self, own: Tuning) -> Tuning:
        """As `TuningChanges.over`: all of it is said."""
        return self


@dataclass(frozen=True)
class TuningChanges:
    """What a user says of a grid; for the rest a task keeps its own.

    Args:
        learning_rates: peak rates; None for the task's own.
        epochs: numbers of passes; None for the task's own.
        batch_size: examples a step; None for the task's own.

    Raises:
        ValueError: if nothing could be learnt with it.

    Example:
        >>> TuningChanges(epochs=(5,)).over(Tuning((1e-4,), (3,), 16))
        Tuning(learning_rates=(0.0001,), epochs=(5,), batch_size=16)
    """

    learning_rates: tuple[float, ...] | None = None
    epochs: tuple[int, ...] | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check_grid(self.learning_rates or (), self.epochs or (), self.batch_size)

    def over(self, own: Tuning) -> Tuning:
        """The task's own grid with these changes.

        Args:
            own: of the task.
        """
        said = {name: value for name, value in vars(self).items() if value is not None}
        return replace(own, **said)


def check_grid(rates: Sequence[float], epochs: Sequence[int], batch_size: int | None) -> None:
    """Refuse what nothing could be learnt with.

    Args:
        rates: peak learning rates.
        epochs: numbers of passes.
        batch_size: examples a step; None says nothing.

    Raises:
        ValueError: for a rate that is not above 0, or less than one epoch or example.

    Example:
        >>> check_grid((3e-5,), (0,), 32)
        Traceback (most recent call last):
        ValueError: tuning has epochs 0: at least 1
    """
    for name, value in (*(("epochs", one) for one in epochs), ("batch_size", 1 if batch_size is None else batch_size)):
        if value < 1:
            raise ValueError(f"tuning has {name} {value}: at least 1")
    if bad := [rate for rate in rates if not 0.0 < rate < np.inf]:
        raise ValueError(f"tuning has learning_rates {bad[0]:g}: a rate is above 0")
