"""Losses that need the model's own weights: masked cross entropy from bounded slices, neighbour reconstruction.

The full logits of a batch are never built. `masked_cross_entropy` walks over rows and vocabulary in tiles that fit
the cache (CPU) or one slice (GPU), and computes the gradients in the same walk, while the exponentials are at hand.

Travels to the Hub as remote code: imports torch only.
"""

from __future__ import annotations

from typing import Any

import torch

CPU_ROWS, CPU_COLUMNS = 1024, 4096
"""Tile of logits on CPU: rows x vocabulary columns. Larger tiles fall out of the cache between passes."""

GPU_SLICE_ELEMENTS = 1 << 28
"""Logits held at once on an accelerator (rows x vocabulary): 1 GiB in float32."""


@torch.compiler.disable  # torch 2.11 would compile it to zero gradients; tiles give a compiler nothing to do
def masked_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    return_ranks: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Sum of cross entropies of `hidden @ weight.T + bias` against `labels`, without the full logits.

    Args:
        hidden: `[M, H]`, one row a labelled position.
        weight: `[V, H]` decoder weight.
        bias: `[V]` decoder bias, or None.
        labels: `[M]` token ids; rows with a negative one count for nothing.
        return_ranks: also return how many tokens score higher than each label.

    Returns:
        The summed loss (float32 scalar; divide by the count of the whole global step), the number of rows whose
        label has the highest logit (int64 scalar), and the ranks `[M]` (0 = the best) or None.

    Example:
        >>> hidden, weight = torch.eye(3), torch.eye(3) * 9
        >>> loss, correct, _ = masked_cross_entropy(hidden, weight, None, torch.tensor([0, 1, 0]))
        >>> round(float(loss), 3), int(correct)
        (9.001, 2)
    """
    if torch.is_autocast_enabled(hidden.device.type):
        hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
    with torch.autocast(hidden.device.type, enabled=False):
        loss, correct, ranks = _LinearCrossEntropy.apply(hidden, weight, bias, labels, return_ranks)
    return loss, correct, ranks


class _LinearCrossEntropy(torch.autograd.Function):
    """Forward and gradients in one walk; `backward` only scales them.

    With E the exponentials of a tile and f = 1 / (row sum), the softmax is f * E. The row factor moves out of both
    products, (f E) W = f (E W) and (f E)' H = E' (f H), so that the tile is written once and never rescaled.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        return_ranks: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        needs_grad = any(ctx.needs_input_grad[:3])
        walk = _Walk(hidden, weight.to(hidden.dtype), bias, labels, needs_grad, return_ranks)
        walk.run()
        if needs_grad:
            grad_weight = walk.grad_weight.to(weight.dtype)
            grad_bias = None if bias is None else walk.grad_bias.to(bias.dtype)
            ctx.save_for_backward(walk.grad_hidden, grad_weight, grad_bias)
        ranks = walk.ranks if return_ranks else None
        ctx.mark_non_differentiable(walk.correct)
        if ranks is not None:
            ctx.mark_non_differentiable(ranks)
        return walk.loss, walk.correct, ranks

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        scale = grads[0]
        return (
            grad_hidden.mul_(scale.to(grad_hidden.dtype)),
            grad_weight.mul_(scale.to(grad_weight.dtype)),
            None if grad_bias is None else grad_bias.mul_(scale.to(grad_bias.dtype)),
            None,
            None,
        )


