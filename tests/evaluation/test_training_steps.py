"""Steps of the evaluation's training loops."""

from __future__ import annotations

import torch
from torch import nn

from rexbert_hf.evaluation.training_steps import TrainingSteps


def test_a_loss_whose_gradient_is_no_number_changes_nothing():
    model = nn.Linear(2, 1)
    steps = TrainingSteps(model, 1e-2, total=2)
    before = [weight.clone() for weight in model.parameters()]
    zero = (model.weight - model.weight.detach()).square().sum()
    loss = zero.sqrt()  # 0, with the slope 0 / 0
    assert float(loss.detach()) == 0.0
    assert not steps.take(loss)
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))
    assert steps.take(model(torch.ones(1, 2)).sum())
    assert steps.done == 1
