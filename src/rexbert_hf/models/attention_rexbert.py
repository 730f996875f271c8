"""Attention over a flat batch of documents: the only file that knows back-ends.

Every function takes queries, keys and values of T tokens in D documents, `[T, N, E]` (N heads of width E), and a
`Layout` that says where documents begin. One document never sees another; a local layer sees |q - k| <= window.

* CUDA, half precision: one variable-length flash kernel (flash-attn 2/3 where installed, else torch's own).
* Everywhere else ("sdpa"): documents are sorted by length once per batch, so that each group of equal length is a
  view `[n, s, N, E]` of the flat tensor, with no padding, no mask and no copy; long local layers go in blocks.
* "eager": padded softmax, for attention maps.
* Inside torch.compile or torch.export a padded batch stays padded ("dense"): shapes may not depend on data.

Travels to the Hub as remote code: imports torch and transformers only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

LOCAL_BLOCK = 128
"""Queries a block in local layers: each reads LOCAL_BLOCK + 2 * window keys."""

DENSE_LOCAL_LENGTH = 320
"""Up to this document length one banded mask is cheaper than blocks."""


@dataclass
class Layout:
    """Where the documents of a flat batch lie, and how to get back to the caller's shape.

    Attributes:
        position_ids: `[T]`, position of each token in its document.
        shape: the caller's batch and sequence sizes.
        cu_seqlens: int32 `[D + 1]`, document borders in the flat batch (None in a dense batch).
        max_length: length of the longest document.
        groups: (documents, length) of each run of equal length, in flat order; set for the sdpa back-end.
        token_index: `[T]`, place of each flat token in the caller's `[B * S]`; None where flat order is theirs.
        padding_mask: bool `[B, S]`, True on tokens: set in a dense batch only, where padding stays in.
    """

    position_ids: torch.Tensor
    shape: tuple[int, int]
    cu_seqlens: torch.Tensor | None = None
    max_length: int = 0
    groups: list[tuple[int, int]] | None = None
    token_index: torch.Tensor | None = None
    padding_mask: torch.Tensor | None = None
    _masks: dict[Any, torch.Tensor] = field(default_factory=dict)

    @property
    def is_dense(self) -> bool:
        """Whether the flat batch is a padded one, row after row."""
        return self.cu_seqlens is None and self.groups is None

    def restore(self, flat: torch.Tensor) -> torch.Tensor:
        """Flat `[T, ...]` to the caller's `[B, S, ...]`, zeros at padding."""
        if self.token_index is not None:
            full = flat.new_zeros((self.shape[0] * self.shape[1], *flat.shape[1:]))
            flat = full.index_copy(0, self.token_index, flat)
        rows = flat.view(*self.shape, *flat.shape[1:])
        if self.padding_mask is None:
            return rows
        return rows.masked_fill(~self.padding_mask.view(*self.shape, *[1] * (rows.dim() - 2)), 0)

    def flatten(self, padded: torch.Tensor) -> torch.Tensor:
        """The caller's `[B, S, ...]` to flat `[T, ...]`."""
        flat = padded.reshape(self.shape[0] * self.shape[1], *padded.shape[2:])
        return flat if self.token_index is None else flat.index_select(0, self.token_index)

    def flat_index(self, places: torch.Tensor) -> torch.Tensor:
        """Flat indexes of the tokens at `places` of the caller's `[B * S]`, -1 for padding."""
        if self.token_index is None:
            return places
        inverse = torch.full((self.shape[0] * self.shape[1],), -1, dtype=torch.long, device=places.device)
        inverse[self.token_index] = torch.arange(len(self.token_index), device=places.device)
        return inverse[places]

    def rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Place `[T]` of each flat token in padded rows, and True on their tokens `[rows, length]`.

        The rows are the caller's, or the documents of a flat batch that holds several.
        """
        device = self.position_ids.device
        if self.cu_seqlens is not None and self.shape[0] == 1 and len(self.cu_seqlens) > 2:
            lengths = self.cu_seqlens.diff()
            valid = torch.arange(self.max_length, device=device)[None, :] < lengths[:, None]
            return valid.view(-1).nonzero().squeeze(1), valid
        total = self.shape[0] * self.shape[1]
        if self.token_index is None:
            valid = torch.ones(self.shape, dtype=torch.bool, device=device)
            return torch.arange(total, device=device), valid if self.padding_mask is None else self.padding_mask
        valid = torch.zeros(total, dtype=torch.bool, device=device).index_fill(0, self.token_index, True)
        return self.token_index, valid.view(self.shape)

    def dense_mask(self, window: int | None) -> torch.Tensor | None:
        """Boolean `[B or 1, 1, S or 1, S]` mask of a dense batch, True where attention may look; None: everywhere."""
        if window is None:
            return None if self.padding_mask is None else self.padding_mask[:, None, None, :]
        if window not in self._masks:
            position = torch.arange(self.shape[1], device=self.position_ids.device)
            band = ((position[:, None] - position[None, :]).abs() <= window)[None, None]
            self._masks[window] = band if self.padding_mask is None else self.padding_mask[:, None, None, :] & band
        return self._masks[window]

    def band(self, queries: int, keys: int, offset: int, window: int, like: torch.Tensor) -> torch.Tensor:
        """Additive `[queries, keys]` mask of |q + offset - k| <= window, kept for the rest of the batch."""
        key = (queries, keys, offset, window)
        if key not in self._masks:
            distance = torch.arange(queries)[:, None] + offset - torch.arange(keys)[None, :]
            mask = torch.zeros(queries, keys).masked_fill_(distance.abs() > window, -math.inf)
            self._masks[key] = mask.to(device=like.device, dtype=like.dtype)
        return self._masks[key]


def uses_varlen(implementation: str, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a variable-length flash kernel runs on this device and dtype."""
    if implementation in ("flash_attention_2", "flash_attention_3"):
        return True
    return implementation == "sdpa" and device.type == "cuda" and dtype in (torch.float16, torch.bfloat16)