class _Walk:
    """One pass over rows x vocabulary tiles, accumulating loss, accuracy, ranks and gradients."""

    def __init__(
        self,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        needs_grad: bool,
        return_ranks: bool,
    ) -> None:
        self.hidden, self.weight, self.labels = hidden, weight, labels
        self.bias = None if bias is None else bias.to(hidden.dtype)
        self.needs_grad, self.return_ranks = needs_grad, return_ranks
        count, vocabulary = len(hidden), len(weight)
        if hidden.device.type == "cpu":
            self.rows, self.columns = min(CPU_ROWS, max(count, 1)), CPU_COLUMNS
        else:
            self.rows, self.columns = max(GPU_SLICE_ELEMENTS // vocabulary, 1), vocabulary
        self.accumulate = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        self.loss = torch.zeros((), dtype=self.accumulate, device=hidden.device)
        self.correct = torch.zeros((), dtype=torch.long, device=hidden.device)
        self.ranks = torch.zeros(count, dtype=torch.long, device=hidden.device) if return_ranks else None
        if needs_grad:
            self.grad_hidden = torch.empty_like(hidden)
            self.grad_weight = torch.zeros(weight.shape, dtype=self.accumulate, device=hidden.device)
            self.grad_bias = torch.zeros(vocabulary, dtype=self.accumulate, device=hidden.device)

    def run(self) -> None:
        """Walk over all rows."""
        buffers: list[torch.Tensor] = []
        for start in range(0, len(self.hidden), self.rows):
            self._rows(slice(start, min(start + self.rows, len(self.hidden))), buffers)

    def _rows(self, rows: slice, buffers: list[torch.Tensor]) -> None:
        hidden, labels = self.hidden[rows], self.labels[rows]
        index = torch.arange(len(hidden), device=hidden.device)
        counted = labels >= 0
        peaks, sums, exponentials = [], [], []
        target = torch.zeros(len(hidden), dtype=self.accumulate, device=hidden.device)
        tiles = [slice(a, min(a + self.columns, len(self.weight))) for a in range(0, len(self.weight), self.columns)]
        logits = [self._logits(hidden, tile, i, buffers) for i, tile in enumerate(tiles)]
        for tile, part in zip(tiles, logits, strict=True):
            here = (labels >= tile.start) & (labels < tile.stop)
            column = (labels - tile.start).clamp(0, tile.stop - tile.start - 1)
            target = torch.where(here, part[index, column].to(self.accumulate), target)
        for part in logits:
            if self.ranks is not None:
                self.ranks[rows] += (part > target.to(part.dtype)[:, None]).sum(1)
            peak = part.amax(1)
            exponential = part.to(self.accumulate).sub_(peak[:, None]).exp_()
            peaks.append(peak.to(self.accumulate))
            sums.append(exponential.sum(1))
            exponentials.append(exponential)
        peak = torch.stack(peaks).amax(0)
        shifts = [(p - peak).exp() for p in peaks]
        total = torch.stack([s * shift for s, shift in zip(sums, shifts, strict=True)]).sum(0)
        self.loss += torch.where(counted, total.log() + peak - target, 0).sum()
        self.correct += ((target >= peak) & counted).sum()
        if self.needs_grad:
            self._gradients(rows, tiles, exponentials, [shift * counted / total for shift in shifts])

    def _logits(self, hidden: torch.Tensor, tile: slice, i: int, buffers: list[torch.Tensor]) -> torch.Tensor:
        """Logits of one tile, in a buffer that the next rows use again."""
        weight = self.weight[tile]
        if len(buffers) <= i:
            buffers.append(hidden.new_empty(self.rows, len(weight)))
        out = buffers[i][: len(hidden)]
        if self.bias is None:
            return torch.mm(hidden, weight.t(), out=out)
        return torch.addmm(self.bias[tile], hidden, weight.t(), out=out)

    def _gradients(
        self, rows: slice, tiles: list[slice], exponentials: list[torch.Tensor], factors: list[torch.Tensor]
    ) -> None:
        hidden, labels = self.hidden[rows], self.labels[rows]
        counted, labels = (labels >= 0).to(self.accumulate), labels.clamp_min(0)
        grad_hidden = torch.zeros(hidden.shape, dtype=self.accumulate, device=hidden.device)
        for tile, exponential, factor in zip(tiles, exponentials, factors, strict=True):
            exponential = exponential.to(hidden.dtype)
            scaled = hidden * factor[:, None].to(hidden.dtype)
            grad_hidden.addcmul_(factor[:, None], torch.mm(exponential, self.weight[tile]).to(self.accumulate))
            if hidden.dtype == self.accumulate:
                self.grad_weight[tile].addmm_(exponential.t(), scaled)
            else:
                self.grad_weight[tile] += torch.mm(exponential.t(), scaled)
            self.grad_bias[tile] += torch.mv(exponential.t(), factor.to(hidden.dtype))
        grad_hidden -= self.weight[labels] * counted[:, None]
        self.grad_hidden[rows] = grad_hidden.to(hidden.dtype)
        self.grad_weight.index_add_(0, labels, hidden * counted[:, None], alpha=-1)
        self.grad_bias.index_add_(0, labels, counted, alpha=-1)


def neighbor_reconstruction_loss(
    anchor: torch.Tensor,
    neighbor: torch.Tensor,
    negative: torch.Tensor,
    anchor_mask: torch.Tensor,
    neighbor_mask: torch.Tensor,
    negative_mask: torch.Tensor,
    margin: float = 1.0,
    normalize: bool = False,
) -> torch.Tensor:
    """Triplet loss of neighbour product reconstruction (E-BERT, equations 9-12), mean over the batch.

    Args:
        anchor: hidden states `[B, N, H]` of the central products.
        neighbor: `[B, M, H]`, products associated with them.
        negative: `[B, K, H]`, unrelated products.
        anchor_mask: `[B, N]`, True on the tokens that count (no padding, no special tokens).
        neighbor_mask: `[B, M]`.
        negative_mask: `[B, K]`.
        margin: margin of the triplet loss.
        normalize: divide each distance by its number of elements, and the attention scores by sqrt(H), so that the
            loss does not grow with length and width; the paper does neither.

    Example:
        >>> a, b = torch.eye(2)[None], torch.ones(1, 1, 2)
        >>> masks = torch.ones(1, 2), torch.ones(1, 1), torch.ones(1, 1)
        >>> float(neighbor_reconstruction_loss(a, b, b, *masks))
        1.0
    """
    positive = reconstruction_distance(anchor, neighbor, anchor_mask, neighbor_mask, normalize)
    other = reconstruction_distance(anchor, negative, anchor_mask, negative_mask, normalize)
    return (margin + positive - other).clamp_min(0).mean()


def reconstruction_distance(
    left: torch.Tensor, right: torch.Tensor, left_mask: torch.Tensor, right_mask: torch.Tensor, normalize: bool = False
) -> torch.Tensor:
    """Distance `[B]` of two contents that rebuild each other (E-BERT, equations 9-11).

    Args:
        left: `[B, N, H]`.
        right: `[B, M, H]`.
        left_mask: `[B, N]`.
        right_mask: `[B, M]`.
        normalize: as in `neighbor_reconstruction_loss`.
    """
    left, right = left.float(), right.float()
    left_mask, right_mask = left_mask.bool(), right_mask.bool()
    scores = left @ right.transpose(1, 2)
    if normalize:
        scores = scores * left.shape[-1] ** -0.5
    lowest = torch.finfo(scores.dtype).min
    alpha = scores.masked_fill(~right_mask[:, None, :], lowest).softmax(2)
    beta = scores.masked_fill(~left_mask[:, :, None], lowest).softmax(1)
    left_error = ((left - alpha @ right) ** 2).sum(2) * left_mask
    right_error = ((right - beta.transpose(1, 2) @ left) ** 2).sum(2) * right_mask
    if normalize:
        left_error = left_error / (left_mask.sum(1, keepdim=True).clamp_min(1) * left.shape[-1])
        right_error = right_error / (right_mask.sum(1, keepdim=True).clamp_min(1) * right.shape[-1])
    return left_error.sum(1) + right_error.sum(1)
