"""Attention over a flat batch of documents: the only file that knows back-ends.

Every function takes queries, keys and values of T tokens in D documents, `[T, N, E]` (N heads of width E), and a
`Layout` that says where documents begin. One document never sees another; a local layer sees |q - k| <= window.

* CUDA from Ampere on, half precision: one variable-length flash kernel (flash-attn 2/3 where asked for, else torch's).
* Everywhere else ("sdpa"): documents are sorted by length once per batch, so that each group of equal length is a
  view `[n, s, N, E]` of the flat tensor, with no padding, no mask and no copy; long local layers go in blocks. On CPU
  local layers and short documents go in blocks across documents, together (`flat_attention_rexbert.py`).
* "eager": padded softmax, for attention maps.
* Inside torch.compile or torch.export a padded batch stays padded ("dense"): shapes may not depend on data.

Travels to the Hub as remote code: imports torch and its siblings only.
"""

from __future__ import annotations

import functools
import warnings

import torch
import torch.nn.functional as F

from .flat_attention_rexbert import DENSE_LOCAL_LENGTH, flat_attention
from .fused_rexbert import fusable
from .layout_rexbert import Layout
from .products_rexbert import is_transformed

LOCAL_BLOCK = 128
"""Queries a block in local layers: each reads LOCAL_BLOCK + 2 * window keys."""

IMPLEMENTATIONS = ("sdpa", "eager", "flash_attention_2", "flash_attention_3")
"""Values of `attn_implementation`."""

_DETERMINISTIC = (
    "deterministic_flash_attn is for flash-attn; torch's own kernel is deterministic after"
    " torch.use_deterministic_algorithms(True), which the Trainer's full_determinism says"
)


def uses_varlen(implementation: str, device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether a variable-length flash kernel runs on this device and dtype, and for heads of this width.

    Raises:
        ValueError: if there is no such implementation. transformers lets others through, and puts a kernel of its own
            in the place of a flash-attn that is not installed.
    """
    if implementation not in IMPLEMENTATIONS:
        known = ", ".join(IMPLEMENTATIONS)
        raise ValueError(f"attn_implementation={implementation!r} is none of RexBERT's ({known}): use 'sdpa'")
    if implementation in ("flash_attention_2", "flash_attention_3"):
        return True
    half = implementation == "sdpa" and device.type == "cuda" and dtype in (torch.float16, torch.bfloat16)
    return half and head_dim % 8 == 0 and _has_flash(device)


@functools.cache
def _has_flash(device: torch.device) -> bool:
    """Whether torch's own flash kernel runs on a GPU: from Ampere on."""
    return torch.cuda.get_device_capability(device) >= (8, 0)


@fusable
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
    return fast and implementation == "sdpa" and not layout.is_dense and not is_transformed()


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
        deterministic: deterministic backward pass of the flash-attn kernels; torch's own takes
            `torch.use_deterministic_algorithms(True)`.
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
    if uses_varlen(implementation, qkv.device, qkv.dtype, qkv.shape[-1]):
        return _varlen(qkv, cos, sin, layout, window, implementation, dropout, deterministic), None
    assert layout.groups is not None
    if paired:
        return flat_attention(qkv, cos, sin, layout, window), None
    return _grouped(qkv, cos, sin, layout, window, dropout), None


def _dense(
    qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, layout: Layout, window: int | None, dropout: float
) -> torch.Tensor:
    batch, length = layout.shape
    states = _rotated(qkv, cos, sin)
    query, key, value = (x.view(batch, length, *x.shape[1:]).transpose(1, 2) for x in states)
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
    query, key, value = _rotated(qkv, cos, sin)
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
    scores = pad(query) @ pad(key).transpose(-1, -2) * qkv.shape[-1] ** -0.5
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype) * valid[:, None, :, None]
    weights = F.dropout(weights, dropout, training=dropout > 0)
    out = (weights @ pad(value)).transpose(1, 2).reshape(count * length, qkv.shape[2] * qkv.shape[3])
    return out.index_select(0, place), weights


def _grouped(
    qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, layout: Layout, window: int | None, dropout: float
) -> torch.Tensor:
    """The sdpa back-end through autograd: any device, dtype and dropout."""
    assert layout.groups is not None
    sizes = [count * length for count, length in layout.groups]
    parts = []
    states = (x.split(sizes) for x in _rotated(qkv, cos, sin))
    for (count, length), *group in zip(layout.groups, *states, strict=True):
        query, key, value = (x.reshape(count, length, *qkv.shape[2:]).transpose(1, 2) for x in group)
        blocks = []
        for q0, q1, k0, k1 in _blocks(length, window):
            mask = layout.local_mask((q0, q1, k0, k1), window, query)
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


def _rotated(
    qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rotated queries and keys, and values, `[T, N, E]` each.

    By `split` and `unbind`, whose way back is one copy each: indexes would fill a tensor of the whole size with zeros
    for every one of them, and add these up.
    """
    pair, value = qkv.split([2, 1], dim=1)
    query, key = rotate(pair, cos, sin).unbind(1)
    return query, key, value.squeeze(1)


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
    query, key, value = _rotated(qkv, cos, sin)
    cu, longest = layout.cu_seqlens, layout.max_length
    span = (-1, -1) if window is None else (window, window)
    if implementation == "flash_attention_3":
        try:
            from flash_attn_interface import flash_attn_varlen_func as flash3
        except ImportError as error:
            raise ImportError("attn_implementation='flash_attention_3' needs flash-attn 3; use 'sdpa'") from error
        if dropout:
            raise ValueError(
                "flash_attention_3 has no dropout: set attention_dropout to 0, or attn_implementation to sdpa"
            )
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
        if deterministic and not torch.are_deterministic_algorithms_enabled():
            warnings.warn(_DETERMINISTIC, stacklevel=2)  # the kernel has no argument for it
        out = torch.ops.aten._flash_attention_forward(
            query, key, value, cu, cu, longest, longest, dropout, False, False,
            scale=query.shape[-1] ** -0.5, window_size_left=span[0], window_size_right=span[1],
        )[0]  # fmt: skip
    return out.reshape(qkv.shape[0], -1)
