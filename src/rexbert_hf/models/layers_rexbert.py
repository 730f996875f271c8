"""The layers of the encoder, over flat hidden states `[T, H]`; names and shapes are stock ModernBERT's.

Shape letters: T tokens of the flat batch; H width; E width of an attention head.
Travels to the Hub as remote code: imports torch, transformers and its siblings only.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from .attention_rexbert import attend, turns_pairs
from .configuration_rexbert import RexBertConfig
from .flat_attention_rexbert import pair_rows
from .fused_rexbert import is_fused, sum_and_norm
from .layout_rexbert import Layout
from .products_rexbert import compute_dtype, is_plain, linear, project, project_cut

LayerT = TypeVar("LayerT", nn.Linear, nn.Embedding)


def drawn(layer: LayerT, std: float) -> LayerT:
    """`layer`, to be drawn from a truncated normal of this deviation (see `_init_weights`)."""
    layer.__dict__["init_std"] = std
    return layer


def residual_std(config: RexBertConfig) -> float:
    """Deviation of the layers that write to the residual stream: shrinks with depth, as Megatron's."""
    return config.initializer_range / math.sqrt(2.0 * config.num_hidden_layers)


def layer_types(config: RexBertConfig) -> list[str]:
    """The layer types, which the config fills in when it is made."""
    assert config.layer_types is not None
    return config.layer_types


class RexBertEmbeddings(nn.Module):
    """Token embeddings, normalised."""

    def __init__(self, config: RexBertConfig) -> None:
        super().__init__()
        embedding = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.tok_embeddings: nn.Module = drawn(embedding, config.initializer_range)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)
        self.drop = nn.Dropout(config.embedding_dropout)

    def forward(self, input_ids: torch.Tensor | None = None, inputs_embeds: torch.Tensor | None = None) -> torch.Tensor:
        """Ids `[T]` or embeddings `[T, H]` to `[T, H]`."""
        if inputs_embeds is None:
            assert input_ids is not None
            if input_ids.device.type == "cpu" and not torch.compiler.is_compiling():
                check_ids(input_ids, getattr(self.tok_embeddings, "num_embeddings", None), "input_ids")
            # As one row: transformers' hooks on embeddings (NEFTune) count rows, tokens and width. Both are views, also
            # on the way back.
            inputs_embeds = self.tok_embeddings(input_ids.unsqueeze(0)).squeeze(0)
        return self.drop(self.norm(inputs_embeds))


def check_ids(ids: torch.Tensor, size: int | None, name: str) -> None:
    """Name the token that the vocabulary lacks; on CPU only: an accelerator would have to be waited for.

    A layer in an adapter does not tell its `size`: what is in it refuses such ids in its own words.
    """
    if size is None or ids.numel() == 0:
        return
    low, high = (int(x) for x in ids.aminmax())
    if low < 0 or high >= size:
        raise ValueError(
            f"{name} holds token id {low if low < 0 else high}, but the embedding has {size} rows (0 to {size - 1}):"
            " use the tokenizer of this checkpoint, or call model.resize_token_embeddings(len(tokenizer))"
        )


