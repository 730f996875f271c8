"""Attention on CPU over a flat batch sorted by length: blocks across documents, and groups of equal length.

Called by `attention_rexbert.py` alone. Travels to the Hub as remote code: imports torch and its siblings only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from .layout_rexbert import Layout

DENSE_LOCAL_LENGTH = 320
"""Up to this document length one banded mask is cheaper than blocks."""

FLAT_BLOCK = 64
"""Queries a block of the flat batch on CPU, whatever documents they belong to; at least the window."""

FEW_GROUPS = 2
"""Up to so many lengths in a batch, a call for each is cheaper than blocks (a padded batch has one)."""


@torch.compiler.disable  # calls kernels itself; views of one buffer that overlap give a compiler nothing to do
def flat_attention(
    qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, layout: Layout, window: int | None
) -> torch.Tensor:
    """Self-attention of every document over itself, `[T, N * E]`.

    Args:
        qkv: projections `[T, 3, N, E]` from `pair_rows`, before rotation; rows after the layout's tokens are spare.
        cos: rotary table `[T, E / 2]`, float32.
        sin: likewise.
        layout: a layout with groups.
        window: local layers look at |q - k| <= window; None: at the whole document.
    """
    with torch.autocast("cpu", enabled=False):  # whose bfloat16 the backward pass would not see
        out: torch.Tensor = _FlatAttention.apply(qkv, cos, sin, layout, window)
    return out


class _FlatAttention(torch.autograd.Function):
    """The sdpa back-end on CPU, without autograd between its steps, in float32.

    Blocks: all queries of the flat batch in blocks of `FLAT_BLOCK`, each over the keys around it, overlapping views of
    one buffer; a mask keeps documents apart. A few batched products serve a whole local layer, or all short documents
    of a global one. Groups: documents of equal length are rows of a view, which torch's flash kernel takes as it is.

    Autograd would write a zero-filled full-size gradient for each slice; here every result is used once. In float32
    whatever the dtype: the bfloat16 kernels are compiled anew for every shape.
    """

    @staticmethod
    def forward(
        ctx: Any, qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, layout: Layout, window: int | None
    ) -> torch.Tensor:
        rows, _, heads, width = qkv.shape
        total, plan, turn = len(layout.position_ids), _Plan.of(layout, window), torch.complex(cos, sin)
        buffer = torch.empty(3, heads, plan.padded(total), width)
        buffer[:, :, : plan.halo] = 0
        buffer[:, :, plan.halo + total :] = 0
        inner, source = buffer[:, :, plan.halo : plan.halo + total], qkv[:total].permute(1, 2, 0, 3)
        _rotate_pairs(inner[:2], source[:2].float(), turn)
        inner[2] = source[2]
        out, logsumexps = torch.empty(rows, heads, width), []
        out[total:] = 0
        for head in range(heads if plan.blocked else 0):
            query, key, value = plan.windows(buffer[:, head])
            result = torch.bmm(_weights(query, key, plan.mask(layout)), value)
            out[: plan.blocked, head] = result.view(-1, width)[: plan.blocked]
        for start, (count, length) in plan.starts():
            query, key, value = (_group(x, start + plan.halo, count, length) for x in buffer)
            result, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                query, key, value, 0.0, False, attn_mask=layout.local_mask(length, window, query), scale=width**-0.5
            )
            out[start : start + count * length] = result.transpose(1, 2).reshape(-1, heads, width)
            logsumexps.append(logsumexp)
        ctx.save_for_backward(buffer, out, turn)
        ctx.layout, ctx.window, ctx.logsumexps = layout, window, logsumexps
        return out.view(rows, heads * width).to(qkv.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        with torch.autocast("cpu", enabled=False):
            return _gradient(ctx, grads[0]), None, None, None, None


@dataclass(frozen=True)
class _Plan:
    """Which tokens of the flat order go in blocks (the first `blocked`), and which groups follow them.

    Attributes:
        blocked: tokens in blocks.
        block: queries of a block; at least the halo.
        halo: keys before and after a block; zeros stand for them at both ends of the buffer. 0 without blocks.
        groups: (documents, length) of the runs of equal length behind.
    """

    blocked: int
    block: int
    halo: int
    groups: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, layout: Layout, window: int | None) -> _Plan:
        """Blocks where they save calls: for many lengths, and for long documents of a local layer."""
        groups = tuple(layout.groups or ())
        if window is None:
            short = sum(length <= FLAT_BLOCK + 1 for _, length in groups)
            if short > FEW_GROUPS:
                tokens = sum(count * length for count, length in groups[:short])
                return cls(tokens, FLAT_BLOCK, FLAT_BLOCK, groups[short:])
        elif len(groups) > FEW_GROUPS or layout.max_length > DENSE_LOCAL_LENGTH:
            return cls(len(layout.position_ids), max(FLAT_BLOCK, window), window, ())
        return cls(0, 0, 0, groups)

    @property
    def count(self) -> int:
        """Blocks."""
        return -(-self.blocked // self.block) if self.blocked else 0

    def padded(self, total: int) -> int:
        """Rows of a buffer that holds `total` tokens and room for the last block's keys."""
        return max(total, self.count * self.block) + 2 * self.halo

    def starts(self) -> Iterator[tuple[int, tuple[int, int]]]:
        """First token of each group, and the group."""
        start = self.blocked
        for count, length in self.groups:
            yield start, (count, length)
            start += count * length

    def mask(self, layout: Layout) -> torch.Tensor:
        """Additive `[blocks, block, block + 2 * halo]`."""
        return layout.block_mask(self.block, self.halo)[: self.count]

    def windows(self, buffer: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries `[blocks, block, E]`, keys and values `[blocks, block + 2 * halo, E]`, views of one head's buffer."""
        width = buffer.shape[-1]
        strides, keys = (self.block * width, width, 1), (self.count, self.block + 2 * self.halo, width)
        query, key, value = buffer[:, : self.padded(0)]
        inside = query[self.halo : self.halo + self.count * self.block]
        overlapping = (x.as_strided(keys, strides) for x in (key, value))
        return inside.view(self.count, self.block, width), *overlapping


def _weights(query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Softmax weights `[n, s, t]`."""
    return torch.softmax(torch.baddbmm(mask, query, key.transpose(1, 2), alpha=query.shape[-1] ** -0.5), -1)


def _gradient(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
    """Gradient of the projections, from that of the outputs `[T, N * E]`."""
    buffer, out, turn = ctx.saved_tensors
    layout: Layout = ctx.layout
    total, plan, (rows, heads, width) = len(layout.position_ids), _Plan.of(layout, ctx.window), out.shape
    grad_out = grad.float().view(out.shape)
    inner = torch.empty(3, heads, max(total, plan.count * plan.block), width)
    for head in range(heads if plan.blocked else 0):
        _backward_windows(plan, layout, buffer[:, head], grad_out[: plan.blocked, head], inner[:, head])
    by_head, grad_by_head = out.transpose(0, 1), grad_out.transpose(0, 1)
    for (start, (count, length)), logsumexp in zip(plan.starts(), ctx.logsumexps, strict=True):
        query, key, value = (_group(x, start + plan.halo, count, length) for x in buffer)
        result, grad_result = (_group(x, start, count, length) for x in (by_head, grad_by_head))
        mask = layout.local_mask(length, ctx.window, query)
        parts = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad_result, query, key, value, result, logsumexp, 0.0, False, attn_mask=mask, scale=width**-0.5
        )
        for target, x in zip(inner, parts, strict=True):
            _group(target, start, count, length).copy_(x)
    found = torch.empty(rows, 3, heads, width)
    found[total:] = 0
    target = found[:total].permute(1, 2, 0, 3)
    _rotate_pairs(target[:2], inner[:2, :, :total], turn.conj().resolve_conj())
    target[2] = inner[2, :, :total]
    return found.to(grad.dtype)


def _backward_windows(
    plan: _Plan, layout: Layout, buffer: torch.Tensor, grad_out: torch.Tensor, target: torch.Tensor
) -> None:
    """Gradients of one head's blocks into `target` `[3, rows, E]`; weights are computed again, not kept."""
    query, key, value = plan.windows(buffer)
    weights, scale = _weights(query, key, plan.mask(layout)), query.shape[-1] ** -0.5
    grad = F.pad(grad_out, (0, 0, 0, plan.count * plan.block - plan.blocked)).view(query.shape)
    scores = torch.ops.aten._softmax_backward_data(torch.bmm(grad, value.transpose(1, 2)), weights, -1, torch.float32)
    none = scores.new_zeros(())
    places = [x[: plan.count * plan.block].view(query.shape) for x in target]
    torch.baddbmm(none, scores, key, beta=0, alpha=scale, out=places[0])
    _fold(torch.baddbmm(none, scores.transpose(1, 2), query, beta=0, alpha=scale), plan.halo, places[1])
    _fold(torch.bmm(weights.transpose(1, 2), grad), plan.halo, places[2])


def _fold(parts: torch.Tensor, halo: int, out: torch.Tensor) -> None:
    """Sum of key gradients `[n, block + 2 * halo, E]` of overlapping windows, into `[n, block, E]`."""
    block = out.shape[1]
    out.copy_(parts[:, halo : halo + block])
    out[:-1, block - halo :] += parts[1:, :halo]
    out[1:, :halo] += parts[:-1, halo + block :]


def _group(by_head: torch.Tensor, start: int, count: int, length: int) -> torch.Tensor:
    """Documents of equal length of `[N, T, E]` as a view `[count, N, length, E]`."""
    return by_head[:, start : start + count * length].unflatten(1, (count, length)).transpose(0, 1)


def _rotate_pairs(out: torch.Tensor, x: torch.Tensor, turn: torch.Tensor) -> None:
    """Rotary embedding of neighbouring pairs in one pass: `out` and `x` float32 `[..., T, E]`, `turn` `[T, E / 2]`."""
    source, target = (torch.view_as_complex(y.unflatten(-1, (-1, 2))) for y in (x, out))
    torch.mul(source, turn, out=target)


def pair_rows(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a projection `[3 * N * E, ...]` so that elements i and i + E / 2 of queries and keys come side by side.

    A rotation is then one complex product over the batch, which takes a quarter of the time. Scores do not change:
    queries and keys move together.

    Example:
        >>> pair_rows(torch.arange(12), heads=1).tolist()
        [0, 2, 1, 3, 4, 6, 5, 7, 8, 9, 10, 11]
    """
    third = weight.shape[0] // 3
    query_key = weight[: 2 * third].view(2 * heads, 2, -1, *weight.shape[1:]).transpose(1, 2)
    return torch.cat([query_key.reshape(2 * third, *weight.shape[1:]), weight[2 * third :]])
