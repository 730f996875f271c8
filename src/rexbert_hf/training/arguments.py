"""Training arguments with the defaults that flat batches, exact resume and honest errors need.

Everything else is the Trainer's own. What the plan decides (steps, accumulation, learning rate) is not set here.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainingArguments

from rexbert_hf.training.precision import check_launched_precision, launched_precision
from rexbert_hf.training.spikes import SPIKE_FACTOR, SpikeWatch

logger = logging.getLogger(__name__)


@dataclass
class CurriculumArguments(TrainingArguments):
    """`TrainingArguments` for `CurriculumTrainer`.

    Attributes:
        betas: of StableAdamW.
        decouple_lr: weight decay relative to the peak rate, as ModernBERT and Ettin (their 1e-5 means that).
        keep_phase_checkpoints: the checkpoint at each phase's end is kept whatever `save_total_limit` says.
        evaluate_phases: evaluate on the held-out data before and after each phase.
        eval_seq_length: longest document of the held-out evaluation; None for the phase's own length.
        eval_batch_tokens: tokens of an evaluation batch, padding counted.
        eval_max_tokens: held-out tokens to use; None for all.
        eval_mlm_probability: share masked in evaluation, whatever the phase masks.
        eval_position_edges: report held-out accuracy by position too, between these edges.
        measure_mfu: measure the matmul peak at the start and report the share of it that is used.
        spike_factor: stop when a step's loss is above so many times the running median of its phase, and a nat above
            it; None: never. A loss that is no number always stops.
        spike_window: steps of that median.

    Raises:
        ValueError: for options of the Trainer that a curriculum cannot honour.
    """

    remove_unused_columns: bool = False
    prediction_loss_only: bool = True
    logging_nan_inf_filter: bool = False
    max_grad_norm: float = 1.0
    weight_decay: float = 1e-5
    adam_epsilon: float = 1e-6
    num_train_epochs: float = 1.0
    per_device_train_batch_size: int = 1
    per_device_eval_batch_size: int = 1
    report_to: str | list[str] | None = "none"
    logging_steps: float = 10
    save_steps: float = 1000
    save_total_limit: int | None = 2
    average_tokens_across_devices: bool = True
    ddp_find_unused_parameters: bool | None = False
    ddp_broadcast_buffers: bool | None = False
    accelerator_config: Any = field(
        default_factory=lambda: {"dispatch_batches": False, "split_batches": False, "even_batches": False}
    )
    betas: tuple[float, float] = (0.9, 0.98)
    decouple_lr: bool = True
    keep_phase_checkpoints: bool = True
    evaluate_phases: bool = True
    eval_seq_length: int | None = None
    eval_batch_tokens: int = 8192
    eval_max_tokens: int | None = None
    eval_mlm_probability: float = 0.15
    eval_position_edges: list[int] | None = None
    measure_mfu: bool = True
    spike_factor: float | None = SPIKE_FACTOR
    spike_window: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        stay_on_one_gpu(self)
        if self.label_smoothing_factor:
            raise ValueError(
                "label_smoothing_factor takes the labels from the model, which then trains no grid: leave it 0"
            )
        if self.fp16 or launched_precision() == "fp16":
            raise ValueError(
                "fp16 is not supported: its loss scaler finds its scale by overflows, and a gradient that is no number "
                "ends a run here: use bf16, or float32"
            )
        check_launched_precision(self.bf16)
        compiler = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "").lower() or "no"
        if compiler != "no":
            raise ValueError(
                f"the launcher's dynamo_backend '{compiler}' (ACCELERATE_DYNAMO_BACKEND) is not supported: start with "
                "accelerate launch --dynamo_backend no; trainer.torch_compile compiles what gains by it"
            )
        if self.load_best_model_at_end:
            raise ValueError("load_best_model_at_end is not supported: a curriculum ends with its last phase")
        if self.push_to_hub:
            raise ValueError("push_to_hub belongs to the recipe, after training; leave it out of the arguments")
        if self.include_num_input_tokens_seen != "no":
            raise ValueError(
                "include_num_input_tokens_seen would count tokens twice, for they always are: leave it out"
            )
        if self.ignore_data_skip:
            raise ValueError("ignore_data_skip would train on the first samples again: leave it off")
        if self.num_train_epochs != 1:
            raise ValueError("num_train_epochs must stay 1: set max_tokens or epochs of the phases")
        if self.spike_factor is not None:
            SpikeWatch(self.spike_factor, self.spike_window)  # says what is wrong with them
        if self.save_only_model:
            raise ValueError("save_only_model makes checkpoints that cannot be resumed: leave it off")


def stay_on_one_gpu(args: TrainingArguments) -> None:
    """Keep transformers from splitting the batches of one process over all GPUs: flat batches cannot be split.

    Args:
        args: of a process that nobody launched; others see one GPU each.
    """
    if args.n_gpu > 1:
        logger.warning("one process trains on one of %d GPUs: start it with accelerate launch to use all", args.n_gpu)
        args._n_gpu = 1
