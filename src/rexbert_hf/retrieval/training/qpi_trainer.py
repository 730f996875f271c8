"""`CurriculumTrainer` over pairs: evaluation by the objective itself, early stopping, the best weights kept.

Early stopping is for the last phase: the best weights of an earlier one would undo all phases after it.

What early stopping knows (best accuracy, evaluations without gain) is in `trainer_state.json`, so a resumed run stops
where an uninterrupted one does. The best weights lie in `best/`; they are written again, the same, after a kill.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rexbert_hf.data.store import TokenisedDataset
from rexbert_hf.hub.finished import run_of_finished
from rexbert_hf.hub.run_file import RUN_FILE
from rexbert_hf.masking import QueryProductCollator, QueryProductRelevanceCollator
from rexbert_hf.masking.query_product import PairCollator
from rexbert_hf.retrieval.training.qpi_settings import KINDS, EarlyStopping
from rexbert_hf.training import Checkpoint, CurriculumTrainer
from rexbert_hf.training.checkpoint import replace
from rexbert_hf.training.heldout import accepts_flat, held_out_pieces, length_batches, predict_masked
from rexbert_hf.training.plan import PhasePlan

logger = logging.getLogger(__name__)

STATE = "EarlyStopping"
"""Key of what early stopping knows, in the trainer's state."""
BEST = "best"
"""Folder of the best weights, in the run's."""