class RexBertMLP(nn.Module):
    """Gated linear unit: Wo(act(a) * b), with a and b the halves of Wi(x)."""

    def __init__(self, config: RexBertConfig) -> None:
        super().__init__()
        half, width = config.intermediate_size, config.hidden_size
        self.Wi = drawn(nn.Linear(width, 2 * half, bias=config.mlp_bias), config.initializer_range)
        self.act = ACT2FN[config.hidden_activation]
        self.drop = nn.Dropout(config.mlp_dropout)
        self.Wo = drawn(nn.Linear(half, width, bias=config.mlp_bias), residual_std(config))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states `[T, H]` to `[T, H]`."""
        value, gate = project(self.Wi, hidden).chunk(2, dim=-1)
        return project(self.Wo, self.drop(self.act(value) * gate))


class RexBertAttention(nn.Module):
    """Self-attention of each document of the flat batch over itself."""

    def __init__(self, config: RexBertConfig, layer_idx: int) -> None:
        super().__init__()
        if config.hidden_size % config.num_attention_heads:
            raise ValueError(
                f"hidden_size={config.hidden_size} is not a multiple of"
                f" num_attention_heads={config.num_attention_heads}"
            )
        self.config = config
        self.layer_idx = layer_idx
        self.heads = config.num_attention_heads
        self.head_dim = config.hidden_size // self.heads
        self.is_causal = False
        local = layer_types(config)[layer_idx] == "sliding_attention"
        self.window = config.local_attention // 2 if local else None
        wide, width = 3 * config.hidden_size, config.hidden_size
        self.Wqkv = drawn(nn.Linear(width, wide, bias=config.attention_bias), config.initializer_range)
        self.Wo = drawn(nn.Linear(width, width, bias=config.attention_bias), residual_std(config))
        self.out_drop = nn.Dropout(max(config.attention_dropout, config.attention_output_dropout))

    def forward(
        self, hidden: torch.Tensor, rope: tuple[torch.Tensor, torch.Tensor], layout: Layout
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Hidden states `[T, H]` to `[T, H]`, and attention maps where the back-end has them."""
        implementation = self.config._attn_implementation or "sdpa"
        dropout = self.config.attention_dropout if self.training else 0.0
        paired = turns_pairs(implementation, layout, hidden.device, hidden.dtype, dropout)
        qkv = self._project(hidden, paired).view(hidden.shape[0], 3, self.heads, self.head_dim)
        out, weights = attend(
            qkv,
            *rope,
            layout,
            self.window,
            implementation,
            dropout=dropout,
            deterministic=self.config.deterministic_flash_attn,
            paired=paired,
        )
        return self.out_drop(project(self.Wo, out)), weights

    def _project(self, hidden: torch.Tensor, paired: bool) -> torch.Tensor:
        """Queries, keys and values `[T, 3 * H]`; the elements that turn together side by side if asked for."""
        if not paired:
            return project(self.Wqkv, hidden)
        if not is_plain(self.Wqkv):
            return pair_rows(self.Wqkv(hidden).t(), self.heads).t().contiguous()
        bias = None if self.Wqkv.bias is None else pair_rows(self.Wqkv.bias, self.heads)
        return linear(hidden, pair_rows(self.Wqkv.weight, self.heads), bias)


class RexBertEncoderLayer(GradientCheckpointingLayer):
    """Pre-norm attention and gated linear unit; the first layer's attention norm is the embeddings' own."""

    def __init__(self, config: RexBertConfig, layer_idx: int) -> None:
        super().__init__()
        norm = functools.partial(nn.LayerNorm, config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)
        self.attn_norm = nn.Identity() if layer_idx == 0 else norm()
        self.attn = RexBertAttention(config, layer_idx)
        self.mlp_norm = norm()
        self.mlp = RexBertMLP(config)
        self.attention_type: str = layer_types(config)[layer_idx]

    def forward(
        self,
        hidden: torch.Tensor,
        rope: tuple[torch.Tensor, torch.Tensor],
        layout: Layout,
        *,
        normed: torch.Tensor | None = None,
        following: nn.Module | None = None,
    ) -> tuple[torch.Tensor | None, ...]:
        """Attend, then transform each token.

        Args:
            hidden: `[T, H]`.
            rope: rotary tables of the layer's type.
            layout: of the batch.
            normed: `attn_norm(hidden)`, where the layer before has it already.
            following: the next layer's `attn_norm`, to be taken together with the last sum of this one.

        Returns:
            Hidden states `[T, H]`, attention maps where the back-end has them; with `following` also its output.
        """
        normed = self.attn_norm(hidden) if normed is None else normed
        attended, weights = self.attn(normed, rope, layout)
        hidden, normed = _add_and_norm(hidden, attended, self.mlp_norm)
        changed = self.mlp(normed)
        if following is None:
            return hidden + changed, weights
        hidden, normed = _add_and_norm(hidden, changed, following)
        return hidden, weights, normed


def hands_norms_on(layers: Iterable[nn.Module]) -> bool:
    """Whether layers take the next one's norm along: not past hooks, nor where a checkpoint would hold it."""
    return is_fused() and all(is_plain(one, RexBertEncoderLayer) and not _is_checkpointed(one) for one in layers)


def _is_checkpointed(layer: nn.Module) -> bool:
    return layer.training and bool(getattr(layer, "gradient_checkpointing", False))


