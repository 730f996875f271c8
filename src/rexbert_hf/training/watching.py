"""The part of the trainer that stops a run before a bad step changes the weights, and keeps what shows why.

Not a number stops always; a spike unless `spike_factor` is None. The batch and the weights that the step began with
are written, so that `recipes/replay_batch.py` computes the very same loss again.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from rexbert_hf.training.adaptive import AdaptiveTrainer
from rexbert_hf.training.checkpoint import replace
from rexbert_hf.training.faulty_step import FaultyStep, LossSpikeError
from rexbert_hf.training.reproducing import NonFiniteLossError
from rexbert_hf.training.spikes import SpikeWatch

logger = logging.getLogger(__name__)

STATE_KEY = "LossSpikes"
"""Name of the last losses among the callback states of `trainer_state.json`."""


class WatchedTrainer(AdaptiveTrainer):
    """An `AdaptiveTrainer` that judges each step before the optimizer uses it."""

    _micros: list[int]
    _batches: list[dict[str, Any]]
    _counts: Any
    _step_loss: torch.Tensor | None
    _masked_loss: torch.Tensor | None
    _grad_norm: torch.Tensor | float | None
    _spikes: SpikeWatch | None = None

    def watch_spikes(self) -> None:
        """Start watching for spikes, unless the arguments say never; before training."""
        factor = self.args.spike_factor
        self._spikes = None if factor is None else SpikeWatch(factor, self.args.spike_window)

    def check_finite(self) -> None:
        """Stop if this step's loss or gradient is not finite, or its loss a spike; keep the batch.

        Raises:
            NonFiniteLossError: naming step, phase and the file with the batch.
            LossSpikeError: likewise.
        """
        assert self._step_loss is not None
        norm = 0.0 if self._grad_norm is None else self._grad_norm
        if not bool(torch.isfinite(self._step_loss + norm)):
            loss_is_bad = not bool(torch.isfinite(self._step_loss))
            what, value = ("loss", float(self._step_loss)) if loss_is_bad else ("gradient norm", float(norm))
            # No rank may wait for another here: gradients that are no number need not be so on all of them.
            kept = self._keep("nonfinite", what, value, float(self._step_loss))
            raise NonFiniteLossError(
                f"the {what} is {value} {self._place()}: {kept}; the last checkpoint is good: lower the learning rate, "
                "or look at the batch"
            )
        if self._spikes is not None:
            self._check_spike(self._spikes)

    def _check_spike(self, spikes: SpikeWatch) -> None:
        assert self._step_loss is not None
        states = self.state.stateful_callbacks
        assert isinstance(states, dict)
        if spikes.phase < 0 and STATE_KEY in states:  # the first step after a resume
            spikes.load_state_dict(states[STATE_KEY])
        kind = "+".join(self.adaptive.modes) if self.adaptive is not None else ""
        spikes.enter(self.plan.phase_at(self.state.global_step).index, kind)
        # Triplets are few in a step and their loss is wild, so masked prediction is what is judged.
        judged = self._step_loss if self._masked_loss is None else self._masked_loss
        loss, whole = self._over_ranks(judged, self._step_loss)
        median = spikes.median_exceeded(loss)
        if median is None:
            spikes.add(loss)
            states[STATE_KEY] = spikes.state_dict()
            return
        kept = self._keep("spike", "loss", loss, whole)
        raise LossSpikeError(
            f"the loss is {loss:.4g} {self._place()}, above {spikes.factor:g} times the median {median:.4g} of the "
            f"last {len(spikes.losses)} steps: {kept}; the last checkpoint is good: look at the batch, or raise "
            "spike_factor (null: never) to go on"
        )

    def _over_ranks(self, *losses: torch.Tensor) -> list[float]:
        """Of this step; each rank's is scaled up by their number."""
        return [loss / self.args.world_size for loss in self.sum_over_ranks([float(loss) for loss in losses])]

    def _place(self) -> str:
        step = self.state.global_step
        return f"at step {step + 1} (phase '{self.plan.phase_at(step).name}')"

    def _keep(self, kind: str, what: str, value: float, loss: float) -> str:
        """Write the batch and the weights; a clause that says where they are."""
        step, modes = self.state.global_step, {"word": 1.0}
        if self.adaptive is not None and self.adaptive.both:
            modes = {"word": self.adaptive.alpha, "phrase": 1 - self.adaptive.alpha}
        counts = {name.removeprefix("loss."): n for name, n in self._counts.items() if name.startswith("loss.")}
        bad = FaultyStep(
            kind, what, value, loss, step, self.plan.phase_at(step).name, self.plan.seed,
            self.args.world_size, self.args.process_index, self.args.bf16, counts, modes,
            dict(zip(self._micros, self._batches, strict=True)),
        )  # fmt: skip
        path = self.output_dir / bad.file_name
        try:
            bad.save(path)
        except Exception as error:  # a full disk must not hide what went wrong first
            path.unlink(missing_ok=True)
            return f"its batch could not be written to {path} ({error})"
        self._keep_weights(bad.model_name)
        return f"its batch is in {path} (recipes/replay_batch.py shows which document)"

    def _keep_weights(self, name: str) -> None:
        """Write the weights that the step began with; without them a replay takes the last checkpoint's."""
        if not self.args.should_save:
            return

        def write(folder: Path) -> None:
            self.model.save_pretrained(folder)
            if self.processing_class is not None:
                self.processing_class.save_pretrained(folder)

        try:
            replace(self.output_dir / name, write)
        except Exception as error:
            logger.warning("the weights of the step could not be written to %s (%s)", self.output_dir / name, error)
