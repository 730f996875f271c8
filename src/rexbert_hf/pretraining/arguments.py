"""The training arguments that a recipe's settings become; what a recipe cannot have is refused, never ignored."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

import torch
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)

from rexbert_hf.pretraining.processes import fast_bfloat16
from rexbert_hf.pretraining.settings import PretrainSettings
from rexbert_hf.pretraining.threads import set_threads
from rexbert_hf.settings.kinds import members
from rexbert_hf.settings.tree import one_line
from rexbert_hf.training import CurriculumArguments
from rexbert_hf.training.precision import choose_bfloat16

DECIDED = {
    "learning_rate": "phases.NAME.learning_rate",
    "lr_scheduler_type": "phases.NAME.schedule.name",
    "warmup_steps": "phases.NAME.schedule.warmup_tokens",
    "warmup_ratio": "phases.NAME.schedule.warmup_tokens",
    "max_steps": "phases.NAME.max_tokens",
    "num_train_epochs": "phases.NAME.epochs",
    "per_device_train_batch_size": "phases.NAME.batch_tokens and micro_batch_tokens",
    "gradient_accumulation_steps": "phases.NAME.batch_tokens and micro_batch_tokens",
    "per_device_eval_batch_size": "micro_batch_tokens",
    "data_seed": "seed",
    "lr_scheduler_kwargs": "phases.NAME.schedule",
    "torch_compile": "trainer.torch_compile",
    "torch_compile_backend": "trainer.torch_compile",
    "torch_compile_mode": "trainer.torch_compile",
    "gradient_checkpointing": "trainer.gradient_checkpointing",
    "activation_checkpointing": "trainer.gradient_checkpointing",
    "push_to_hub": "push_to_hub",
    "hub_model_id": "push_to_hub",
}
"""Training arguments that the curriculum or the recipe sets, and the key to write instead."""

FIXED = {
    "optim": "it is always StableAdamW",
    "optim_args": "StableAdamW takes betas and adam_epsilon from trainer.extra, and trainer.weight_decay",
    "optim_target_modules": "it is always StableAdamW, over all weights",
    "adam_beta1": "set trainer.extra.betas",
    "adam_beta2": "set trainer.extra.betas",
    "label_smoothing_factor": "the model computes its loss itself",
    "auto_find_batch_size": "set micro_batch_tokens",
    "average_tokens_across_devices": "a loss is always the mean over the tokens of all devices",
    "dataloader_drop_last": "a step has the tokens of its batch, and the last one what is left",
    "train_sampling_strategy": "the order of samples is a function of seed, phase and step",
    "remove_unused_columns": "the collator takes what the phase's masking reads",
    "include_num_input_tokens_seen": "the trainer always counts them",
    "bf16_full_eval": "evaluation runs in the precision of training",
    "fp16_full_eval": "evaluation runs in the precision of training",
    "prediction_loss_only": "evaluation is masked accuracy, and keeps no predictions",
    "metric_for_best_model": "a curriculum ends with its last phase",
    "greater_is_better": "a curriculum ends with its last phase",
}
"""Training arguments that would be ignored or break the loss, and why they cannot be set."""

_WAIT_SECONDS = 7 * 24 * 3600
"""The other ranks wait so long while the first one prepares the data; torch's default is half an hour."""


