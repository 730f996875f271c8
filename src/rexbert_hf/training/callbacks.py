"""Callbacks of `CurriculumTrainer`: what happens around a step, and the progress line."""

from __future__ import annotations

import re
import sys
from typing import Any, Protocol

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rexbert_hf.training.plan import Plan


class Steps(Protocol):
    """What the callbacks ask of their trainer."""

    plan: Plan

    def check_finite(self) -> None:
        """Raise if the loss or a gradient of the step is not finite."""

    def finish_step(self, control: TrainerControl) -> None:
        """Close a step: time, phase border, signal."""


class CurriculumCallback(TrainerCallback):
    """Check each step's loss, end phases with a checkpoint and an evaluation, stop on a signal."""

    def __init__(self, trainer: Steps) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log, evaluate and save as often as the arguments say, which a checkpoint's own numbers would replace."""
        state.compute_steps(args, state.max_steps)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop before the weights change if the loss or a gradient is not finite."""
        self.trainer.check_finite()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Close the step: time, phase border, signal."""
        self.trainer.finish_step(control)


def progress_line(logs: dict[str, Any], phase: str) -> str:
    """One readable line of a log record.

    Example:
        >>> progress_line({"loss": 3.21, "tokens_per_second": 12345.6, "mfu": 0.412, "fill": 0.994}, "general")
        'general | loss 3.2100 | 12.3k tok/s | MFU 41.2% | fill 99.4%'
    """
    parts = [phase]
    if "loss" in logs:
        parts.append(f"loss {logs['loss']:.4f}")
    if "tokens_per_second" in logs:
        parts.append(f"{logs['tokens_per_second'] / 1000:.1f}k tok/s")
    for key, name in (("mfu", "MFU"), ("fill", "fill"), ("masked_accuracy", "accuracy")):
        if key in logs:
            parts.append(f"{name} {100 * logs[key]:.1f}%")
    if "loss_npr" in logs:
        parts.append(f"mlm {logs['loss_mlm']:.4f} npr {logs['loss_npr']:.4f}")
    if "alpha" in logs:
        parts.append(f"alpha {logs['alpha']:.2f}")
    return " | ".join(parts)


class ProgressLine(TrainerCallback):
    """A bar with the figures of the last log record; without a terminal, one line a record on stderr."""

    def __init__(self, trainer: Steps) -> None:
        self.trainer = trainer
        self.bar: tqdm | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar at the step that training begins or resumes with."""
        if state.is_world_process_zero:
            self.bar = tqdm(
                total=state.max_steps, initial=state.global_step, dynamic_ncols=True, disable=None, unit="step"
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Advance."""
        if self.bar is not None:
            self.bar.update(1)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the record."""
        if self.bar is None or not logs:
            return
        phase = self.trainer.plan.phase_at(max(0, state.global_step - 1)).name
        if "loss" in logs:
            line = progress_line(logs, phase)
            if self.bar.disable:
                tqdm.write(f"step {state.global_step}/{state.max_steps} {line}", file=sys.stderr)
            else:
                self.bar.set_postfix_str(line)
        for name in [key.removesuffix("_loss") for key in logs if re.fullmatch(r"eval(_.+)?_loss", key)]:
            if f"{name}_accuracy" not in logs:
                continue
            source = name.removeprefix("eval").lstrip("_")
            tqdm.write(
                f"step {state.global_step}/{state.max_steps} held-out{source and ' '}{source}: loss"
                f" {logs[f'{name}_loss']:.4f}, masked accuracy {100 * logs[f'{name}_accuracy']:.2f}%",
                file=sys.stderr,
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
