"""The part of the trainer that chooses the masking mode of each step (Adaptive Hybrid Masking, E-BERT).

The mode of a step is a function of (seed, step) and of alpha, and alpha of the losses of all steps before, so it is
taken here, once a step, the same on all ranks and for all micro-batches, when the batches are there and before their
labels are counted. How far loader workers run ahead does not matter. Each phase starts a switch of its own: the paper's
second stage trains on other data, where the first losses of the first stage mean nothing.

The state of the switch travels in `trainer_state.json`, with the step that it belongs to.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from rexbert_hf.masking.adaptive import FALLBACK, PHRASE_INPUTS
from rexbert_hf.masking.switch import AdaptiveSwitch
from rexbert_hf.training.adaptive_settings import AdaptiveSettings, split_options
from rexbert_hf.training.neighbors import NeighborTrainer
from rexbert_hf.training.plan import PhasePlan

logger = logging.getLogger(__name__)

STATE_KEY = "AdaptiveMasking"
"""Name of the switch's state among the callback states of `trainer_state.json`."""
_STREAM = 0xA4
_FORWARD_COUNTS = ("tokens", "slots", "global_pairs", "local_pairs")


def mode_draw(seed: int, step: int) -> float:
    """The number in [0, 1) that a step compares with alpha.

    Args:
        seed: of the run.
        step: global step, from 0.

    Example:
        >>> mode_draw(3, 7) == mode_draw(3, 7) != mode_draw(3, 8)
        True
    """
    words = np.random.SeedSequence([seed, step], spawn_key=(_STREAM,)).generate_state(1, np.uint64)
    return float(words[0] >> np.uint64(11)) / 2.0**53


