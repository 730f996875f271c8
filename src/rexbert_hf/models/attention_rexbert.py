"""Attention over a flat batch of documents: the only file that knows back-ends.

Every function takes queries, keys and values of T tokens in D documents, `[T, N, E]` (N heads of width E), and a
`Layout` that says where documents begin. One document never sees another; a local layer sees |q - k| <= window.

* CUDA, half precision: one variable-length flash kernel (flash-attn 2/3 where installed, else torch's own).
* Everywhere else ("sdpa"): documents are sorted by length once per batch, so that each group of equal length is a
  view `[n, s, N, E]` of the flat tensor, with no padding, no mask and no copy; long local layers go in blocks. On CPU
  local layers and short documents go in blocks across documents, in one call (`_FlatAttention`).
* "eager": padded softmax, for attention maps.
* Inside torch.compile or torch.export a padded batch stays padded ("dense"): shapes may not depend on data.

Travels to the Hub as remote code: imports torch and transformers only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from .layout_rexbert import Layout

LOCAL_BLOCK = 128
"""Queries a block in local layers: each reads LOCAL_BLOCK + 2 * window keys."""

DENSE_LOCAL_LENGTH = 320
"""Up to this document length one banded mask is cheaper than blocks."""

FLAT_BLOCK = 64
"""Queries a block of the flat batch on CPU, whatever documents they belong to; at least the window."""

FEW_GROUPS = 2
"""Up to so many lengths in a batch, a call for each is cheaper than blocks (a padded batch has one)."""


def uses_varlen(implementation: str, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a variable-length flash kernel runs on this device and dtype."""
    if implementation in ("flash_attention_2", "flash_attention_3"):
        return True
    return implementation == "sdpa" and device.type == "cuda" and dtype in (torch.float16, torch.bfloat16)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of `[T, ..., E]` with float32 `cos` and `sin` `[T, E / 2]`, computed in float32.

    Element i turns with element i + E / 2, as in stock ModernBERT.
    """
    half = x.shape[-1] // 2
    cos, sin = (table.view(table.shape[0], *[1] * (x.dim() - 2), half) for table in (cos, sin))
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


def turns_pairs(implementation: str, layout: Layout, device: torch.device, dtype: torch.dtype, dropout: float) -> bool:
    """Whether `attend` takes queries and keys with the elements of each rotated pair side by side (`pair_rows`)."""
    fast = device.type == "cpu" and dtype != torch.float64 and dropout == 0.0
    return fast and implementation == "sdpa" and not layout.is_dense


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


def _rotate_pairs(out: torch.Tensor, x: torch.Tensor, turn: torch.Tensor) -> None:
    """Rotary embedding of neighbouring pairs in one pass: `out` and `x` float32 `[..., T, E]`, `turn` `[T, E / 2]`."""
    source, target = (torch.view_as_complex(y.unflatten(-1, (-1, 2))) for y in (x, out))
    torch.mul(source, turn, out=target)


def spare_rows(total: int, device: torch.device, dtype: torch.dtype) -> int:
    """Rows to append to a flat batch of `total` tokens so that few different sizes occur.

    bfloat16 products on CPU are compiled for each size (tens of milliseconds each, many a layer), and flat batches
    all differ by a few tokens; a sixteenth of spare rows at most costs less than that.
    """
    if device.type != "cpu" or dtype != torch.bfloat16 or total < 64:
        return 0
    step = 1 << (total.bit_length() - 5)
    return -total % step


def attend(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    layout: Layout,
    window: int | None,
    implementation: str,
    dropout: float = 0.0,
    deterministic: bool = False,
    paired: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Self-attention of every document over itself.

    Args:
        qkv: projections `[T, 3, N, E]`, before rotation; rows after the layout's tokens are spare and come back zero.
        cos: rotary table `[T, E / 2]`, float32.
        sin: likewise.
        layout: the batch's layout.
        window: local layers look at |q - k| <= window; None: at the whole document.
        implementation: "sdpa", "eager", "flash_attention_2" or "flash_attention_3".
        dropout: probability of dropping an attention weight.
        deterministic: deterministic backward pass of the flash kernels.
        paired: queries and keys come from `pair_rows`, because `turns_pairs` said so.

    Returns:
        Outputs `[T, N * E]` and, for "eager", the weights `[B, N, S, S]` in the caller's shape.
    """
    tokens = layout.position_ids.shape[0]
    if qkv.shape[0] > tokens and not paired:
        out, weights = attend(qkv[:tokens], cos, sin, layout, window, implementation, dropout, deterministic)
        return F.pad(out, (0, 0, 0, qkv.shape[0] - tokens)), weights
    if implementation == "eager":
        return _eager(qkv, cos, sin, layout, window, dropout)
    if layout.is_dense:
        return _dense(qkv, cos, sin, layout, window, dropout), None
    if uses_varlen(implementation, qkv.device, qkv.dtype):
        return _varlen(qkv, cos, sin, layout, window, implementation, dropout, deterministic), None
    assert layout.groups is not None
    if paired:
        return _flat(qkv, cos, sin, layout, window), None
    return _grouped(qkv, cos, sin, layout, window, dropout), None