def make_layout(
    shape: tuple[int, int],
    device: torch.device,
    attention_mask: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    max_length: int | None = None,
    varlen: bool = False,
) -> Layout:
    """Layout of a call, from whatever the caller gave.

    `cu_seqlens` (flat batch), else `position_ids` of one row (its zeros are the borders), else `attention_mask`
    (padded batch), else rows of equal length.

    Raises:
        ValueError: if the arguments contradict each other or the shape.
    """
    batch, length = shape
    # torch 2.11 says inside torch.compile that it exports; without this, documents would see each other there.
    exporting = torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()
    tracing = exporting or torch.jit.is_tracing()
    if cu_seqlens is None and batch == 1 and position_ids is not None and not tracing:
        cu_seqlens = _borders(position_ids.reshape(-1))
    if cu_seqlens is not None:
        return _flat_layout(shape, device, attention_mask, position_ids, cu_seqlens, max_length, varlen)
    if attention_mask is not None and attention_mask.dim() != 2:
        raise ValueError(
            f"attention_mask has {attention_mask.dim()} dimensions: give [batch, length] with ones on tokens, or a"
            " flat batch with cu_seq_lens_q"
        )
    if attention_mask is not None and tuple(attention_mask.shape) != (batch, length):
        raise ValueError(f"attention_mask is {list(attention_mask.shape)}, but the input is {[batch, length]}")
    rows = torch.arange(length, device=device).expand(batch, length) if position_ids is None else position_ids
    rows = rows.expand(batch, length)
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        padding_mask = None if attention_mask is None else attention_mask.bool()
        return Layout(rows.reshape(-1), shape, padding_mask=padding_mask)
    if attention_mask is None or bool(attention_mask.all()):
        cu = torch.arange(0, (batch + 1) * length, max(length, 1), dtype=torch.int32, device=device)[: batch + 1]
        return Layout(rows.reshape(-1), shape, cu, length, groups=[(batch, length)])
    mask = attention_mask.bool()
    if bool(((mask[:, 1:] & ~mask[:, :-1]).sum(1) + mask[:, 0] > 1).any()):
        # Masked tokens inside a row keep their place: closing the gap would bring its sides nearer to each other.
        return Layout(rows.reshape(-1), shape, padding_mask=mask)
    token_index = mask.reshape(-1).nonzero().squeeze(1)
    lengths = mask.sum(1)
    lengths = lengths[lengths > 0]
    return _ragged(shape, rows.reshape(-1)[token_index], lengths, token_index, varlen)


def _borders(position_ids: torch.Tensor) -> torch.Tensor | None:
    """Document borders `[D + 1]` from restarting positions `[T]`; None for a single document."""
    starts = (position_ids == 0).nonzero().squeeze(1)
    if len(starts) < 2 or int(starts[0]) != 0:
        return None
    return torch.cat([starts, starts.new_tensor([len(position_ids)])]).to(torch.int32)