class AdaptiveMode:
    """The switch of one phase, the mode of its current step, and what its log lines say.

    Args:
        switch: new, or restored by `load_state_dict`.
        seed: of the draws.
        both: run both modes at each step.

    Example:
        >>> mode = AdaptiveMode(AdaptiveSwitch(alpha_0=1.0, initial_steps=10), seed=0)
        >>> mode.begin_step(0)
        ('word',)
        >>> mode.end_step({"word": 2.5})
        >>> mode.drain()["loss_word"], mode.drain()
        (2.5, {})
    """

    def __init__(self, switch: AdaptiveSwitch, seed: int, both: bool = False) -> None:
        self.switch, self.seed, self.both = switch, seed, both
        self.modes: tuple[str, ...] = ("word",)
        self.alpha = switch.alpha
        self._window: Counter[str] = Counter()
        self._losses: Counter[str] = Counter()

    def begin_step(self, step: int) -> tuple[str, ...]:
        """Choose the modes of a global step.

        Args:
            step: counted from 0 over all phases.
        """
        self.alpha = self.switch.alpha
        if self.both:
            self.modes = ("word", "phrase")
        else:
            self.modes = ("word",) if mode_draw(self.seed, step) < self.alpha else ("phrase",)
        return self.modes

    def pick(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch of the step's mode, with the names that a model knows; of both modes when both run.

        Raises:
            ValueError: if the batch has no phrase selection.
        """
        missing = [name for name in PHRASE_INPUTS.values() if name not in batch]
        if missing:
            raise ValueError(f"the batch has no '{missing[0]}': mask it with AdaptiveHybridMaskingCollator")
        batch = {key: value for key, value in batch.items() if key != FALLBACK}
        return batch if self.both else inputs_of(batch, self.modes[0])

    def end_step(self, losses: Mapping[str, float], counts: Mapping[str, int] | None = None) -> None:
        """Take in the loss of the step, over all ranks, by mode.

        Args:
            losses: of the modes that ran.
            counts: what to add up over the steps that mask phrases.
        """
        self.switch.update_all(losses)
        for mode, loss in losses.items():
            self._window[mode] += 1
            self._losses[mode] += loss  # type: ignore[assignment]
        self._window["steps"] += 1
        if "phrase" in losses and counts:
            self._window.update(counts)

    def drain(self) -> dict[str, float]:
        """Figures for a log line since the last one, then start over; empty when no step passed."""
        window, losses = self._window, self._losses
        self._window, self._losses = Counter(), Counter()
        if not window["steps"]:
            return {}
        out = {
            "alpha": self.switch.alpha,
            "eta_w": self.switch.eta_word,
            "eta_p": self.switch.eta_phrase,
            "word_share": window["word"] / window["steps"],
        }
        out |= {f"loss_{mode}": losses[mode] / window[mode] for mode in ("word", "phrase") if window[mode]}
        return out | {name: count for name, count in window.items() if name not in ("word", "phrase", "steps")}


def inputs_of(batch: Mapping[str, Any], mode: str) -> dict[str, Any]:
    """A model's inputs for one mode, out of a batch with both.

    Example:
        >>> inputs_of({"input_ids": 1, "labels": 2, "phrase_input_ids": 3, "phrase_labels": 4}, "phrase")
        {'input_ids': 3, 'labels': 4}
    """
    out = {key: value for key, value in batch.items() if key not in PHRASE_INPUTS.values()}
    if mode == "phrase":
        out |= {key: batch[name] for key, name in PHRASE_INPUTS.items()}
    return out


def steps_of_initial_stage(settings: AdaptiveSettings, phase: PhasePlan) -> int:
    """T1 in steps of a phase.

    Args:
        settings: how T1 is written.
        phase: resolves tokens and epochs.
    """
    if settings.initial_steps is not None:
        return settings.initial_steps
    if settings.initial_tokens is not None:
        return phase.steps_for(settings.initial_tokens)
    assert settings.initial_epochs is not None
    return phase.steps_for(settings.initial_epochs * sum(phase.order.source_tokens.values()) / phase.row_share)


class AdaptiveTrainer(NeighborTrainer):
    """A `NeighborTrainer` whose phases may mask adaptively; the trainer proper calls these methods in turn."""

    adaptive: AdaptiveMode | None = None
    _mode_losses: dict[str, torch.Tensor]

    def enter_adaptive(self, phase: PhasePlan, step: int) -> None:
        """Start the switch of a phase, or go on with it after a resume.

        Args:
            phase: that the next step belongs to.
            step: the next global step.

        Raises:
            ValueError: if the checkpoint of a step within the phase does not hold the switch.
        """
        states = self.state.stateful_callbacks
        assert isinstance(states, dict)
        self.adaptive, self._mode_losses = None, {}
        if phase.phase.masking.kind != "ahm":
            states.pop(STATE_KEY, None)
            return
        settings, _ = split_options(phase.phase.masking.options)
        initial = steps_of_initial_stage(settings, phase)
        if initial >= phase.num_steps and settings.mode != "constant":
            logger.warning(
                "phase '%s': its initial stage takes all of its %d steps, so alpha stays at %s: shorten it with "
                "masking.options.initial_epochs, initial_tokens or initial_steps",
                phase.name,
                phase.num_steps,
                settings.alpha_0,
            )
        self.adaptive = AdaptiveMode(settings.switch(initial), self.plan.seed, both=settings.mode == "weighted")
        saved: Any = states.get(STATE_KEY)
        if saved is not None and saved["phase"] == phase.index:
            self.adaptive.switch.load_state_dict(saved["switch"])
        elif step != phase.first_step:
            raise ValueError(
                f"the checkpoint of step {step} has no state of adaptive masking in its trainer_state.json: resume "
                f"from one before step {phase.first_step + 1}"
            )

    def pick_adaptive(self, batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """A step's micro-batches in the mode of the step; as they are in other phases."""
        if self.adaptive is None:
            return batches
        self.adaptive.begin_step(self.state.global_step)
        self._mode_losses = {}
        return [self.adaptive.pick(batch) for batch in batches]

    def computed(self, stats: dict[str, int]) -> dict[str, int]:
        """Counts of a micro-batch as the model computes it, which is twice when both modes run."""
        if self.adaptive is None or not self.adaptive.both:
            return stats
        return {name: count * (2 if name in _FORWARD_COUNTS else 1) for name, count in stats.items()}

    def adaptive_loss(
        self, compute: Callable[..., tuple[torch.Tensor, torch.Tensor, Any]], model: nn.Module, inputs: dict[str, Any]
    ) -> tuple[torch.Tensor, Any]:
        """Loss of a micro-batch over the modes of the step, and the outputs of the last of them.

        Args:
            compute: `(model, inputs, mode) -> (loss, its masked-LM part, outputs)`.
            model: passed on.
            inputs: of one mode, or of both.
        """
        if self.adaptive is None:
            loss, _, outputs = compute(model, inputs, "word")
            return loss, outputs
        if not self.adaptive.both:
            (mode,) = self.adaptive.modes
            loss, masked, outputs = compute(model, inputs, "word")  # the picked labels stand in their usual place
            self._add_mode_loss(mode, masked)
            return loss, outputs
        shares = []
        for mode, weight in (("word", self.adaptive.alpha), ("phrase", 1 - self.adaptive.alpha)):
            self._later_mode = mode == "phrase"
            loss, masked, outputs = compute(model, inputs_of(inputs, mode), mode)
            self._add_mode_loss(mode, masked)
            shares.append(weight * loss)
        self._later_mode = False
        return torch.stack(shares).sum(), outputs

    def _add_mode_loss(self, mode: str, masked: torch.Tensor) -> None:
        masked = masked.detach()
        self._mode_losses[mode] = self._mode_losses[mode] + masked if mode in self._mode_losses else masked

    def close_adaptive(self, counts: Mapping[str, int]) -> None:
        """Give the step's loss over all ranks to the switch, and its state to the trainer's.

        Args:
            counts: of the step.
        """
        if self.adaptive is None:
            return
        modes = self.adaptive.modes
        sums = self.sum_over_ranks([float(self._mode_losses[mode]) for mode in modes])
        names = ("texts_without_phrases", "phrase_tokens_missing")
        self.adaptive.end_step(
            {mode: value / self.args.world_size for mode, value in zip(modes, sums, strict=True)},
            {name: counts[name] for name in names if name in counts},
        )
        states = self.state.stateful_callbacks
        assert isinstance(states, dict)
        phase = self.plan.phase_at(self.state.global_step - 1).index
        states[STATE_KEY] = {"phase": phase, "switch": self.adaptive.switch.state_dict()}
