"""What is exported: an encoder and what follows it, and ModernBERT's encoder in onnxruntime's own operators.

Traced as it stands, a ModernBERT of two layers is 158 nodes, most of which make shapes, masks and rotations and cost
more than the matrix products of a query. Here attention and rotary embedding are one node each, angles lie in a table,
and the window of local layers is made once: a third of the nodes, the same vectors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import ModernBertModel

PADDING, OUTSIDE = -1e4, -1e5
"""Added to the scores of padding, and of tokens outside the window. Finite: a row may have nothing else to look at."""


class ExportedGraph(nn.Module):
    """Token ids and mask `[B, S]` to vectors `[B, D]`.

    Args:
        encoder: called with ids and mask, returns hidden states `[B, S, H]` under `last_hidden_state`.
        tail: modules of sentence-transformers that follow it.
        truncate_dim: of the vectors.
    """

    def __init__(self, encoder: nn.Module, tail: list[nn.Module], truncate_dim: int | None) -> None:
        super().__init__()
        self.encoder, self.tail, self.truncate_dim = encoder, nn.ModuleList(tail), truncate_dim

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Encode, pool, and whatever else the tail does."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        features: dict[str, Any] = {
            "token_embeddings": getattr(hidden, "last_hidden_state", hidden),
            "attention_mask": attention_mask,
        }
        for module in self.tail:
            features = module(features)
        vectors: torch.Tensor = features["sentence_embedding"]
        return vectors if self.truncate_dim is None else vectors[:, : self.truncate_dim]


class FusedModernBert(nn.Module):
    """Stock ModernBERT for export alone: in torch its attention returns nothing of use.

    Args:
        model: whose modules are shared.
        max_length: longest input in tokens; angles of rotary embedding are kept for as many.
    """

    def __init__(self, model: ModernBertModel, max_length: int) -> None:
        super().__init__()
        config = model.config
        self.embeddings, self.final_norm = model.embeddings, model.final_norm
        self.layers: Any = model.layers
        self.heads, self.scale = config.num_attention_heads, (config.hidden_size // config.num_attention_heads) ** -0.5
        # Inputs that no longer than the window reaches need no window.
        self.window = config.sliding_window if max_length > config.sliding_window + 1 else None
        self.kinds = [str(kind) for kind in (config.layer_types or [])[: len(model.layers)]]
        positions, like = torch.arange(max_length)[None], torch.zeros(1)
        for kind in set(self.kinds):
            for name, table in zip(("cos", "sin"), model.rotary_emb(like, positions, kind), strict=True):
                self.register_buffer(f"{kind}_{name}", table[0, :, : table.shape[-1] // 2].contiguous())
        self.first = nn.Buffer(torch.zeros(1, dtype=torch.int64))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Ids and mask `[B, S]` to hidden states `[B, S, H]`."""
        hidden = self.embeddings(input_ids)
        padding, window = attention_mask.to(torch.int32), self._window(input_ids.shape[1])
        for kind, layer in zip(self.kinds, self.layers, strict=True):
            local = window if kind == "sliding_attention" else None
            hidden = hidden + self._attend(kind, layer.attn, layer.attn_norm(hidden), padding, local)
            hidden = hidden + layer.mlp(layer.mlp_norm(hidden))
        output: torch.Tensor = self.final_norm(hidden)
        return output

    def _window(self, length: int) -> torch.Tensor | None:
        """What local layers add to scores, `[1, 1, S, S]`."""
        if self.window is None or "sliding_attention" not in self.kinds:
            return None
        place = torch.arange(length)
        inside = (place[:, None] - place[None]).abs() <= self.window
        return torch.where(inside, 0.0, OUTSIDE)[None, None]

    def _attend(
        self, kind: str, attn: Any, hidden: torch.Tensor, padding: torch.Tensor, window: torch.Tensor | None
    ) -> torch.Tensor:
        query, key, value = attn.Wqkv(hidden).chunk(3, dim=-1)
        angles = self.first, self.get_buffer(f"{kind}_cos"), self.get_buffer(f"{kind}_sin")
        query, key = (
            _node("RotaryEmbedding", (part, *angles), {"num_heads": self.heads, "interleaved": 0})
            for part in (query, key)
        )
        facts = {"num_heads": self.heads, "scale": self.scale, "mask_filter_value": PADDING}
        found = _node("MultiHeadAttention", (query, key, value, None, padding, window), facts)
        output: torch.Tensor = attn.Wo(found)
        return output


def _node(name: str, inputs: tuple[torch.Tensor | None, ...], attributes: dict[str, Any]) -> torch.Tensor:
    """A node of onnxruntime's own, whose output is like its first input."""
    first = inputs[0]
    assert first is not None
    while inputs[-1] is None:
        inputs = inputs[:-1]
    return torch.onnx.ops.symbolic(
        f"com.microsoft::{name}", inputs, attributes, dtype=first.dtype, shape=first.shape, version=1
    )
