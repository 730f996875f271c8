"""Start a bigger model from a smaller one by tiling its weights, as ModernBERT-large was started from base.

Every matrix of the small model is repeated along both sides until it fills the big one, from the middle, so that the
centre of each big matrix is the small matrix itself. Queries, keys, values and the two halves of the gated
linear unit are tiled each by itself, and queries, keys and values by whole heads. Layer i of L comes from layer
round(i * l / L) of l (Gopher's layer mapping), as in ModernBERT's released code.
"""

from __future__ import annotations

import torch

from .configuration_rexbert import RexBertConfig
from .modeling_rexbert import RexBertForMaskedLM


def grow(small: RexBertForMaskedLM, config: RexBertConfig) -> RexBertForMaskedLM:
    """Build a model of `config` whose weights are tiled from `small`.

    Parameters that `small` has no source for (the attention norm of a layer that comes from the first layer, which has
    none; biases that it lacks) keep their fresh initialisation.

    Args:
        small: the trained model.
        config: the bigger model: same vocabulary, same head width, nothing smaller than in `small`.

    Raises:
        ValueError: if the big model cannot hold the small one.

    Example:
        >>> tiny = {"vocab_size": 64, "intermediate_size": 8, "num_hidden_layers": 1, "pad_token_id": 0}
        >>> small = RexBertForMaskedLM(RexBertConfig(hidden_size=8, num_attention_heads=2, **tiny))
        >>> big = grow(small, RexBertConfig(hidden_size=16, num_attention_heads=4, **tiny))
        >>> a, b = (model.model.layers[0].mlp.Wo.weight for model in (small, big))
        >>> bool((b[4:12, :] == a).all())
        True
    """
    _check(small.config, config)
    big: RexBertForMaskedLM = RexBertForMaskedLM._from_config(config, dtype=small.dtype)
    sources = small.state_dict()
    layers = layer_sources(small.config.num_hidden_layers, config.num_hidden_layers)
    for name, fresh in big.state_dict().items():
        source = sources.get(_source_name(name, layers))
        if source is None:
            continue
        grown = source.to(fresh.device)
        for dimension, index in enumerate(_indexes(name, small.config, config)):
            grown = grown.index_select(dimension, index.to(fresh.device))
        fresh.copy_(grown)
    big.tie_weights()
    return big


def layer_sources(small: int, big: int) -> list[int]:
    """Layer of the small model that each layer of the big one comes from.

    Example:
        >>> layer_sources(3, 5)
        [0, 1, 1, 2, 2]
    """
    return [min(round(i * small / big), small - 1) for i in range(big)]


def tile_index(small: int, big: int, unit: int = 1) -> torch.Tensor:
    """Element of the small side that each element of the big side copies.

    Args:
        small: length of the small side.
        big: length of the big side.
        unit: tile whole runs of this many elements (the width of a head).

    Example:
        >>> tile_index(3, 8).tolist()
        [1, 2, 0, 1, 2, 0, 1, 2]
    """
    have, want = small // unit, big // unit
    place = (torch.arange(want) - (want - have) // 2) % have
    return (place[:, None] * unit + torch.arange(unit)[None, :]).reshape(-1)


def _check(small: RexBertConfig, big: RexBertConfig) -> None:
    for name in ("num_hidden_layers", "hidden_size", "intermediate_size"):
        if getattr(big, name) < getattr(small, name):
            raise ValueError(f"{name}={getattr(big, name)} is smaller than the small model's {getattr(small, name)}")
    if small.vocab_size != big.vocab_size:
        raise ValueError(f"vocab_size={big.vocab_size} must equal the small model's {small.vocab_size}")
    widths = [config.hidden_size // config.num_attention_heads for config in (small, big)]
    if widths[0] != widths[1]:
        raise ValueError(
            f"heads must keep their width {widths[0]}, got {widths[1]}:"
            f" set num_attention_heads={big.hidden_size // widths[0]}"
        )


def _source_name(name: str, layers: list[int]) -> str:
    parts = name.split(".")
    if "layers" in parts:
        place = parts.index("layers") + 1
        parts[place] = str(layers[int(parts[place])])
    return ".".join(parts)


def _indexes(name: str, small: RexBertConfig, big: RexBertConfig) -> list[torch.Tensor]:
    """Tile index of each dimension of a parameter."""
    head = small.hidden_size // small.num_attention_heads
    width = tile_index(small.hidden_size, big.hidden_size)
    heads = tile_index(small.hidden_size, big.hidden_size, unit=head)
    half = tile_index(small.intermediate_size, big.intermediate_size)
    words = torch.arange(small.vocab_size)
    if ".attn.Wqkv." in name:
        sides = [_blocks(heads, 3, small.hidden_size), width]
    elif ".attn.Wo." in name:
        sides = [width, heads]
    elif ".mlp.Wi." in name:
        sides = [_blocks(half, 2, small.intermediate_size), width]
    elif ".mlp.Wo." in name:
        sides = [width, half]
    elif "tok_embeddings" in name or name.startswith("decoder."):
        sides = [words, width]
    else:
        sides = [width, width]
    matrix = name.endswith("weight") and "norm" not in name
    return sides if matrix else sides[:1]


def _blocks(index: torch.Tensor, count: int, size: int) -> torch.Tensor:
    """The index of `count` stacked blocks of `size` elements, each tiled by itself."""
    return torch.cat([index + block * size for block in range(count)])


__all__ = ["grow", "layer_sources", "tile_index"]
