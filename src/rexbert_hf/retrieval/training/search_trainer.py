"""sentence-transformers' trainers with this package's optimizer, complete checkpoints, a clock, and mined negatives.

In place of the paper's LANS and batches of 8,192: StableAdamW, and a gradient cache where batches exceed memory.
A step's rows, dropout and negatives follow from (seed, step), so a run that was stopped goes on as if it had not been;
with `max_minutes` the schedule follows the clock, and then it does not.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from torch import nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState

from rexbert_hf.training import checkpoint as ckpt
from rexbert_hf.training.arguments import stay_on_one_gpu
from rexbert_hf.training.interruption import SIGNALS, StopSignal, TrainingInterrupted
from rexbert_hf.training.optimizer import StableAdamW, parameter_groups
from rexbert_hf.training.plan import fingerprint
from rexbert_hf.training.reproducing import NonFiniteLossError, seed_generators
from rexbert_hf.training.resumable import ResumableTrainer, as_json

logger = logging.getLogger(__name__)

BEST = "best"
"""Folder of the model with the best validation figure."""


class StepTrainer(ResumableTrainer):
    """Train over steps that a dataset gives by number, with any of sentence-transformers' trainers as the next base.

    Args:
        model: of the trainer's kind.
        args: with `max_steps`.
        steps: `steps[number]` is what `collator` turns into a batch; at least `max_steps` a process.
        collator: as `SearchCollator`.
        loss: a sentence-transformers loss.
        warmup: share of training.
        final: rate at the end, as a share of the peak.
        max_minutes: the end by the clock; None has none.
        description: what decides the weights; a folder is resumed only if it is equal.
        **options: of the stock trainer.
    """

    def __init__(
        self,
        model: Any,
        args: Any,
        steps: Any,
        collator: Any,
        loss: nn.Module,
        warmup: float = 0.05,
        final: float = 0.0,
        max_minutes: float | None = None,
        description: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        stay_on_one_gpu(args)  # losses that look up who answers whom need the whole batch
        self.steps, self.warmup, self.final = steps, warmup, final
        self.max_seconds = None if max_minutes is None else 60.0 * max_minutes
        self.seconds_before, self._started = 0.0, time.monotonic()
        self._agreed: tuple[float, int] | None = None
        self.step_ends: list[float] = []
        self.resumed_from_step: int | None = None
        self._extra_description = dict(description or {})
        self._stop = StopSignal()
        super().__init__(
            model=model,
            args=args,
            train_dataset=Dataset.from_dict({"step": list(range(args.max_steps))}),
            data_collator=collator,
            callbacks=[_Finite(), _Clock(self)],
            **{"loss": loss, **options},
        )

    @property
    def seconds(self) -> float:
        """Time of training so far, earlier sittings included."""
        return self.seconds_before + time.monotonic() - self._started

    @property
    def steps_per_second(self) -> float:
        """Median over the second half of the steps of this start, so without most validations; 0 before two steps."""
        taken = np.diff(self.step_ends)
        return float(1.0 / np.median(taken[len(taken) // 2 :])) if len(taken) else 0.0

    @property
    def agreed(self) -> tuple[float, int]:
        """Seconds of training and the signal that came (0: none), equal on all ranks.

        Each rank's own would let one stop while the others wait for it.
        """
        if self.args.world_size == 1:
            return self.seconds, self._stop.received
        return self._agreed or (self.seconds_before, 0)

    @property
    def progress(self) -> float:
        """Share of training that is done: by steps, or by the clock where that is further."""
        done = self.state.global_step / max(self.args.max_steps, 1)
        return min(1.0, max(done, self.agreed[0] / self.max_seconds) if self.max_seconds else done)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Do nothing: the run's own card is written at the end."""

    def description(self) -> dict[str, Any]:
        """What decides the weights."""
        return as_json(self._extra_description)

    def get_train_dataloader(self) -> DataLoader:
        """Steps in their order; rank r of W takes every W-th."""
        loader: DataLoader = DataLoader(self.steps, batch_size=1, shuffle=False, collate_fn=self.data_collator)
        self.accelerator.even_batches = False
        return self.accelerator.prepare(loader)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """StableAdamW; norms and biases do not decay."""
        if self.optimizer is None:
            groups = parameter_groups(self.model if model is None else model, self.args.weight_decay)
            self.optimizer = StableAdamW(groups, lr=self.args.learning_rate, decouple_lr=True)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Linear warm-up and linear fall over the progress."""
        if self.lr_scheduler is None:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.create_optimizer(), self._factor)
        return self.lr_scheduler

    def _factor(self, step: int) -> float:
        done = self.progress
        if self.warmup and done < self.warmup:
            return min(1.0, max(done, 0.5 / self.args.max_steps) / self.warmup)
        return 1.0 - (1.0 - self.final) * (done - self.warmup) / (1.0 - self.warmup)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Seed what is random in the model from the step, then train."""
        seed_generators(self.args.seed, self.state.global_step, self.args.process_index)
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not bool(torch.isfinite(loss)):
            raise NonFiniteLossError(
                f"step {self.state.global_step}: the loss is {float(loss)}: lower the learning rate"
            )
        if self.args.world_size > 1:
            self._agreed = self._agree()
        return loss

    def _agree(self) -> tuple[float, int]:
        """The first rank's seconds and any rank's signal; every rank calls it once a step."""
        seconds = self.seconds if self.is_world_process_zero() else 0.0
        received = [float(self._stop.received == signum) for signum in SIGNALS]
        first, *ranks = self.sum_over_ranks([seconds, *received])
        return first, next((signum for signum, count in zip(SIGNALS, ranks, strict=True) if count), 0)

    def train(self, **kwargs: Any) -> Any:  # type: ignore[override]
        """Train to the end, or on from the last complete checkpoint.

        Args:
            **kwargs: of the stock trainer.

        Raises:
            ValueError: if the folder holds a run with another plan.
            TrainingInterrupted: after a signal, once a checkpoint is written.
        """
        found = self.find_checkpoint(None)
        if found is not None:
            self.resumed_from_step, self.seconds_before = found.step, float(found.info.get("seconds", 0.0))
        self._started = time.monotonic()
        with self._stop:
            result = super().train(resume_from_checkpoint=str(found.path) if found else None, **kwargs)
        if signum := self.agreed[1]:
            raise TrainingInterrupted(signum, self.state.global_step)
        # `prepare` wrapped it in autocast: left so, test figures would be those of bfloat16, which nobody serves.
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False).__dict__.pop("forward", None)
        return result

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or self.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(str(folder), create_model_card=False)

    def _publish(self, staging: Path, step: int) -> None:
        folder = staging / f"checkpoint-{step}"
        info = {"seconds": self.seconds, "plan": fingerprint(self.description()), "description": self.description()}
        ckpt.seal(folder, step, info)
        ckpt.publish(folder, self.output_dir / folder.name)
        staging.rmdir()
        ckpt.rotate(self.output_dir, self.args.save_total_limit)


