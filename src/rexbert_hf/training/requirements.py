"""What a plan asks of a model and of the processes that run; checked before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from transformers import Trainer

from rexbert_hf.models.padded_positions import longest_text
from rexbert_hf.training.arguments import CurriculumArguments
from rexbert_hf.training.phases import Phase
from rexbert_hf.training.plan import Plan


def check_model(model: nn.Module, args: CurriculumArguments, plan: Plan, trained: tuple[str, ...]) -> None:
    """Refuse what cannot be trained.

    Args:
        model: to train.
        args: of the run.
        plan: its phases.
        trained: names of objectives that the trainer has.

    Raises:
        ValueError: if the plan is for another number of ranks, or model or trainer cannot do what a phase asks.
    """
    if plan.world_size != args.world_size:
        raise ValueError(
            f"the plan is for {plan.world_size} process(es) but {args.world_size} run: resolve it with "
            f"world_size={args.world_size}, or start as many processes as were asked for"
        )
    limit, what = longest_text(model), None
    if limit is not None and limit != model.config.max_position_embeddings:  # type: ignore[union-attr]
        what = f"the {limit} positions that {type(model).__name__} has behind its padding id"
    check_lengths(limit, [phase.phase for phase in plan.phases], args.eval_seq_length, what)
    for phase in plan.phases:
        wanted = phase.phase
        beyond = [name for name in wanted.objectives if name not in trained]
        if beyond:
            raise ValueError(f"phase '{phase.name}': this trainer does not train the objective '{beyond[0]}'")
        rope = wanted.global_rope_theta is not None or wanted.local_rope_theta is not None
        if rope and not hasattr(model, "set_rope_theta"):
            raise ValueError(f"phase '{phase.name}': {type(model).__name__} cannot change its RoPE theta")


def check_lengths(limit: Any, phases: Iterable[Phase], eval_seq_length: int | None, what: str | None = None) -> None:
    """Refuse inputs that are longer than a model can take.

    Args:
        limit: tokens that it can take; models without such a limit (None) take any length.
        phases: to train.
        eval_seq_length: longest document of the evaluation, in tokens; None for that of the phases.
        what: the limit is, for the message; None for the model's `max_position_embeddings`.

    Raises:
        ValueError: with the first phase that is too long.
    """
    if not isinstance(limit, int):
        return
    what = what or f"the model's max_position_embeddings={limit}"
    for phase in phases:
        if phase.seq_length > limit:
            raise ValueError(
                f"phase '{phase.name}': seq_length={phase.seq_length} is beyond {what}: lower it, or start from a"
                " longer model"
            )
    if eval_seq_length is not None and eval_seq_length > limit:
        raise ValueError(f"evaluation.seq_length={eval_seq_length} is beyond {what}: lower it")


def check_strategy(trainer: Trainer) -> None:
    """Refuse strategies that cut the weights into parts, which optimizer and checkpoints here do not know.

    Args:
        trainer: with its accelerator.

    Raises:
        ValueError: for FSDP and DeepSpeed.
    """
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        name = "FSDP" if trainer.is_fsdp_enabled else "DeepSpeed"
        raise ValueError(
            f"{name} is not supported, encoders of these sizes fit one device: choose plain data parallelism in "
            "accelerate config, or start with torchrun"
        )