def make_arguments(settings: PretrainSettings) -> CurriculumArguments:
    """The training arguments of a recipe; on CPU, torch's threads are set too.

    Args:
        settings: the recipe.

    Raises:
        ValueError: if `trainer.extra` names an argument that does not exist or that the recipe decides itself, or
            transformers refuses it, or `trainer.report_to` a tracker that is unknown or not installed, or the launcher
            asks for another precision or a compiler.
    """
    chosen, evaluation = settings.trainer, settings.evaluation
    longest = max(phase.seq_length for phase in settings.phases)
    use_cpu = chosen.use_cpu or not torch.cuda.is_available()
    if use_cpu or chosen.cpu_threads is not None:
        set_threads(chosen.cpu_threads)
    fields: dict[str, Any] = {
        "output_dir": settings.output_dir,
        "seed": settings.seed,
        "bf16": choose_bfloat16(chosen.bf16, lambda: fast_bfloat16(use_cpu)),
        "weight_decay": chosen.weight_decay,
        "max_grad_norm": chosen.max_grad_norm,
        "dataloader_num_workers": chosen.num_workers,
        "logging_steps": chosen.logging_steps,
        "save_steps": chosen.save_steps,
        "save_total_limit": chosen.save_total_limit,
        "report_to": trackers(chosen.report_to),
        "spike_factor": chosen.spike_factor,
        "spike_window": chosen.spike_window,
        "use_cpu": use_cpu,
        "eval_max_tokens": evaluation.max_tokens,
        "eval_position_edges": evaluation.position_edges,
        "eval_seq_length": evaluation.seq_length or longest,
        "eval_batch_tokens": max(settings.micro_batch_tokens, longest),
    }
    _check_extra(chosen.extra, fields)
    return _constructed({"ddp_timeout": _WAIT_SECONDS} | fields, chosen.extra)


def _check_extra(extra: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    known = {field.name: field.default for field in dataclasses.fields(CurriculumArguments)}
    kinds = typing.get_type_hints(CurriculumArguments)
    for name, value in extra.items():
        if name in DECIDED:
            raise ValueError(f"trainer.extra.{name}: the recipe decides it: set {DECIDED[name]}")
        if name in FIXED:
            raise ValueError(f"trainer.extra.{name}: the recipe decides it: {FIXED[name]}")
        if name not in known:
            raise ValueError(f"trainer.extra.{name}: transformers' TrainingArguments has no such field")
        if name in own:
            raise ValueError(f"trainer.extra.{name}: the recipe has its own key for it")
        _check_number(name, value, known[name], set(members(kinds[name])))


def _constructed(fields: dict[str, Any], extra: dict[str, Any]) -> CurriculumArguments:
    """The arguments; an error of transformers' own checks, which name no key, says which of `trainer.extra` it is."""
    try:
        return CurriculumArguments(**fields | extra)
    except Exception as error:
        guilty = [name for name in extra if _can_be(fields | {k: v for k, v in extra.items() if k != name})]
        if not guilty and not _can_be(fields):  # it is of the other arguments, or of the launcher
            raise
        key = f"trainer.extra.{guilty[0]}" if len(guilty) == 1 else "trainer.extra"
        quoted = len(guilty) == 1 and extra[guilty[0]] is False
        hint = " (the text 'no' is written in quotes)" if quoted else ""
        raise ValueError(f"{key}: {one_line(error)}{hint}") from error


def _can_be(fields: dict[str, Any]) -> bool:
    try:
        CurriculumArguments(**fields)
    except Exception:
        return False
    return True


def _check_number(name: str, value: Any, default: Any, kinds: set[Any]) -> None:
    """Refuse what is no number where one is due, or a tuple of them: torch would, with a traceback, later."""
    if isinstance(default, tuple):
        kept = isinstance(value, list | tuple) and len(value) == len(default) and all(map(_is_number, value))
        wanted = f"a list of {len(default)} numbers, as {list(default)}"
    else:
        is_due = _is_number(default) or (bool(kinds & {int, float}) and kinds <= {int, float, type(None)})
        kept = not is_due or _is_number(value) or (value is None and type(None) in kinds)
        wanted = "a number" if default is None else f"a number, as {default}"
    if not kept:
        raise ValueError(f"trainer.extra.{name} must be {wanted}; got {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def trackers(report_to: str) -> list[str]:
    """Names of the trackers to report to.

    Args:
        report_to: names with commas, or "none".

    Raises:
        ValueError: for an unknown tracker, or one that is not installed.

    Example:
        >>> trackers("none")
        []
    """
    names = [name.strip() for name in report_to.split(",") if name.strip() not in ("", "none")]
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            raise ValueError(
                f"trainer.report_to: unknown tracker '{name}': use one of {', '.join(sorted(INTEGRATION_TO_CALLBACK))}"
            )
        if name not in get_available_reporting_integrations():
            raise ValueError(f"trainer.report_to: {name} is not installed: pip install {name}, or choose another")
    return names