def _dense(
    qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, layout: Layout, window: int | None, dropout: float
) -> torch.Tensor:
    batch, length = layout.shape
    qk = rotate(qkv[:, :2], cos, sin)
    query, key = (qk[:, i].view(batch, length, *qkv.shape[2:]).transpose(1, 2) for i in (0, 1))
    value = qkv[:, 2].view(batch, length, *qkv.shape[2:]).transpose(1, 2)
    mask = layout.dense_mask(window)
    if mask is not None and layout.padding_mask is not None:
        # A row without any key would be NaN: padding queries may look at themselves.
        mask = mask | torch.eye(length, dtype=torch.bool, device=mask.device)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    return out.transpose(1, 2).reshape(qkv.shape[0], -1)


def _eager(
    qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, layout: Layout, window: int | None, dropout: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax attention written out, over padded rows (see `Layout.rows`); weights are zero at padding."""
    qk = rotate(qkv[:, :2], cos, sin)
    place, valid = layout.rows()
    count, length = valid.shape

    def pad(x: torch.Tensor) -> torch.Tensor:
        full = x.new_zeros((count * length, *x.shape[1:])).index_copy(0, place, x)
        return full.view(count, length, *x.shape[1:]).transpose(1, 2)

    mask = valid[:, None, None, :]
    if window is not None:
        position = torch.arange(length, device=qkv.device)
        mask = mask & ((position[:, None] - position[None, :]).abs() <= window)
    mask = mask | torch.eye(length, dtype=torch.bool, device=qkv.device)
    scores = pad(qk[:, 0]) @ pad(qk[:, 1]).transpose(-1, -2) * qkv.shape[-1] ** -0.5
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype) * valid[:, None, :, None]
    weights = F.dropout(weights, dropout, training=dropout > 0)
    out = (weights @ pad(qkv[:, 2])).transpose(1, 2).reshape(count * length, -1)
    return out.index_select(0, place), weights


def _grouped(
    qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, layout: Layout, window: int | None, dropout: float
) -> torch.Tensor:
    """The sdpa back-end through autograd: any device, dtype and dropout."""
    qk = rotate(qkv[:, :2], cos, sin)
    assert layout.groups is not None
    sizes = [count * length for count, length in layout.groups]
    parts = []
    for (count, length), q_k, v in zip(layout.groups, qk.split(sizes), qkv[:, 2].split(sizes), strict=True):
        query, key, value = (
            x.reshape(count, length, *qkv.shape[2:]).transpose(1, 2) for x in (q_k[:, 0], q_k[:, 1], v)
        )
        blocks = []
        for q0, q1, k0, k1 in _blocks(length, window):
            mask = _block_mask(layout, (q0, q1, k0, k1), window, query)
            blocks.append(
                F.scaled_dot_product_attention(
                    query[:, :, q0:q1], key[:, :, k0:k1], value[:, :, k0:k1], attn_mask=mask, dropout_p=dropout
                )
            )
        out = blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=2)
        parts.append(out.transpose(1, 2).reshape(count * length, -1))
    return torch.cat(parts) if parts else qkv.new_zeros(0, qkv.shape[2] * qkv.shape[3])


def _blocks(length: int, window: int | None) -> list[tuple[int, int, int, int]]:
    """(first query, end, first key, end) of each block of a document."""
    if window is None or length <= max(DENSE_LOCAL_LENGTH, window + 1):
        return [(0, length, 0, length)]
    starts = range(0, length, LOCAL_BLOCK)
    return [
        (q0, min(q0 + LOCAL_BLOCK, length), max(q0 - window, 0), min(q0 + LOCAL_BLOCK + window, length))
        for q0 in starts
    ]


def _block_mask(
    layout: Layout, block: tuple[int, int, int, int] | int, window: int | None, like: torch.Tensor
) -> torch.Tensor | None:
    """Mask of a block of a document, or of a whole document of this length; None where nothing is hidden."""
    q0, q1, k0, k1 = (0, block, 0, block) if isinstance(block, int) else block
    if window is None or max(q1 - 1 - k0, k1 - 1 - q0) <= window:
        return None
    return layout.band(q1 - q0, k1 - k0, q0 - k0, window, like)


@torch.compiler.disable  # calls kernels itself; views of one buffer that overlap give a compiler nothing to do
def _flat(qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, layout: Layout, window: int | None) -> torch.Tensor:
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
                query, key, value, 0.0, False, attn_mask=_block_mask(layout, length, window, query), scale=width**-0.5
            )
            out[start : start + count * length] = result.transpose(1, 2).reshape(-1, heads, width)
            logsumexps.append(logsumexp)
        ctx.save_for_backward(buffer, out, turn)
        ctx.layout, ctx.window, ctx.logsumexps = layout, window, logsumexps
        return out.view(rows, heads * width).to(qkv.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        buffer, out, turn = ctx.saved_tensors
        layout: Layout = ctx.layout
        total, plan, (rows, heads, width) = len(layout.position_ids), _Plan.of(layout, ctx.window), out.shape
        grad_out = grads[0].float().view(out.shape)
        inner = torch.empty(3, heads, max(total, plan.count * plan.block), width)
        for head in range(heads if plan.blocked else 0):
            _backward_windows(plan, layout, buffer[:, head], grad_out[: plan.blocked, head], inner[:, head])
        by_head, grad_by_head = out.transpose(0, 1), grad_out.transpose(0, 1)
        for (start, (count, length)), logsumexp in zip(plan.starts(), ctx.logsumexps, strict=True):
            query, key, value = (_group(x, start + plan.halo, count, length) for x in buffer)
            result, grad_result = (_group(x, start, count, length) for x in (by_head, grad_by_head))
            mask = _block_mask(layout, length, ctx.window, query)
            found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                grad_result, query, key, value, result, logsumexp, 0.0, False, attn_mask=mask, scale=width**-0.5
            )
            for target, x in zip(inner, found, strict=True):
                _group(target, start, count, length).copy_(x)
        grad = torch.empty(rows, 3, heads, width)
        grad[total:] = 0
        target = grad[:total].permute(1, 2, 0, 3)
        _rotate_pairs(target[:2], inner[:2, :, :total], turn.conj().resolve_conj())
        target[2] = inner[2, :, :total]
        return grad.to(grads[0].dtype), None, None, None, None


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
        return inside.view(self.count, self.block, width), *overlapping  # type: ignore[return-value]


def _weights(query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Softmax weights `[n, s, t]`."""
    return torch.softmax(torch.baddbmm(mask, query, key.transpose(1, 2), alpha=query.shape[-1] ** -0.5), -1)


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


def _varlen(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    layout: Layout,
    window: int | None,
    implementation: str,
    dropout: float,
    deterministic: bool,
) -> torch.Tensor:
    """One variable-length flash kernel for the whole batch."""
    qk = rotate(qkv[:, :2], cos, sin)
    query, key, value = qk[:, 0], qk[:, 1], qkv[:, 2]
    cu, longest = layout.cu_seqlens, layout.max_length
    span = (-1, -1) if window is None else (window, window)
    if implementation == "flash_attention_3":
        try:
            from flash_attn_interface import flash_attn_varlen_func as flash3
        except ImportError as error:
            raise ImportError("attn_implementation='flash_attention_3' needs flash-attn 3; use 'sdpa'") from error
        out = flash3(query, key, value, cu, cu, longest, longest, window_size=span, deterministic=deterministic)
        out = out[0] if isinstance(out, tuple) else out
    elif implementation == "flash_attention_2":
        try:
            from flash_attn import flash_attn_varlen_func as flash2
        except ImportError as error:
            raise ImportError("attn_implementation='flash_attention_2' needs flash-attn; use 'sdpa'") from error
        out = flash2(
            query, key, value, cu, cu, longest, longest, dropout_p=dropout, window_size=span,
            deterministic=deterministic,
        )  # fmt: skip
    else:
        out = torch.ops.aten._flash_attention_forward(
            query, key, value, cu, cu, longest, longest, dropout, False, False,
            scale=query.shape[-1] ** -0.5, window_size_left=span[0], window_size_right=span[1],
        )[0]  # fmt: skip
    return out.reshape(qkv.shape[0], -1)
