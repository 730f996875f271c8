"""The part of the trainer that evaluates on held-out documents, before and after each phase and when asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rexbert_hf.training.checkpoint import Checkpoint
from rexbert_hf.training.heldout import evaluate_masked
from rexbert_hf.training.plan import PhasePlan
from rexbert_hf.training.resumable import ResumableTrainer


class EvaluatingTrainer(ResumableTrainer):
    """A `ResumableTrainer` whose evaluation is masked accuracy by tokens, in its log and its checkpoints."""

    def _evaluate_phase(self, phase: PhasePlan, after: bool) -> None:
        if self.args.evaluate_phases and self.eval_dataset is not None:
            place = {"eval_phase": phase.index, "eval_after": int(after)}
            self.log(self._held_out(phase) | self.evaluated_on(phase) | place)

    def evaluated_on(self, phase: PhasePlan) -> dict[str, int]:
        """Which part of the held-out documents a phase is measured on, as its results say it: 0 tokens are all.

        Args:
            phase: of the plan.
        """
        longest = self.args.eval_seq_length or phase.phase.seq_length
        return {"eval_max_tokens": self.args.eval_max_tokens or 0, "eval_seq_length": longest}

    def _held_out(self, phase: PhasePlan, eval_dataset: Any = None, prefix: str = "eval") -> dict[str, float]:
        stores: Any = eval_dataset if eval_dataset is not None else self.eval_dataset
        out: dict[str, float] = {}
        for name, store in (stores if isinstance(stores, Mapping) else {"": stores}).items():
            result = evaluate_masked(
                self.model,
                store,
                self.processing_class,  # type: ignore[arg-type]
                mlm_probability=self.args.eval_mlm_probability,
                batch_tokens=self.args.eval_batch_tokens,
                seq_length=self.args.eval_seq_length or phase.phase.seq_length,
                max_tokens=self.args.eval_max_tokens,
                position_edges=self.args.eval_position_edges,
                rank=self.args.process_index,
                world_size=self.args.world_size,
                reduce=self.sum_over_ranks,
            )
            out |= {f"{prefix}_{name}_{key}" if name else f"{prefix}_{key}": value for key, value in result.items()}
        return out

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Masked loss and accuracy on held-out documents, with fixed masks; every `eval_steps` if asked for.

        Args:
            eval_dataset: a `TokenisedDataset` or a dict of them; None for the trainer's own.
            ignore_keys: not used.
            metric_key_prefix: of the names.
        """
        phase = self.plan.phase_at(max(0, self.state.global_step - 1))
        metrics = self._held_out(phase, eval_dataset, metric_key_prefix)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def is_finished(self, found: Checkpoint) -> bool:
        """Whether a checkpoint is the end of the run; a subclass that stops early looks into it.

        Args:
            found: a complete checkpoint of this plan.
        """
        return found.step == self.plan.total_steps

    def further_results(self) -> dict[str, Any]:
        """What a subclass adds to the results of a run, after training."""
        return {}

    def held_out_results(self) -> list[dict[str, Any]]:
        """Held-out results before and after each phase, in order, those before a resume included."""
        return [
            {
                "phase": self.plan.phases[int(entry["eval_phase"])].name,
                "when": "after" if entry["eval_after"] else "before",
                **{key: value for key, value in entry.items() if key not in ("eval_phase", "eval_after", "epoch")},
            }
            for entry in self.state.log_history
            if "eval_phase" in entry
        ]