def _flat_layout(
    shape: tuple[int, int],
    device: torch.device,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    cu_seqlens: torch.Tensor,
    max_length: int | None,
    varlen: bool,
) -> Layout:
    total = shape[1]
    if shape[0] != 1:
        raise ValueError(f"a flat batch is [1, tokens], got {list(shape)} together with cu_seq_lens_q")
    if attention_mask is not None and attention_mask.dim() == 2 and not bool(attention_mask.all()):
        raise ValueError("a flat batch has no padding: leave attention_mask out where cu_seq_lens_q is given")
    if varlen and device.type != "cpu" and position_ids is not None and max_length is not None:
        # Nothing here may wait for the device: lengths stay on it.
        return Layout(position_ids.reshape(-1), shape, cu_seqlens.to(device, torch.int32), int(max_length))
    host = cu_seqlens.to("cpu", torch.long)
    if int(host[0]) != 0 or int(host[-1]) != total or bool((host.diff() < 0).any()):
        raise ValueError(
            f"cu_seq_lens_q must rise from 0 to the number of tokens {total}, got {host[:4].tolist()} ...,"
            f" {int(host[-1])} (accelerate's dispatch_batches=True cuts it: set it to False)"
        )
    lengths = host.diff()
    lengths = lengths[lengths > 0].to(device)
    if position_ids is None:
        starts = torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)
        position_ids = torch.arange(total, device=device) - starts
    return _ragged(shape, position_ids.reshape(-1), lengths, None, varlen)


def _ragged(
    shape: tuple[int, int],
    position_ids: torch.Tensor,
    lengths: torch.Tensor,
    token_index: torch.Tensor | None,
    varlen: bool,
) -> Layout:
    """Layout of documents one after the other; for sdpa sorted by length, so that equal ones are neighbours."""
    if varlen:
        cu = F.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
        longest = int(lengths.max()) if len(lengths) else 0
        return Layout(position_ids, shape, cu, longest, token_index=token_index)
    ordered, order = lengths.sort(stable=True)
    if bool((order[1:] < order[:-1]).any()):
        starts = (lengths.cumsum(0) - lengths)[order]
        within = torch.arange(len(position_ids), device=lengths.device)
        within = within - torch.repeat_interleave(ordered.cumsum(0) - ordered, ordered)
        move = torch.repeat_interleave(starts, ordered) + within
        position_ids = position_ids[move]
        token_index = move if token_index is None else token_index[move]
    values, counts = torch.unique_consecutive(ordered, return_counts=True)
    groups = list(zip(counts.tolist(), values.tolist(), strict=True))
    cu = F.pad(ordered.cumsum(0), (1, 0)).to(torch.int32)
    return Layout(position_ids, shape, cu, groups[-1][1] if groups else 0, groups=groups, token_index=token_index)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of `[T, ..., E]` with float32 `cos` and `sin` `[T, E / 2]`, computed in float32.

    Element i turns with element i + E / 2, as in stock ModernBERT.
    """
    half = x.shape[-1] // 2
    cos, sin = (table.view(table.shape[0], *[1] * (x.dim() - 2), half) for table in (cos, sin))
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


def _rotate_into(out: torch.Tensor, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
    """`rotate` without autograd and with few passes over memory; `out` (float32) may not share memory with `x`."""
    half = x.shape[-1] // 2
    cos, sin = (table.view(table.shape[0], *[1] * (x.dim() - 2), half) for table in (cos, sin))
    first, second = x[..., :half], x[..., half:]
    torch.mul(first, cos, out=out[..., :half]).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=out[..., half:]).addcmul_(first, sin)


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

    Returns:
        Outputs `[T, N * E]` and, for "eager", the weights `[B, N, S, S]` in the caller's shape.
    """
    tokens = layout.position_ids.shape[0]
    if qkv.shape[0] > tokens and not (implementation == "sdpa" and dropout == 0.0):
        out, weights = attend(qkv[:tokens], cos, sin, layout, window, implementation, dropout, deterministic)
        return F.pad(out, (0, 0, 0, qkv.shape[0] - tokens)), weights
    if implementation == "eager":
        return _eager(qkv, cos, sin, layout, window, dropout)
    if layout.is_dense:
        return _dense(qkv, cos, sin, layout, window, dropout), None
    if uses_varlen(implementation, qkv.device, qkv.dtype):
        return _varlen(qkv, cos, sin, layout, window, implementation, dropout, deterministic), None
    assert layout.groups is not None
    if qkv.device.type == "cpu" and dropout == 0.0 and qkv.dtype != torch.float64:
        fast: torch.Tensor = _GroupedAttention.apply(qkv, cos, sin, layout, window)
        return fast, None
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
    layout: Layout, block: tuple[int, int, int, int], window: int | None, like: torch.Tensor
) -> torch.Tensor | None:
    q0, q1, k0, k1 = block
    if window is None or max(q1 - 1 - k0, k1 - 1 - q0) <= window:
        return None
    return layout.band(q1 - q0, k1 - k0, q0 - k0, window, like)