class SearchTrainer(StepTrainer, SentenceTransformerTrainer):
    """Train a bi-encoder, and keep the model with the best validation figure.

    Args:
        *args: of `StepTrainer`.
        patience: validations without a better one before it stops; None never stops.
        **kwargs: of `StepTrainer`; with `evaluator`, unless it trains without validation.
    """

    model: SentenceTransformer
    args: SentenceTransformerTrainingArguments  # type: ignore[assignment]

    def __init__(self, *args: Any, patience: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_callback(_Choice(self, patience))

    def history(self) -> list[tuple[int, float]]:
        """Step and main figure of every validation so far."""
        if self.evaluator is None:
            return []
        name = f"eval_{self.evaluator.primary_metric}"
        return [(int(entry["step"]), entry[name]) for entry in self.state.log_history if name in entry]

    def train_to_best(self, epoch_steps: int) -> dict[str, Any]:
        """Train, and take the weights with the best validation figure; what `run.json` says of the training.

        Args:
            epoch_steps: steps of an epoch, those of all processes counted.
        """
        self.train()
        if self.evaluator is not None and not any(step == self.state.global_step for step, _ in self.history()):
            self.evaluate()
        self.load_best()
        losses = [entry["loss"] for entry in self.state.log_history if "loss" in entry]
        return {
            "steps": self.state.global_step,
            "epochs": round(self.state.global_step * self.args.world_size / epoch_steps, 2),
            "resumed_from_step": self.resumed_from_step,
            "training_seconds": round(self.seconds, 1),
            "steps_per_second": round(self.steps_per_second, 4),
            "first_loss": losses[0] if losses else None,
            "last_loss": losses[-1] if losses else None,
            "validation": [{"step": step, "recall@100": round(figure, 5)} for step, figure in self.history()],
        }

    def load_best(self) -> None:
        """Take the weights with the best validation figure, where there was any validation."""
        self.accelerator.wait_for_everyone()  # the first process writes them
        if (self.output_dir / BEST).is_dir() and self.history():
            self._load_from_checkpoint(str(self.output_dir / BEST))


class _Finite(TrainerCallback):
    """Stops before an optimizer step whose gradient is no number: the weights, and every checkpoint, would be none."""

    def on_pre_optimizer_step(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        gradients = [weight.grad for weight in kwargs["model"].parameters() if weight.grad is not None]
        norm = float(nn.utils.get_total_norm(gradients))
        if not np.isfinite(norm):
            raise NonFiniteLossError(
                f"step {state.global_step}: the gradient's norm is {norm}, the weights are those of the step before: "
                "lower the learning rate"
            )


class _Clock(TrainerCallback):
    """Ends training when its time is over, and after a signal."""

    def __init__(self, trainer: StepTrainer) -> None:
        self.trainer = trainer

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        trainer = self.trainer
        trainer.step_ends.append(time.monotonic())
        seconds, signum = trainer.agreed
        if trainer.max_seconds is not None and seconds >= trainer.max_seconds:
            control.should_training_stop = True
        if signum:
            control.should_save = control.should_training_stop = True


class _Choice(TrainerCallback):
    """Keeps the best model on disk and stops where none gets better; what was is read from the log of the run."""

    def __init__(self, trainer: SearchTrainer, patience: int | None) -> None:
        self.trainer, self.patience = trainer, patience

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        figures = [figure for _, figure in self.trainer.history()]
        if not figures:
            return
        if len(figures) == 1 or figures[-1] > max(figures[:-1]):
            if state.is_world_process_zero:
                self._keep(self.trainer.output_dir)
        elif self.patience is not None and len(figures) - 1 - int(np.argmax(figures)) >= self.patience:
            logger.info("no better validation figure for %d times: stopping", self.patience)
            control.should_training_stop = True

    def _keep(self, output: Path) -> None:
        staged = ckpt.staging_folder(output, 0).with_name(f"{ckpt.STAGING}{BEST}")
        shutil.rmtree(staged, ignore_errors=True)
        self.trainer._save(str(staged))
        if (output / BEST).exists():
            ckpt.delete(output / BEST)
        staged.rename(output / BEST)