def _add_and_norm(hidden: torch.Tensor, added: torch.Tensor, norm: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """The residual sum and its norm; one kernel where functions are fused, and the norm is only that and lies here."""
    if is_fused() and is_plain(norm, nn.LayerNorm) and hidden.dtype != torch.float64:  # autocast leaves that alone
        assert isinstance(norm, nn.LayerNorm)
        if norm.weight.device == hidden.device:
            return sum_and_norm(hidden, added, norm.weight, norm.bias, norm.eps, compute_dtype(hidden))
    hidden = hidden + added
    return hidden, norm(hidden)


class RexBertPredictionHead(nn.Module):
    """Dense, activation, norm; over the first `truncate_dim` dimensions where the config says so."""

    def __init__(self, config: RexBertConfig) -> None:
        super().__init__()
        self.config = config
        dense = nn.Linear(config.hidden_size, config.hidden_size, config.classifier_bias)
        self.dense = drawn(dense, residual_std(config))
        self.act = ACT2FN[config.classifier_activation]
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)

    def forward(self, hidden: torch.Tensor, dim: int | None = None) -> torch.Tensor:
        """Hidden states `[..., H]` to `[..., H]`, or to the first `dim` (default: `truncate_dim`) dimensions."""
        d = self.config.truncate_dim if dim is None else dim
        if d is None or d == self.config.hidden_size:
            return self.norm(self.act(project(self.dense, hidden)))
        if is_plain(self.dense):
            bias = None if self.dense.bias is None else self.dense.bias[:d]
            dense = linear(hidden[..., :d], self.dense.weight[:d, :d], bias)
        else:
            dense = project_cut(self.dense, hidden[..., :d], self.config.hidden_size)[..., :d]
        hidden = self.act(dense)
        norm_bias = None if self.norm.bias is None else self.norm.bias[:d]
        return F.layer_norm(hidden, (d,), self.norm.weight[:d], norm_bias, self.norm.eps)


@functools.lru_cache(maxsize=16)
def _inverse_frequencies(theta: float, width: int, device: torch.device) -> torch.Tensor:
    exponent = torch.arange(0, width, 2, dtype=torch.float) / width
    return (1.0 / theta**exponent).to(device)


class RexBertRotaryEmbedding(nn.Module):
    """Rotary tables from positions. Holds no tensors: it reads the config at each call, so a theta may change."""

    def __init__(self, config: RexBertConfig) -> None:
        super().__init__()
        self.config = config

    def frequencies(
        self, layer_type: str, device: torch.device, length: int | None = None
    ) -> tuple[torch.Tensor, float]:
        """Inverse frequencies `[E / 2]` of a layer type and the factor on its tables.

        Args:
            layer_type: "full_attention" or "sliding_attention".
            device: where they are needed.
            length: longest document, for the rope types that depend on it.
        """
        parameters: Any = self.config.rope_parameters
        rope_type = parameters[layer_type]["rope_type"]
        if rope_type == "default":
            width = self.config.hidden_size // self.config.num_attention_heads
            # The compiler traces through a cache anyway, with a warning.
            compute = _inverse_frequencies.__wrapped__ if torch.compiler.is_compiling() else _inverse_frequencies
            return compute(float(parameters[layer_type]["rope_theta"]), width, device), 1.0
        inverse, scale = ROPE_INIT_FUNCTIONS[rope_type](self.config, device, seq_len=length, layer_type=layer_type)
        return inverse, float(scale)

    @property
    def full_attention_inv_freq(self) -> torch.Tensor:
        """Inverse frequencies of global layers."""
        return self.frequencies("full_attention", torch.device("cpu"))[0]

    @property
    def sliding_attention_inv_freq(self) -> torch.Tensor:
        """Inverse frequencies of local layers."""
        return self.frequencies("sliding_attention", torch.device("cpu"))[0]

    def forward(
        self, x: torch.Tensor, position_ids: torch.Tensor, layer_type: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine and sine tables `[..., E / 2]` in float32 of `position_ids` `[...]`, on the device of `x`."""
        parameters: Any = self.config.rope_parameters
        by_length = parameters[layer_type]["rope_type"] in ("dynamic", "longrope") and position_ids.numel() > 0
        length = int(position_ids.max()) + 1 if by_length else None
        inverse, scale = self.frequencies(layer_type, x.device, length)
        angles = position_ids[..., None].float() * inverse.to(x.device)
        return angles.cos() * scale, angles.sin() * scale
