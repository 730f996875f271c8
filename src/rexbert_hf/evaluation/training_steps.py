"""Training steps that every loop of this room takes: AdamW, a linear rise and fall of the rate, clipped gradients."""

from __future__ import annotations

import torch
from torch import nn

from rexbert_hf.training.optimizer import parameter_groups
from rexbert_hf.training.schedules import schedule_factor


class TrainingSteps:
    """The steps of one run, whose number is known before.

    Args:
        model: that is trained.
        rate: peak learning rate.
        total: steps of the run.
        warmup: share of the steps with a rising rate.
        weight_decay: of matrices, as in AdamW.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> steps = TrainingSteps(model, 1e-2, total=2)
        >>> steps.take(model(torch.ones(1, 2)).sum()), steps.take(torch.tensor(float("nan"))), steps.done
        (True, False, 1)
    """

    def __init__(
        self, model: nn.Module, rate: float, total: int, warmup: float = 0.1, weight_decay: float = 0.0
    ) -> None:
        self.model, self.rate, self.total, self.warmup, self.done = model, rate, total, warmup * total, 0
        self.optimizer = torch.optim.AdamW(parameter_groups(model, weight_decay), lr=rate, fused=True)

    def take(self, loss: torch.Tensor) -> bool:
        """One step down a loss; False, and nothing is changed, where it or its gradient is no number.

        Args:
            loss: of the next batch.
        """
        if not bool(torch.isfinite(loss)):
            return False
        factor = schedule_factor("linear", self.done + 0.5, self.total, warmup=self.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if not bool(torch.isfinite(nn.utils.clip_grad_norm_(self.model.parameters(), 1.0))):
            return False
        self.optimizer.step()
        self.done += 1
        return True
