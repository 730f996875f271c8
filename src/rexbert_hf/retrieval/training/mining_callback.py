"""Mines hard negatives while a bi-encoder trains, and keeps the tables: a stopped run goes on with the same ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState

from rexbert_hf.hub.run_file import sync
from rexbert_hf.retrieval.training.finetune_settings import FinetuneSettings
from rexbert_hf.retrieval.training.mining import mine_negatives
from rexbert_hf.retrieval.training.search_batches import SearchBatches
from rexbert_hf.retrieval.training.search_data import SearchData
from rexbert_hf.retrieval.training.search_trainer import SearchTrainer
from rexbert_hf.training import checkpoint as ckpt

NEGATIVES = "negatives-{}.npy"
"""Files of mined negatives in a run's folder, by the first step that sees them."""


class Mining(TrainerCallback):
    """Mines hard negatives before training and every so many epochs, and keeps the tables for a resume.

    Args:
        trainer: of the run.
        batches: get the table.
        data: catalogue and queries.
        settings: of the recipe.
        epoch_steps: steps of an epoch.
        bf16: autocast.
    """

    def __init__(
        self, trainer: SearchTrainer, batches: SearchBatches, data: SearchData, settings: FinetuneSettings,
        epoch_steps: int, bf16: bool,
    ) -> None:  # fmt: skip
        assert settings.mining is not None
        self.trainer, self.batches, self.data, self.settings, self.bf16 = trainer, batches, data, settings, bf16
        self.every = max(1, round(settings.mining.refresh_epochs * epoch_steps))

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Load the tables of a run that goes on; mine for a new one.

        Raises:
            ValueError: if a table that the next steps see is damaged or gone: the model that mined it is no more.
        """
        missing = self._seen_from(state)
        for path in self.trainer.output_dir.glob(NEGATIVES.format("*")):
            from_step = int(path.stem.rpartition("-")[2])
            if state.global_step and from_step <= state.global_step + 1:
                try:
                    table = np.load(path, allow_pickle=False)
                except (OSError, ValueError, EOFError) as error:  # those of a model that is no more
                    reason = str(error).partition("\n")[0]
                    raise ValueError(f"{path} is damaged ({reason}): restore it, or take a new output_dir") from None
                self._set(table, from_step)
                missing.discard(from_step)
            elif self.trainer.is_world_process_zero():
                path.unlink(missing_ok=True)
        if missing:
            path = self.trainer.output_dir / NEGATIVES.format(min(missing))
            raise ValueError(f"{path} is not there, with the mined negatives: restore it, or take a new output_dir")
        self.trainer.accelerator.wait_for_everyone()
        if not state.global_step:
            self._mine(0)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mine again; the batch of the next step is fetched already, so the one after it is the first to see it."""
        if state.global_step % self.every == 0 and state.global_step < state.max_steps:
            self._mine(state.global_step + 1)

    def _seen_from(self, state: TrainerState) -> set[int]:
        """First steps of the tables that the steps of a run that goes on see: the one in force, and one just mined."""
        done = state.global_step
        if not done or done >= state.max_steps:
            return set()
        refreshes = (done - 1) // self.every
        in_force = refreshes * self.every + 1 if refreshes else 0
        return {in_force, done + 1} if done % self.every == 0 else {in_force}

    def _set(self, table: np.ndarray, from_step: int) -> None:
        """Batches are numbered over all ranks: a step has as many as there are ranks."""
        self.batches.set_negatives(table, from_step * self.trainer.args.world_size)

    def _mine(self, from_step: int) -> None:
        assert self.settings.mining is not None
        size = self.settings.loss.block_size
        folder = self.trainer.output_dir
        folder.mkdir(parents=True, exist_ok=True)
        table = mine_negatives(self.trainer.model, self.data, self.settings.mining, size, self.bf16, from_step, folder)
        self._set(table, from_step)
        if self.trainer.is_world_process_zero():
            staged = folder / f"{ckpt.STAGING}negatives"
            staged.mkdir(parents=True, exist_ok=True)
            np.save(staged / "table.npy", table)
            sync(staged / "table.npy")
            (staged / "table.npy").replace(folder / NEGATIVES.format(from_step))
            sync(folder)
            staged.rmdir()
