"""The part of the trainer that starts, resumes and saves: complete checkpoints only, and only of the same plan."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerState
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging as hf_logging

from rexbert_hf.training import checkpoint as ckpt
from rexbert_hf.training.arguments import CurriculumArguments
from rexbert_hf.training.plan import Plan, fingerprint, listed_differences

logger = logging.getLogger(__name__)

STARTING_WEIGHTS = "model.starting_weights"
"""Key of a description: what names the content of the checkpoint that a model starts from."""

CHANGING_ARGUMENTS = ("neftune_noise_alpha", "tf32")
"""Further training arguments that change the weights; None where they are not used."""


class ResumableTrainer(Trainer):
    """A `Trainer` whose checkpoints exist whole or not at all, and which continues the run its folder holds."""

    args: CurriculumArguments
    plan: Plan
    model: Any  # transformers annotates it as optional
    _extra_description: dict[str, Any]
    _staging: Path | None = None

    @property
    def output_dir(self) -> Path:
        """The run's folder."""
        return Path(self.args.output_dir or ".")

    def sum_over_ranks(self, values: list[float]) -> list[float]:
        """Element-wise sums of a list over all ranks; every rank must call it."""
        if self.args.world_size == 1:
            return values
        local = torch.tensor(values, dtype=torch.float64, device=self.args.device)
        return self.accelerator.gather(local[None]).sum(0).tolist()

    def description(self) -> dict[str, Any]:
        """What decides the weights of this run, as dotted keys."""
        args = self.args
        own = {
            "optimizer.betas": list(args.betas),
            "optimizer.eps": args.adam_epsilon,
            "optimizer.weight_decay": args.weight_decay,
            "optimizer.decouple_lr": args.decouple_lr,
            "optimizer.max_grad_norm": args.max_grad_norm,
            "precision": "bf16" if args.bf16 else str(next(self.model.parameters()).dtype),
        }
        changing = {f"arguments.{name}": getattr(args, name) for name in CHANGING_ARGUMENTS}
        own |= {name: value for name, value in changing.items() if value is not None}  # runs without them stay equal
        return as_json(self.plan.description() | own | self._extra_description)

    def find_checkpoint(self, resume: str | bool | None) -> ckpt.Checkpoint | None:
        """The checkpoint that `train(resume)` continues, after removing what a killed run left half-written.

        Args:
            resume: a checkpoint's folder; None or True for the last complete one; False for none.

        Raises:
            ValueError: if it belongs to another plan, is damaged, False was given for a folder with a run, or the ranks
                found different ones.
        """
        if self.args.should_save and self.output_dir.is_dir():
            ckpt.remove_leftovers(self.output_dir)
        self.accelerator.wait_for_everyone()
        if isinstance(resume, str):
            found: ckpt.Checkpoint | None = ckpt.verify(Path(resume))
        else:
            found = ckpt.last_complete_checkpoint(self.output_dir)
        self._check_ranks(found)
        if found is None:
            return None
        if resume is False:
            raise ValueError(f"{self.output_dir} holds a run (step {found.step}): choose another output_dir")
        self._check_plan(found)
        return found

    def take_over(self, found: ckpt.Checkpoint) -> TrainOutput:
        """Stand where a run that stopped early ended: the stock loop would take one more step before it looked.

        Args:
            found: the checkpoint of its last step.
        """
        logger.info("%s is where this run stopped early: no step is left", found.path)
        self.state = TrainerState.load_from_json(str(found.path / "trainer_state.json"))
        self.state.is_local_process_zero = self.is_local_process_zero()
        self.state.is_world_process_zero = self.is_world_process_zero()
        self._load_from_checkpoint(str(found.path))
        self.model = self.accelerator.prepare_model(self.model, evaluation_mode=True)  # autocast, as after training
        return TrainOutput(self.state.global_step, float("nan"), {})

    def _check_ranks(self, found: ckpt.Checkpoint | None) -> None:
        """All ranks must see the same checkpoint: on disks of their own some would go on, and some begin."""
        step = float(found.step if found else -1)
        ranks, total, squares = self.sum_over_ranks([1.0, step, step * step])
        if ranks * squares != total * total:
            mine = f"step {found.step}" if found else "none"
            raise ValueError(
                f"{self.output_dir}: the processes find different checkpoints (rank {self.args.process_index}: {mine})"
                ": set output_dir to a folder that all of them share"
            )

    def _check_plan(self, found: ckpt.Checkpoint) -> None:
        check_same_run(found.path, found.info.get("description", {}), self.description())

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging is not None else super()._get_output_dir(trial)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Let the stock Trainer write into a staging folder, then seal it and give it its name."""
        step = self.state.global_step
        self._staging = ckpt.staging_folder(self.output_dir, step)
        try:
            with _no_progress_bars():
                super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                self._publish(self._staging, step)
        except Exception as error:
            raise self._write_error(step, error) from error
        finally:
            self._staging = None
        self.accelerator.wait_for_everyone()

    def _write_error(self, step: int, error: Exception) -> ckpt.CheckpointError:
        if self.args.should_save:
            ckpt.remove_leftovers(self.output_dir)
        last = ckpt.last_complete_checkpoint(self.output_dir)
        kept = f"{last.path.name} is complete and will be resumed" if last else "there is no earlier one"
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return ckpt.CheckpointError(
            f"checkpoint-{step} could not be written to {self.output_dir} ({reason}); {kept}: "
            "make room, then start again"
        )

    def _publish(self, staging: Path, step: int) -> None:
        phase = self.plan.phase_at(step - 1)
        description = self.description()
        info = {
            "phase": phase.name,
            "phase_end": step == phase.last_step + 1,
            "plan": fingerprint(description),
            "description": description,
        }
        folder = staging / f"checkpoint-{step}"
        ckpt.seal(folder, step, info)
        ckpt.publish(folder, self.output_dir / folder.name)
        staging.rmdir()
        keep = "phase_end" if self.args.keep_phase_checkpoints else None
        ckpt.rotate(self.output_dir, self.args.save_total_limit, keep=keep, written=step)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:  # a pickle that nothing here reads; the marker and run.json hold the settings
            (Path(output_dir or self.output_dir) / "training_args.bin").unlink(missing_ok=True)

    def _save_rng_state(self, output_dir: str) -> None:
        """Save nothing: the generators are seeded from the step."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Load nothing."""


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Keep `save_pretrained` from drawing a bar for each shard across the training bar."""
    enabled = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            hf_logging.enable_progress_bar()


def check_same_run(place: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with a run that would have other weights.

    Args:
        place: of its checkpoint, in the message.
        before: its description.
        now: that of the run to start.

    Raises:
        ValueError: with the keys that differ.
    """
    if STARTING_WEIGHTS not in before:  # a checkpoint from before there was the key goes on
        now = {key: value for key, value in now.items() if key != STARTING_WEIGHTS}
    if changed := listed_differences(before, now):
        raise ValueError(
            f"{place} belongs to a run with another plan ({changed}): undo the change{older_version(before, now)}, or"
            " choose another output_dir"
        )


def older_version(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Another way out, for a message, where the tokens of a source differ: nobody need have changed anything.

    Args:
        before: description of the run that is there.
        now: that of the run to start.

    Example:
        >>> older_version({"data.shop": "1f", "seed": 1}, {"data.shop": "1f", "seed": 2})
        ''
    """
    if all(before.get(key) == value for key, value in now.items() if key.startswith("data.") and key in before):
        return ""
    return ", go on with the version of rexbert-hf that it is of, since a later one may read the same files otherwise"


def as_json(description: Mapping[str, Any]) -> dict[str, Any]:
    """A description as it comes back from a JSON file.

    Example:
        >>> as_json({"betas": (0.9, 0.98)})
        {'betas': [0.9, 0.98]}
    """
    return json.loads(json.dumps(description, default=str))
