"""sentence-transformers' trainers with this package's optimizer, complete checkpoints, a clock, and mined negatives.

In place of the paper's LANS and batches of 8,192: StableAdamW, and a gradient cache where batches exceed memory.
A step's rows, dropout and negatives follow from (seed, step), so a run that was stopped goes on as if it had not been;
with `max_minutes` the schedule follows the clock, and then it does not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from torch import nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState

from rexbert_hf.retrieval.training.best_weights import BEST, is_complete, kept_figure, note_figure
from rexbert_hf.retrieval.training.faulty_rows import FaultyRows
from rexbert_hf.retrieval.training.in_effect import LATER, in_effect
from rexbert_hf.retrieval.training.search_batches import Rows
from rexbert_hf.training import checkpoint as ckpt
from rexbert_hf.training.arguments import stay_on_one_gpu
from rexbert_hf.training.interruption import SIGNALS, StopSignal, TrainingInterrupted
from rexbert_hf.training.optimizer import StableAdamW, parameter_groups
from rexbert_hf.training.plan import fingerprint
from rexbert_hf.training.reproducing import NonFiniteLossError, seed_generators
from rexbert_hf.training.resumable import ResumableTrainer, as_json, check_same_run

logger = logging.getLogger(__name__)


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
            callbacks=[_Finite(self), _Clock(self)],
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
        """What decides the weights; rank r of W takes every W-th row of steps, so their number does too."""
        return as_json({**self._extra_description, "processes": self.args.world_size})

    def _check_plan(self, found: ckpt.Checkpoint) -> None:
        before = in_effect(found.info.get("description", {}))
        now = {name: value for name, value in self.description().items() if name in before or name not in LATER}
        check_same_run(found.path, before, now)

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
            raise self.stopped("loss", float(loss))
        if self.args.world_size > 1:
            self._agreed = self._agree()
        return loss

    def stopped(self, what: str, value: float) -> NonFiniteLossError:
        """Keep this step's rows and the weights that it began with; the error that says where they are.

        Args:
            what: "loss" or "gradient's norm".
            value: of it.
        """
        step, rank = self.state.global_step, self.args.process_index
        try:
            kept = f"its rows are in {self._keep(what, value)} (recipes/replay_batch.py shows which are at fault)"
        except Exception as error:  # a full disk must not hide what went wrong first
            kept = f"its rows could not be written to {self.output_dir} ({error})"
        place = f"at step {step + 1}" + (f" of rank {rank}" if self.args.world_size > 1 else "")
        return NonFiniteLossError(
            f"the {what} is {value} {place}, the weights are those of the step before: {kept}; lower the "
            "learning rate, or look at the rows"
        )

    def _keep(self, what: str, value: float) -> Path:
        step, args = self.state.global_step, self.args
        rows = self.steps[step * args.world_size + args.process_index]
        columns, label = (rows.columns, rows.label.tolist()) if isinstance(rows, Rows) else (rows, rows.pop("label"))
        faulty = FaultyRows(columns, label, what, value, step, args.seed, args.process_index, args.bf16)
        path = self.output_dir / faulty.file_name
        try:
            faulty.save(path)
        except Exception:
            path.unlink(missing_ok=True)
            raise
        if args.should_save:
            ckpt.replace(self.output_dir / faulty.model_name, lambda folder: self._save(str(folder)))
        return path

    def _agree(self) -> tuple[float, int]:
        """The first rank's seconds and any rank's signal; every rank calls it once a step."""
        seconds = self.seconds if self.is_world_process_zero() else 0.0
        received = [float(self._stop.received == signum) for signum in SIGNALS]
        first, *ranks = self.sum_over_ranks([seconds, *received])
        return first, next((signum for signum, count in zip(SIGNALS, ranks, strict=True) if count), 0)

    def is_finished(self, found: ckpt.Checkpoint) -> bool:
        """Whether a run stopped at a checkpoint before its last step, for a reason that lies in the checkpoint.

        Args:
            found: a complete checkpoint of this run.
        """
        return self.max_seconds is not None and self.seconds_before >= self.max_seconds

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
            if self.is_finished(found):
                result = self.take_over(found)
                self._without_autocast()
                return result
        self._started = time.monotonic()
        with self._stop:
            result = super().train(resume_from_checkpoint=str(found.path) if found else None, **kwargs)
        if signum := self.agreed[1]:
            raise TrainingInterrupted(signum, self.state.global_step)
        self._without_autocast()
        return result

    def _without_autocast(self) -> None:
        """`prepare` wrapped the model: left so, test figures would be those of bfloat16, which nobody serves."""
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False).__dict__.pop("forward", None)

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
        ckpt.rotate(self.output_dir, self.args.save_total_limit, written=step)


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
        self.patience = patience
        self.add_callback(_Choice(self))

    def history(self, state: TrainerState | None = None) -> list[tuple[int, float]]:
        """Step and main figure of every validation so far.

        Args:
            state: of a checkpoint; None for the trainer's own.
        """
        if self.evaluator is None:
            return []
        name, log = f"eval_{self.evaluator.primary_metric}", (state or self.state).log_history
        return [(int(entry["step"]), entry[name]) for entry in log if name in entry]

    def is_exhausted(self, figures: Sequence[float]) -> bool:
        """Whether the best of these figures is as many validations back as `patience` allows.

        Args:
            figures: of all validations so far.
        """
        return self.patience is not None and len(figures) - 1 - int(np.argmax(figures)) >= self.patience

    def is_finished(self, found: ckpt.Checkpoint) -> bool:
        """As `StepTrainer.is_finished`: a run that stopped for want of a better model was saved after that validation.

        Args:
            found: a complete checkpoint of this run.
        """
        state = TrainerState.load_from_json(str(found.path / "trainer_state.json"))
        figures = [figure for _, figure in self.history(state)]
        return super().is_finished(found) or (bool(figures) and self.is_exhausted(figures))

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
        """Take the weights with the best validation figure, where there was any validation.

        Of a run that was finished, and whose model was damaged since, they may still be in the checkpoint of that step.

        Raises:
            ValueError: if they are gone, as they are once a run is finished, and those at hand are others.
        """
        self.accelerator.wait_for_everyone()  # the first process writes them
        history, folder = self.history(), self.output_dir / BEST
        best, figure = max(history, key=lambda entry: entry[1], default=(self.state.global_step, 0.0))
        kept = self.output_dir / f"checkpoint-{best}"
        if history and folder.is_dir() and kept_figure(folder) in (None, (best, figure)):
            self._load_from_checkpoint(str(folder))
        elif best != self.state.global_step and is_complete(kept):
            self._load_from_checkpoint(str(kept))
        elif history and folder.is_dir():
            logger.warning(
                "%s is not of step %d, the best by validation (%.5g), but of steps that a kill undid: the weights "
                "of the last are taken; for better ones train again in another output_dir", folder, best, figure
            )  # fmt: skip
        elif best != self.state.global_step:
            raise ValueError(
                f"{folder} is not there, with the weights of step {best}, the best by validation: "
                "train again in another output_dir; the model in this one stays as it is"
            )
        self.accelerator.wait_for_everyone()  # and it removes them when it finishes the run


class _Finite(TrainerCallback):
    """Stops before an optimizer step whose gradient is no number: the weights, and every checkpoint, would be none."""

    def __init__(self, trainer: StepTrainer) -> None:
        self.trainer = trainer

    def on_pre_optimizer_step(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        gradients = [weight.grad for weight in kwargs["model"].parameters() if weight.grad is not None]
        norm = float(nn.utils.get_total_norm(gradients))
        if not np.isfinite(norm):
            raise self.trainer.stopped("gradient's norm", norm)


class _Clock(TrainerCallback):
    """Ends training when its time is over, and after a signal; logs and saves as often as the recipe says now."""

    def __init__(self, trainer: StepTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        state.compute_steps(args, state.max_steps)  # a checkpoint's own would replace what the recipe says now

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        trainer = self.trainer
        trainer.step_ends.append(time.monotonic())
        seconds, signum = trainer.agreed
        if trainer.max_seconds is not None and seconds >= trainer.max_seconds:
            control.should_save = control.should_training_stop = True
        if signum:
            control.should_save = control.should_training_stop = True


class _Choice(TrainerCallback):
    """Keeps the best model on disk and stops where none gets better; what was is read from the log of the run."""

    def __init__(self, trainer: SearchTrainer) -> None:
        self.trainer = trainer

    def _write_best(self, folder: Path) -> None:
        self.trainer._save(str(folder))
        note_figure(folder, *self.trainer.history()[-1])

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        figures = [figure for _, figure in self.trainer.history()]
        if not figures:
            return
        if len(figures) == 1 or figures[-1] > max(figures[:-1]):
            if state.is_world_process_zero:
                ckpt.replace(self.trainer.output_dir / BEST, self._write_best)
        elif self.trainer.is_exhausted(figures):
            logger.info("no better validation figure for %d times: stopping", self.trainer.patience)
            control.should_save = control.should_training_stop = True