class PairTrainer(CurriculumTrainer):
    """Train on pairs, and stop when the held-out accuracy no longer rises.

    Attributes:
        stopping: when to stop; set it before `train`.
        evaluator: collator of the held-out pairs.
    """

    stopping: EarlyStopping = EarlyStopping()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        options = self._pair_options()
        self.evaluator = self.make_evaluator(options)
        self.add_callback(_StopCallback(self))

    def _pair_options(self) -> dict[str, Any]:
        """Options of the first phase over pairs: evaluation masks as training does."""
        masking = next(plan.phase.masking for plan in self.plan.phases if _trains_on_pairs(plan))
        flat = accepts_flat(self.model)
        return {**masking.options, "mlm_probability": masking.mlm_probability, "flat": flat, "permute_fields": False}

    @property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        assert isinstance(self.processing_class, PreTrainedTokenizerBase)
        return self.processing_class

    @property
    def _sets(self) -> dict[str, TokenisedDataset]:
        """The held-out sets by name."""
        sets: Any = self.eval_dataset
        return sets if isinstance(sets, dict) else {"": sets}

    def make_evaluator(self, options: dict[str, Any]) -> PairCollator:
        """Collator of the held-out pairs.

        Args:
            options: of the phase.
        """
        return QueryProductCollator(self._tokenizer, seed=0, **options)

    def _held_out(self, phase: Any, eval_dataset: Any = None, prefix: str = "eval") -> dict[str, float]:
        given = {"": eval_dataset} if isinstance(eval_dataset, TokenisedDataset) else eval_dataset
        found: dict[str, float] = {}
        for name, store in (given or self._sets).items():
            result = self._evaluate_pairs(store, phase.phase.seq_length)
            found |= {f"{prefix}_{name}_{key}" if name else f"{prefix}_{key}": value for key, value in result.items()}
        return found

    @torch.no_grad()
    def _evaluate_pairs(self, store: TokenisedDataset, seq_length: int) -> dict[str, float]:
        """Loss, accuracy and count over held-out pairs, with masks that never change."""
        args = self.args
        length = args.eval_seq_length or seq_length
        rows, starts, stops, lengths = held_out_pieces(store, length, args.eval_max_tokens)
        was_training = self.model.training
        self.model.eval()
        sums = np.zeros(3)
        try:
            for number, at in enumerate(length_batches(lengths, args.eval_batch_tokens)):
                if number % args.world_size == args.process_index:
                    batch = self.evaluator(store.take(rows[at], starts[at], stops[at], step=number))
                    moved = {k: v.to(args.device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
                    sums += self.score(moved)
        finally:
            self.model.train(was_training)
        loss, correct, total = self.sum_over_ranks(sums.tolist())
        if not total:
            raise ValueError("no token of the held-out pairs was masked: hold out more queries (evaluation.held_out)")
        return {"loss": loss / total, "accuracy": correct / total, "masked_tokens": total}

    def score(self, batch: dict[str, Any]) -> np.ndarray:
        """Loss sum, correct predictions and predictions of one batch.

        Args:
            batch: on the model's device.
        """
        masked = batch["labels"] != -100
        if not masked.any():
            return np.zeros(3)
        loss, ranks = predict_masked(self.model, batch, masked)
        return np.array([loss, float((ranks == 0).sum()), float(masked.sum())])

    # Early stopping

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train to the end or to the last gain, and end with the best weights.

        Args:
            *args: of `CurriculumTrainer.train`.
            **kwargs: of `CurriculumTrainer.train`.
        """
        earlier = [phase.name for phase in self.plan.phases[:-1] if _trains_on_pairs(phase)]
        if earlier and self.stopping.every_steps:
            logger.warning(
                "phase%s %s: trained to the end of the budget, as early stopping is for the last phase, '%s'",
                "s" if len(earlier) > 1 else "", ", ".join(f"'{name}'" for name in earlier), self.plan.phases[-1].name,
            )  # fmt: skip
        output = super().train(*args, **kwargs)
        self.accelerator.wait_for_everyone()  # the first rank writes the best weights
        self.restore_best()
        return output

    def is_finished(self, found: Checkpoint) -> bool:
        """Whether a checkpoint is the end of the run, early or not.

        Args:
            found: a complete checkpoint of this plan.
        """
        state = TrainerState.load_from_json(str(found.path / "trainer_state.json"))
        return self._known_of(state)["stopped_at"] is not None or super().is_finished(found)

    def further_results(self) -> dict[str, Any]:
        """The held-out accuracy of the weights that are saved, and where training stopped; every rank must call it."""
        found: dict[str, Any] = {"early_stopping": self.known}
        if self.eval_dataset is not None:
            held = self._held_out(self.plan.phases[-1], prefix="held_out")
            found |= {"held_out": {key.removeprefix("held_out_"): value for key, value in held.items()}}
        return found

    def is_due(self, step: int) -> bool:
        """Whether to look at the held-out pairs after a step: only in phases that train on pairs.

        Args:
            step: steps done.
        """
        every = self.stopping.every_steps
        phase = self.plan.phase_at(step - 1)
        if not every or self.eval_dataset is None or not self._sets or not _trains_on_pairs(phase):
            return False
        return step % every == 0 or step == self.state.max_steps

    def _pair_sets(self) -> Any:
        """The held-out sets that are pairs: their rows have fields."""
        return {name: store for name, store in self._sets.items() if _is_of_pairs(store)}

    def check_best(self, step: int, control: TrainerControl) -> None:
        """Evaluate; in the last phase keep the weights if they are its best, and stop if patience is at its end.

        Args:
            step: steps done.
            control: the Trainer's flags.
        """
        held = self._held_out(self.plan.phase_at(max(0, step - 1)), self._pair_sets() or None)
        count = sum(value for key, value in held.items() if key.endswith("_masked_tokens"))
        names = [key.removesuffix("_masked_tokens") for key in held if key.endswith("_masked_tokens")]
        accuracy = sum(held[f"{name}_accuracy"] * held[f"{name}_masked_tokens"] for name in names) / count
        due = control.should_log
        self.log({**held, "held_out_accuracy": accuracy})
        control.should_log = due  # what was just logged cleared it, and the training loss is yet to come
        if not self._in_last_phase(step):
            return
        known = self.known
        if known["best"] is None or accuracy > known["best"] + self.stopping.min_gain:
            known |= {"best": accuracy, "best_step": step, "without_gain": 0}
            self._keep_best(step, accuracy)
        else:
            known["without_gain"] += 1
        states = self.state.stateful_callbacks
        assert isinstance(states, dict)
        states[STATE] = known
        if known["without_gain"] >= self.stopping.patience and step < self.state.max_steps:
            logger.info("stopped at step %d: no gain since step %d", step, known["best_step"])
            known["stopped_at"] = step
            control.should_save = control.should_training_stop = True

    @property
    def known(self) -> dict[str, Any]:
        """What early stopping knows of the last phase: best, best_step, without_gain, stopped_at."""
        return self._known_of(self.state)

    def _known_of(self, state: TrainerState) -> dict[str, Any]:
        start: dict[str, Any] = {"best": None, "best_step": 0, "without_gain": 0, "stopped_at": None}
        states = state.stateful_callbacks
        found = {**start, **(states.get(STATE, {}) if isinstance(states, dict) else {})}
        if found["best"] is None or self._in_last_phase(found["best_step"]) or self._was_finished():
            return found
        return start  # earlier versions judged the phases before by it too

    def _was_finished(self) -> bool:
        """Whether the folder holds a finished run: where an earlier version stopped early stays its end."""
        return (self.output_dir / RUN_FILE).is_file() and run_of_finished(self.output_dir) is not None

    def _in_last_phase(self, step: int) -> bool:
        """Whether the last of so many steps is one of the last phase."""
        return step > self.plan.phases[-1].first_step

    def _keep_best(self, step: int, accuracy: float) -> None:
        if not self.args.should_save:
            return
        model = self.accelerator.unwrap_model(self.model)
        tied = set(getattr(model, "all_tied_weights_keys", ()) or ())
        weights = {name: value.contiguous() for name, value in model.state_dict().items() if name not in tied}
        about = {"step": str(step), "accuracy": repr(float(accuracy))}
        replace(self.output_dir / BEST, lambda folder: save_file(weights, folder / "model.safetensors", metadata=about))

    def restore_best(self) -> int | None:
        """Put the best weights into the model; the step they are of, or None where none were kept, or others.

        Raises:
            ValueError: if they were kept, and are gone.
        """
        path = Path(self.output_dir) / BEST / "model.safetensors"
        step = self.known["best_step"]
        if self.known["best"] is None:
            return None
        if not path.exists():
            raise ValueError(
                f"{path} is not there, with the weights of step {step}, the best by evaluation: train again in another "
                "output_dir; what is in this one stays as it is"
            )
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
        # A run that was killed may have kept weights after the checkpoint it resumed with, and then done otherwise.
        if about.get("step") != str(step) or about.get("accuracy") not in (None, repr(float(self.known["best"]))):
            logger.warning(
                "%s is not of step %d, the best by evaluation (%.5g), but of steps that a kill undid: the weights of "
                "the last step are taken; for better ones train again in another output_dir",
                path, step, self.known["best"],
            )  # fmt: skip
            return None
        model = self.accelerator.unwrap_model(self.model)
        model.load_state_dict(load_file(path, device=str(self.args.device)), strict=False)
        return int(step)


def _trains_on_pairs(phase: PhasePlan) -> bool:
    return phase.phase.masking.kind in KINDS.values()


def _is_of_pairs(store: TokenisedDataset) -> bool:
    return bool(store.metadata.get("spans", {}).get("rows", {}).get("field"))


class RelevanceTrainer(PairTrainer):
    """Classify pairs as relevant or not; accuracy is that of the pairs, and documents beside them are not evaluated."""

    @property
    def _sets(self) -> dict[str, TokenisedDataset]:
        sets = super()._sets
        return {name: store for name, store in sets.items() if _is_of_pairs(store)}

    def make_evaluator(self, options: dict[str, Any]) -> PairCollator:
        """Collator of the held-out pairs."""
        return QueryProductRelevanceCollator(self._tokenizer, seed=0, **options)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Cross entropy over the pairs of the whole step; any classification model will do."""
        labels = inputs["labels"]
        outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
        total = cross_entropy(outputs.logits.float(), labels, reduction="sum")
        # The gradient is averaged over ranks, so the share of this one is scaled up by their number.
        loss = total * self.args.world_size / (len(labels) if num_items_in_batch is None else num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def further_results(self) -> dict[str, Any]:
        """As of any pairs, and the accuracy as the card shows it."""
        found = super().further_results()
        shared = {"task_type": "text-classification", "task_name": "Relevance of query-product pairs"}
        shared |= {"dataset_type": "held-out", "metric_type": "accuracy", "metric_name": "accuracy"}
        metrics = [
            {
                **shared,
                "dataset_name": f"held-out pairs ({key.removesuffix('_accuracy')})",
                "metric_value": round(value, 4),
            }
            for key, value in found.get("held_out", {}).items()
            if key.endswith("_accuracy")
        ]
        return {**found, "metrics": metrics}

    def score(self, batch: dict[str, Any]) -> np.ndarray:
        """Loss sum, correct pairs and pairs of one batch."""
        labels = batch["labels"]
        logits = self.model(**{name: value for name, value in batch.items() if name != "labels"}).logits.float()
        loss = cross_entropy(logits, labels, reduction="sum")
        return np.array([float(loss), float((logits.argmax(-1) == labels).sum()), float(len(labels))])


class _StopCallback(TrainerCallback):
    """Asks the trainer to check every so many steps."""

    def __init__(self, trainer: PairTrainer) -> None:
        self.trainer = trainer

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Check at multiples of `every_steps`, and at the last step."""
        if self.trainer.is_due(state.global_step):
            self.trainer.check_best(state.global_step, control)