class _GroupedAttention(torch.autograd.Function):
    """The sdpa back-end on CPU, with torch's flash kernels called directly on views, in float32.

    Autograd would write a zero-filled full-size gradient for each slice; here every group's result is used once, in
    one concatenation. The kernels run in float32 whatever the dtype: their bfloat16 form is compiled anew for every
    document length.
    """

    @staticmethod
    def forward(
        ctx: Any,
        qkv: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        layout: Layout,
        window: int | None,
    ) -> torch.Tensor:
        rows, _, heads, width = qkv.shape
        total = len(layout.position_ids)
        qk = torch.empty(total, 2, heads, width)
        _rotate_into(qk, qkv[:total, :2], cos, sin)
        value = qkv[:total, 2].float()
        outputs, logsumexps = [], []
        for length, (query, key, values) in _grouped_views(layout, qk[:, 0], qk[:, 1], value):
            parts = []
            for block in _blocks(length, window):
                (q0, q1, k0, k1), mask = block, _block_mask(layout, block, window, query)
                result, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                    query[:, :, q0:q1], key[:, :, k0:k1], values[:, :, k0:k1], 0.0, False,
                    attn_mask=mask, scale=width**-0.5,
                )  # fmt: skip
                parts.append(result.transpose(1, 2))
                logsumexps.append(logsumexp)
            outputs.append(_join(parts))
        out = torch.cat([*outputs, qkv.new_zeros(rows - total, heads, width, dtype=torch.float32)])
        ctx.save_for_backward(value, qk, out, cos, sin)
        ctx.layout, ctx.window, ctx.logsumexps = layout, window, logsumexps
        return out.view(rows, heads * width).to(qkv.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        value, qk, out, cos, sin = ctx.saved_tensors
        total, width = len(value), value.shape[-1]
        grad_out = grads[0].float().view(out.shape)
        groups = _grouped_views(ctx.layout, qk[:, 0], qk[:, 1], value, out, grad_out)
        logsumexps = iter(ctx.logsumexps)
        pieces: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        for length, (query, key, values, result, grad_result) in groups:
            blocks = _blocks(length, ctx.window)
            parts = []
            for block in blocks:
                (q0, q1, k0, k1), mask = block, _block_mask(ctx.layout, block, ctx.window, query)
                found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                    grad_result[:, :, q0:q1], query[:, :, q0:q1], key[:, :, k0:k1], values[:, :, k0:k1],
                    result[:, :, q0:q1], next(logsumexps), 0.0, False, attn_mask=mask, scale=width**-0.5,
                )  # fmt: skip
                parts.append(tuple(x.transpose(1, 2) for x in found))
            grad_key, grad_value = (_overlap([part[i] for part in parts], blocks, length) for i in (1, 2))
            pieces.append((_join([part[0] for part in parts]), grad_key, grad_value))
        grad = torch.empty(len(out), 3, *out.shape[1:])
        grad[total:] = 0
        if pieces:
            grad_query, grad_key, grad_value = (torch.cat(column) for column in zip(*pieces, strict=True))
            _rotate_into(grad[:total, 0], grad_query, cos, -sin)
            _rotate_into(grad[:total, 1], grad_key, cos, -sin)
            grad[:total, 2] = grad_value
        return grad.to(grads[0].dtype), None, None, None, None


def _grouped_views(layout: Layout, *tensors: torch.Tensor) -> Iterator[tuple[int, list[torch.Tensor]]]:
    """Length and views `[n, N, length, E]` of each group of flat `[T, N, E]` tensors."""
    start = 0
    for count, length in layout.groups or []:
        stop = start + count * length
        yield length, [x[start:stop].view(count, length, *x.shape[1:]).transpose(1, 2) for x in tensors]
        start = stop


def _join(parts: list[torch.Tensor]) -> torch.Tensor:
    """Blocks `[n, block, N, E]` of a group as flat `[n * length, N, E]`."""
    whole = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    return whole.reshape(-1, *whole.shape[2:])


def _overlap(parts: list[torch.Tensor], blocks: list[tuple[int, int, int, int]], length: int) -> torch.Tensor:
    """Sum of key gradients `[n, keys, N, E]` of overlapping blocks, as flat `[n * length, N, E]`."""
    if len(parts) == 1:
        return _join(parts)
    total = parts[0].new_zeros(parts[0].shape[0], length, *parts[0].shape[2:])
    for part, (_, _, k0, k1) in zip(parts, blocks, strict=True):
        total[:, k0:k1] += part
    return total.view(-1, *total.shape[2:])


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
