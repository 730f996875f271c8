"""Adaptive Hybrid Masking for the stock `Trainer` and any Hugging Face masked-LM model.

The stock loop asks `get_batch_samples` for a step's micro-batches and counts their labels there, so that is where the
mode is picked; a callback never sees inputs, and a collator in a worker never sees the loss.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sized
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rexbert_hf.masking.adaptive import FALLBACK
from rexbert_hf.training.adaptive import STATE_KEY, AdaptiveMode, inputs_of
from rexbert_hf.training.adaptive_settings import AdaptiveSettings

if TYPE_CHECKING:
    from transformers import Trainer as _Trainer
else:
    _Trainer = object

logger = logging.getLogger(__name__)


class AdaptiveMaskingMixin(_Trainer):
    """Put it before `Trainer` in a class's bases, with `AdaptiveHybridMaskingCollator` as the data collator.

    One mode is chosen a step, for all micro-batches and ranks, by the loss of the steps before; alpha, both fitting
    indexes, both losses, the share of word steps and the texts without phrases are logged with the training loss. The
    state is in `trainer_state.json` of every checkpoint. Evaluation takes the word mode.

    Args:
        *args: of the trainer.
        adaptive: settings; T1 in steps or epochs. None for the paper's.
        **kwargs: of the trainer. Its arguments need `remove_unused_columns=False`, because the collator reads
            `word_ids` and spans, which no model takes.

    Raises:
        ValueError: if `remove_unused_columns` is on, or a setting needs `CurriculumTrainer`.

    Example:
        >>> from transformers import Trainer
        >>> class AdaptiveTrainer(AdaptiveMaskingMixin, Trainer):
        ...     pass
    """

    def __init__(self, *args: Any, adaptive: AdaptiveSettings | None = None, **kwargs: Any) -> None:
        self.adaptive_settings = adaptive if adaptive is not None else AdaptiveSettings()
        self.adaptive: AdaptiveMode | None = None
        self._adaptive_sums: torch.Tensor | None = None
        self._adaptive_fallbacks = 0
        super().__init__(*args, **kwargs)
        if self.args.remove_unused_columns:
            raise ValueError("set remove_unused_columns=False: the adaptive collator reads 'word_ids' and spans")
        if self.adaptive_settings.mode == "weighted":
            raise ValueError("mode 'weighted' runs both modes at a step, which needs CurriculumTrainer: use 'sampled'")
        if self.adaptive_settings.initial_tokens is not None:
            raise ValueError("the stock Trainer does not count tokens: give T1 as initial_steps or initial_epochs")
        self.add_callback(_AdaptiveCallback(self))

    def start_adaptive(self, steps_per_epoch: float) -> None:
        """Start the switch, or go on with that of the checkpoint; the callback calls it when training begins.

        Args:
            steps_per_epoch: global steps of an epoch.
        """
        settings = self.adaptive_settings
        initial = settings.initial_steps
        if initial is None:
            initial = math.ceil((settings.initial_epochs or 0.0) * steps_per_epoch)
        self.adaptive = AdaptiveMode(settings.switch(initial), self.args.seed)
        states = self.state.stateful_callbacks
        saved = states.get(STATE_KEY) if isinstance(states, dict) else None
        if saved is not None and self.state.global_step:
            self.adaptive.switch.load_state_dict(saved["switch"])
        elif self.state.global_step:
            logger.warning(
                "the checkpoint of step %d has no state of adaptive masking: its initial stage starts again",
                self.state.global_step,
            )

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """Fetch a step's micro-batches in one mode, and count their labels.

        Args:
            epoch_iterator: of the loader.
            num_batches: micro-batches of the step.
            device: where the count goes.
        """
        assert self.adaptive is not None
        self.adaptive.begin_step(self.state.global_step)
        self._adaptive_sums, self._adaptive_fallbacks = None, 0
        return super().get_batch_samples(map(self._pick, epoch_iterator), num_batches, device)

    def _pick(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        assert self.adaptive is not None
        if FALLBACK in batch:
            self._adaptive_fallbacks += int(batch[FALLBACK].sum())
        return self.adaptive.pick(batch)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """The trainer's own step; its loss is added to that of the global step."""
        loss = super().training_step(model, inputs, *args, **kwargs)
        self._adaptive_sums = loss if self._adaptive_sums is None else self._adaptive_sums + loss
        return loss

    def end_adaptive_step(self) -> None:
        """Give the step's loss, the mean over ranks, to the switch; the callback calls it after each step."""
        assert self.adaptive is not None
        assert self._adaptive_sums is not None
        mine = torch.tensor([[float(self._adaptive_sums), self._adaptive_fallbacks]], device=self.args.device)
        everywhere = self.accelerator.gather(mine)
        (mode,) = self.adaptive.modes
        self.adaptive.end_step(
            {mode: float(everywhere[:, 0].double().mean())}, {"texts_without_phrases": int(everywhere[:, 1].sum())}
        )
        states = self.state.stateful_callbacks
        assert isinstance(states, dict)
        states[STATE_KEY] = {"switch": self.adaptive.switch.state_dict()}

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Evaluate in word mode."""
        inputs = inputs_of({key: value for key, value in inputs.items() if key != FALLBACK}, "word")
        return super().prediction_step(model, inputs, *args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log a record; one of the training loss gets the figures of adaptive masking."""
        if "loss" in logs and self.adaptive is not None:
            logs |= self.adaptive.drain()
        super().log(logs, *args, **kwargs)


class _AdaptiveCallback(TrainerCallback):
    """Tells the mixin when training begins and when a step is over."""

    def __init__(self, trainer: AdaptiveMaskingMixin) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start or restore the switch."""
        loader = kwargs.get("train_dataloader")
        batches = len(loader) if isinstance(loader, Sized) else 0
        if not batches and self.trainer.adaptive_settings.initial_epochs is not None:
            raise ValueError("the data has no length, so an epoch is no number of steps: set initial_steps")
        self.trainer.start_adaptive(math.ceil(batches / args.gradient_accumulation_steps))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Update the switch, before a checkpoint is written."""
        self.trainer.end_adaptive_step()
