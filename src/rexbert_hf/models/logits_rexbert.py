"""Masked cross entropy of logits that a decoder made itself, because there is more to it than its weight.

An adapter, a hook, a quantised form or offloading is met by calling the layer, and torch.func differentiates its own
operators only: there the losses are torch's, and the logits `[M, V]` of all labelled positions are held.

Shape letters: M labelled tokens; V vocabulary. Travels to the Hub as remote code: imports torch and its siblings only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .products_rexbert import is_plain, is_transformed


def is_its_weight(decoder: nn.Module) -> bool:
    """Whether the product with its weight is all that a decoder does, and gradients written by hand may be used."""
    return is_plain(decoder) and not is_transformed()


def logits_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, return_ranks: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Sum of cross entropies, hits and ranks as `masked_cross_entropy` returns them; ranks as exact as the logits.

    Args:
        logits: `[M, V]`.
        labels: `[M]` token ids; rows with a negative one count for nothing.
        return_ranks: also return how many others do not score lower than each label.

    Example:
        >>> loss, correct, _ = logits_cross_entropy(torch.eye(3) * 9, torch.tensor([0, 1, 0]))
        >>> round(float(loss), 3), int(correct)
        (9.001, 2)
    """
    loss = _cross_entropies(_logs(logits), labels).sum()
    own, others = _parted(logits.detach(), labels)
    correct = ((own > others.amax(1)) & (labels >= 0)).sum()
    if not return_ranks:
        return loss, correct, None
    # The label's own place is below it, where it is a number.
    below = (others < own[:, None]).sum(1)
    return loss, correct, (logits.shape[1] - below).clamp_max(logits.shape[1] - 1)


def grid_logits_cross_entropy(
    logits: Sequence[torch.Tensor], labels: torch.Tensor, row_weights: Sequence[Sequence[float]], kl_weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `grid_cross_entropy` returns.

    Args:
        logits: for each width `[C * M, V]`: the rows of its C cells one cell after the other. The last M rows of all
            are the largest cell's.
        labels: `[M]`; rows with a negative one count for nothing.
        row_weights: for each width the weight of each of its cells.
        kl_weight: adds so many times KL(largest || cell), with the largest cell as a detached teacher.
    """
    largest = logits[-1][len(logits[-1]) - len(labels) :].detach()
    teacher, total = _logs(largest), torch.zeros((), device=labels.device)
    for part, weights in zip(logits, row_weights, strict=True):
        for rows, weight in zip(part.chunk(len(weights)), weights, strict=True):
            logs = _logs(rows)
            total = total + weight * _cross_entropies(logs, labels).sum()
            if kl_weight:
                divergence = F.kl_div(logs, teacher, reduction="none", log_target=True).sum(1)
                total = total + weight * kl_weight * divergence[labels >= 0].sum()
    own, others = _parted(largest, labels)
    return total, ((own > others.amax(1)) & (labels >= 0)).sum()


def _logs(logits: torch.Tensor) -> torch.Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(1)


def _cross_entropies(logs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """`[M]`, zero where a row counts for nothing."""
    return F.nll_loss(logs, labels.clamp_min(-1), ignore_index=-1, reduction="none")


def _parted(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logit of each label `[M]`, and the logits `[M, V]` with minus infinity in its place."""
    column = labels.clamp_min(0)[:, None]
    return logits.gather(1, column)[:, 0], logits.scatter(1, column, -torch.inf)
