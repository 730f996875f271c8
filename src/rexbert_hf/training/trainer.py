"""The stock `Trainer` over a whole curriculum: one `train()`, one step counter, exact resume.

What is exact: samples are a function of (seed, phase, step), masks of (seed, phase, step, micro-batch), and the random
generators are seeded from (seed, step, micro-batch) before each forward pass, so dropout is a function of the step too.
A checkpoint therefore needs weights, optimizer state and the step, and no generator states; neither workers nor ranks
change what is drawn.

The loss of a step is the sum over its labelled tokens divided by their count over all ranks and accumulation.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from rexbert_hf.data.loader import CurriculumSampler
from rexbert_hf.training.arguments import CurriculumArguments
from rexbert_hf.training.callbacks import CurriculumCallback, ProgressLine
from rexbert_hf.training.collation import STATS, PhaseCollator
from rexbert_hf.training.cpu import tune_cpu
from rexbert_hf.training.flops import FlopCounter, measure_matmul_peak
from rexbert_hf.training.heldout import accepts_flat
from rexbert_hf.training.interruption import SIGNALS, StopSignal, TrainingInterrupted, WorkerSignals
from rexbert_hf.training.masked_loss import masked_lm_loss, with_label_count
from rexbert_hf.training.meter import StepMeter
from rexbert_hf.training.neighbors import TRIPLETS
from rexbert_hf.training.optimizer import StableAdamW, parameter_groups
from rexbert_hf.training.padded_parts import parts_of
from rexbert_hf.training.plan import Plan
from rexbert_hf.training.reproducing import seed_generators
from rexbert_hf.training.requirements import check_model, check_strategy
from rexbert_hf.training.watching import WatchedTrainer

logger = logging.getLogger(__name__)


class CurriculumTrainer(WatchedTrainer):
    """Train through all phases of a plan.

    Attributes:
        trained_objectives: names of `Phase.objectives` that it trains; a subclass with more of them adds theirs.
        plan: the phases.
        resumed_from_step: step of the checkpoint that the last `train()` continued, or None.
        meter: counts of the current log window.

    Args:
        model: a masked-LM model: a RexBERT, which computes its own loss, or any other, whose logits give it.
        args: the arguments; accumulation and learning rate are taken from the plan.
        plan: what `resolve` returned for this number of ranks.
        train_dataset: a `CurriculumDataset` over `plan.orders`.
        processing_class: the tokenizer.
        eval_dataset: a `TokenisedDataset` of held-out documents, or a dict of several.
        data_collator: replaces the `PhaseCollator` that the plan gives.
        description: further dotted keys that decide the weights (data, tokenizer, model); part of the fingerprint.
        callbacks: further callbacks.

    Raises:
        ValueError: if the plan is for another number of ranks, the model cannot do what a phase asks, or the launcher
            asks for FSDP or DeepSpeed.
    """

    trained_objectives: tuple[str, ...] = ("mlm", "ahm", "npr")

    def __init__(
        self,
        model: nn.Module,
        args: CurriculumArguments,
        plan: Plan,
        train_dataset: Any,
        processing_class: PreTrainedTokenizerBase,
        eval_dataset: Any = None,
        data_collator: Any = None,
        description: Mapping[str, Any] | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        check_model(model, args, plan, self.trained_objectives)
        self.plan = plan
        self.resumed_from_step: int | None = None
        self._extra_description = dict(description or {})
        args.gradient_accumulation_steps = plan.accumulation_steps
        args.learning_rate = plan.max_learning_rate
        self.flops = FlopCounter.from_config(model.config)
        if data_collator is None:
            window = self.flops.window if self.flops is not None else None
            data_collator = PhaseCollator(plan, processing_class, flat=accepts_flat(model), window=window)
        self._reset_run()
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            compute_loss_func=None if accepts_flat(model) else masked_lm_loss,
        )
        check_strategy(self)
        self._micros = plan.rank_micros(args.process_index)
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        self.add_callback(CurriculumCallback(self))
        if not args.disable_tqdm:
            self.add_callback(ProgressLine(self))

    def _reset_run(self) -> None:
        self.meter = StepMeter()
        self._stop = StopSignal()
        self._workers: WorkerSignals | None = None
        self._stopping = 0
        self._phase_index = -1
        self._batches: list[dict[str, Any]] = []
        self._stats: list[dict[str, int]] = []
        self._counts: Counter[str] = Counter()
        self._micro = 0
        self._step_loss: torch.Tensor | None = None
        self._masked_loss: torch.Tensor | None = None
        self._grad_norm: torch.Tensor | float | None = None

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """Train to the end of the last phase; a folder that holds a run is resumed.

        Args:
            resume_from_checkpoint: a checkpoint's folder; None or True takes the last complete one, if any.
            **kwargs: of `Trainer.train`.

        Raises:
            ValueError: if the folder holds a run with another plan, or False was given for a folder with a run.
            TrainingInterrupted: after a signal, once a checkpoint is written.
            NonFiniteLossError: if the loss or a gradient became NaN or infinite.
            LossSpikeError: if the loss rose above `spike_factor` times the running median.
            CheckpointError: if a checkpoint could not be written.
        """
        found = self.find_checkpoint(resume_from_checkpoint)
        self._reset_run()
        self.watch_spikes()
        self.resumed_from_step = found.step if found else None
        if found:  # a run with no step left enters no phase, and is saved and evaluated all the same
            self._set_rope_theta(found.step - 1)
            if found.step < self.plan.total_steps and self.is_finished(found):
                return self.take_over(found)
        if self.args.device.type == "cpu":
            tune_cpu()
        with StopSignal() as self._stop:
            self.meter = self._make_meter()
            try:
                output = super().train(resume_from_checkpoint=str(found.path) if found else None, **kwargs)
            finally:
                if self._workers is not None:
                    self._workers.release()
        if self._stopping and self.state.global_step < self.state.max_steps:
            raise TrainingInterrupted(self._stopping, self.state.global_step)
        return output

    def _make_meter(self) -> StepMeter:
        if not self.args.measure_mfu or self.flops is None:
            return StepMeter()
        dtype = torch.bfloat16 if self.args.bf16 else self.model.dtype
        peak = measure_matmul_peak(dtype, self.args.device)
        return StepMeter(self.flops, self.sum_over_ranks([peak])[0])

    # What the stock loop asks for

    def get_train_dataloader(self) -> DataLoader:
        """The micro-batches of this rank for all steps; not prepared by accelerate, which would shard it again."""
        args = self.args
        workers = args.dataloader_num_workers
        options: dict[str, Any] = {}
        if workers:
            self._workers = WorkerSignals(args.dataloader_multiprocessing_context)
            options = {
                "persistent_workers": args.dataloader_persistent_workers,
                "prefetch_factor": args.dataloader_prefetch_factor,
                "multiprocessing_context": args.dataloader_multiprocessing_context,
                "worker_init_fn": self._workers,
            }
        return DataLoader(
            self.train_dataset,  # type: ignore[arg-type]
            batch_sampler=CurriculumSampler(self.plan.orders, args.process_index, args.world_size),
            collate_fn=self.data_collator,
            num_workers=workers,
            pin_memory=args.dataloader_pin_memory and args.device.type == "cuda",
            **options,
        )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """StableAdamW over two groups."""
        if self.optimizer is None:
            self.optimizer = StableAdamW(
                parameter_groups(model if model is not None else self.model, self.args.weight_decay),
                lr=self.plan.max_learning_rate,
                betas=self.args.betas,
                eps=self.args.adam_epsilon,
                decouple_lr=self.args.decouple_lr,
            )
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The plan's learning rate as a factor on its highest peak."""
        if self.lr_scheduler is None:
            peak = self.plan.max_learning_rate
            optimizer = optimizer if optimizer is not None else self.optimizer
            assert optimizer is not None
            self.lr_scheduler = LambdaLR(optimizer, lambda step: self.plan.learning_rate(step) / peak)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def choose_inputs(self, batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Choose the masking mode of a step, before its labels are counted; a subclass may replace inputs here.

        Args:
            batches: this rank's collated micro-batches, on the host; for a padded model in parts, `[1, N]` each with
                `part_shapes`, which stay: go through `padded_parts.parts_of`.
        """
        return self.pick_adaptive(batches)

    def loss_counts(self, batch: Mapping[str, Any]) -> dict[str, int]:
        """Counts that divide each loss part, from one micro-batch; a subclass with more objectives adds theirs.

        Args:
            batch: a collated micro-batch; for a padded model in parts, see `choose_inputs`.
        """
        names = {"mlm": "labels", "mlm_phrase": "phrase_labels"}  # the second where both modes run
        counts = {name: int((batch[key] != -100).sum()) for name, key in names.items() if key in batch}
        return counts | ({"npr": len(batch[TRIPLETS])} if TRIPLETS in batch else {})

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """Fetch a step's micro-batches, enter its phase, and agree on counts and on stopping over all ranks.

        Args:
            epoch_iterator: of the loader.
            num_batches: micro-batches of this rank.
            device: where the count goes.
        """
        self._enter_phase(self.state.global_step)
        self.meter.start()
        batches = list(itertools.islice(epoch_iterator, num_batches))
        self._stats = [batch.pop(STATS, {}) for batch in batches]
        self._batches = batches = self.choose_inputs(batches)
        self._stats = [self.computed(stats) for stats in self._stats]
        self._micro, self._step_loss, self._masked_loss, self._grad_norm = 0, None, None, None
        self._count_step()
        return batches, torch.tensor(max(1, self._counts["loss.mlm"]), device=device)

    def _count_step(self) -> None:
        counts: Counter[str] = Counter()
        for batch, stats in zip(self._batches, self._stats, strict=True):
            counts.update(stats)
            counts.update({f"loss.{name}": count for name, count in self.loss_counts(batch).items()})
        # The signal travels with the counts, so that all ranks stop after the same step.
        keys = sorted(counts)
        received = [float(self._stop.received == signum) for signum in SIGNALS]
        totals = [int(x) for x in self.sum_over_ranks([*(counts[key] for key in keys), *received])]
        self._counts = Counter(dict(zip(keys, totals, strict=False)))
        self._stopping = next((signum for signum, ranks in zip(SIGNALS, totals[len(keys) :], strict=True) if ranks), 0)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Seed the generators for this micro-batch, then forward and backward as the stock Trainer does, by parts."""
        seed_generators(self.plan.seed, self.state.global_step, self._micros[self._micro])
        *before, last = parts_of(inputs, self._stats[self._micro].get("documents"))
        self._micro += 1
        done: Any = 0.0
        for part in before:  # ranks have different numbers of parts, and meet once a step
            with self.accelerator.no_sync(model):
                done = done + super().training_step(model, dict(part), num_items_in_batch)
        loss: torch.Tensor = done + super().training_step(model, with_label_count(self.model, last), num_items_in_batch)
        self._step_loss = loss if self._step_loss is None else self._step_loss + loss
        return loss

    def _prepare_input(self, data: Any) -> Any:
        """Pinned ids go to the device beside the step in progress; the stock Trainer waits for each copy."""
        whole = isinstance(data, torch.Tensor) and not data.is_floating_point()  # DeepSpeed casts the others
        if whole and self.args.device.type == "cuda" and data.is_pinned():
            return data.to(self.args.device, non_blocking=True)
        return super()._prepare_input(data)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Loss of one micro-batch as its share of the step's.

        A model that returns `loss_parts`, a dict of (sum, count), has each sum divided by its own count over the whole
        step, as `loss_counts` gives it; otherwise the masked-LM loss divided by `num_items_in_batch` counts.
        """
        loss, outputs = self.adaptive_loss(partial(self._loss_of_mode, num_items_in_batch), model, inputs)
        return (loss, outputs) if return_outputs else loss

    def _loss_of_mode(
        self, items: torch.Tensor | int | None, model: nn.Module, inputs: dict[str, Any], mode: str
    ) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """Loss, its masked-LM part, and outputs; mode "phrase" is that of a step that runs both modes."""
        name = "mlm" if mode == "word" else "mlm_phrase"
        if mode == "phrase":
            items = torch.tensor(max(1, self._counts[f"loss.{name}"]), device=self.args.device)
        loss, outputs = super().compute_loss(model, inputs, True, items)
        masked = loss
        parts = getattr(outputs, "loss_parts", None)
        if parts:
            shares = self._shares({name if part == "mlm" else part: value for part, value in parts.items()})
            loss, masked = torch.stack([*shares.values()]).sum(), shares.get(name, loss)
        if getattr(outputs, "correct", None) is not None:
            self.meter.add_correct(outputs.correct)
        self._masked_loss = masked.detach() if self._masked_loss is None else self._masked_loss + masked.detach()
        return loss, masked, outputs

    def _shares(self, parts: Mapping[str, tuple[torch.Tensor, Any]]) -> dict[str, torch.Tensor]:
        weights: Mapping[str, float] = getattr(self.model, "loss_weights", {})
        missing = [name for name in parts if f"loss.{name}" not in self._counts]
        if missing:
            raise ValueError(f"loss parts without a count: {', '.join(missing)}: return them from loss_counts")
        # The gradient is averaged over ranks, so each share is scaled up by their number, as the stock Trainer does.
        ranks = self.args.world_size
        return {
            name: ranks * weights.get(name, 1.0) * value / max(1, self._counts[f"loss.{name}"])
            for name, (value, _) in parts.items()
        }

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Useful FLOPs of the micro-batch just done."""
        stats = self._stats[self._micro - 1]
        if not stats or self.flops is None:
            return 0
        counts = self.loss_counts(self._batches[self._micro - 1])
        labels = counts["mlm"] + counts.get("mlm_phrase", 0)
        return self.flops.step(stats["tokens"], stats["global_pairs"], stats["local_pairs"], labels)

    # Phases, evaluation, logs

    def _enter_phase(self, step: int) -> None:
        phase = self.plan.phase_at(step)
        if phase.index == self._phase_index:
            return
        self._phase_index = phase.index
        self._set_rope_theta(step)
        self.enter_adaptive(phase, step)
        logger.info("phase %s: steps %d to %d", phase.name, phase.first_step + 1, phase.last_step + 1)
        if step == phase.first_step:
            self._evaluate_phase(phase, after=False)

    def _set_rope_theta(self, step: int) -> None:
        theta, local = self.plan.rope_thetas(step)
        if theta is not None or local is not None:
            self.model.set_rope_theta(global_theta=theta, local_theta=local)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log a record; one of the training loss gets throughput, fill, MFU, accuracy, alpha and the phase."""
        if "loss" in logs:
            correct = self.meter.take_correct()
            total = self.sum_over_ranks([float(correct)])[0] if correct is not None else None
            logs |= self.meter.drain(total)
            if self.adaptive is not None:
                logs |= self.adaptive.drain()
            logs["phase"] = self.plan.phase_at(max(0, self.state.global_step - 1)).index
        super().log(logs, start_time)

    # Around the optimizer step

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        self._grad_norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        return self._grad_norm

    def finish_step(self, control: TrainerControl) -> None:
        """Close a step: count it, end its phase if it was the last, stop if a signal came.

        Args:
            control: the Trainer's flags.
        """
        self.meter.stop(self._counts)
        self.close_adaptive(self._counts)
        self.state.num_input_tokens_seen += self._counts["real_tokens"]
        done = self.state.global_step
        phase = self.plan.phase_at(done - 1)
        if done == phase.last_step + 1:
            self._evaluate_phase(phase, after=True)  # logs, which clears `should_log`
            control.should_log = control.should_save = True
        if self.args.world_size == 1:
            self._stopping = self._stop.received
        if self._stopping:
            control.should_save = control.should_training_stop = True
