"""The three-part hinge loss and its gradient beside equation 1 written out, pair by pair, in float64."""

from __future__ import annotations

import pytest
import torch

from rexbert_hf.objectives import three_part_hinge


def equation(score, label, positive=0.9, hard_upper=0.55, hard_lower=0.2, random_upper=0.2):
    """Loss and derivative of one pair."""
    if label == 1:
        return max(positive - score, 0.0), -1.0 if score < positive else 0.0
    if label == 0:
        slope = -1.0 if score < hard_lower else 1.0 if score > hard_upper else 0.0
        return max(hard_lower - score, 0.0) + max(score - hard_upper, 0.0), slope
    return max(score - random_upper, 0.0), 1.0 if score > random_upper else 0.0


@pytest.mark.parametrize("thresholds", [{}, {"positive": 0.8, "hard_upper": 0.6, "hard_lower": 0.1, "random_upper": 0}])
def test_loss_and_gradient_are_those_of_equation_1(thresholds):
    generator = torch.Generator().manual_seed(0)
    scores = (2 * torch.rand(300, generator=generator, dtype=torch.float64) - 1).requires_grad_()
    labels = torch.randint(-1, 2, (300,), generator=generator)
    loss = three_part_hinge(scores, labels, **thresholds)
    loss.backward()
    pairs = [equation(s, y, **thresholds) for s, y in zip(scores.tolist(), labels.tolist(), strict=True)]
    assert loss.item() == pytest.approx(sum(value for value, _ in pairs) / 300, rel=1e-12)
    torch.testing.assert_close(scores.grad * 300, torch.tensor([slope for _, slope in pairs], dtype=torch.float64))


def test_each_part_is_zero_where_the_paper_wants_a_pair_to_be():
    scores = torch.tensor([0.9, 0.95, 0.2, 0.4, 0.55, 0.2, -1.0])
    labels = torch.tensor([1, 1, 0, 0, 0, -1, -1])
    assert three_part_hinge(scores, labels).item() == 0.0


def test_shapes_and_labels_are_checked():
    with pytest.raises(ValueError, match="one label a pair"):
        three_part_hinge(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="labels must be 1"):
        three_part_hinge(torch.zeros(2), torch.tensor([1, 2]))
