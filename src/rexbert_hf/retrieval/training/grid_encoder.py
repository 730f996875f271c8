"""All cells of a grid of layers x dimensions from one forward pass of a bi-encoder.

A cell's vector is pooled from the state after its layer, as a model that was cut there gives it (the final norm
included), and read in its first dimensions. The model runs as it is: RexBERT calls back after its layers, stock
encoders return their hidden states; nothing is patched.

Shape letters: N texts, L layers of the grid, H width.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from torch import Tensor, nn

from rexbert_hf.models import RexBertModel
from rexbert_hf.retrieval.training.embedding_blocks import blocks_of
from rexbert_hf.retrieval.training.search_batches import prompt_of

TOKENISE_ROWS = 4_096
"""Texts tokenised at a time."""

IN_MEMORY = 1 << 30
"""Bytes of vectors that are held in memory; a catalogue of a million has several times as many in a grid."""


class GridEncoder(nn.Module):
    """A bi-encoder whose `sentence_embedding` is `[N, L, H]`: pooled, not normalised, a row for each layer.

    Args:
        model: a `SentenceTransformer` of transformer, pooling and nothing but normalisation; also wrapped for several
            processes.
        layers: after which layers; they come out in rising order.

    Example:
        >>> from rexbert_hf.retrieval.training.biencoder import BiEncoderSettings, load_biencoder
        >>> model = load_biencoder(BiEncoderSettings(vocab_size=384), ["red mug", "blue plate"] * 2)
        >>> GridEncoder(model, [1, 2])(model.preprocess(["mug"]))["sentence_embedding"].shape
        torch.Size([1, 2, 64])
    """

    def __init__(self, model: nn.Module, layers: Sequence[int]) -> None:
        super().__init__()
        self.model, self.layers = model, sorted(set(layers))
        if hasattr(model, "no_sync"):  # of a wrapper for several processes; the gradient cache asks for it
            self.no_sync = model.no_sync

    def forward(self, features: Mapping[str, Any]) -> dict[str, Tensor]:
        """`sentence_embedding` of a batch.

        Args:
            features: of texts; as `model.preprocess` makes them.
        """
        transformer, pooling = parts_of(unwrapped(self.model), features.get("task"))
        states = self._states(transformer, dict(features))
        pooled = [pooling({**features, "token_embeddings": state})["sentence_embedding"] for state in states]
        return {"sentence_embedding": torch.stack(pooled, dim=1)}

    def _states(self, transformer: Transformer, features: dict[str, Any]) -> list[Tensor]:
        """What models cut after each layer would hand to pooling; the whole model runs, so that wrappers see it."""
        encoder: Any = transformer.model
        if isinstance(encoder, RexBertModel):
            found: dict[int, Tensor] = {}

            def gather(depth: int, hidden: Tensor, layout: Any) -> None:
                if depth in self.layers:
                    found[depth] = layout.restore(encoder.normed(hidden, depth))

            self.model({**features, "on_layer": gather})
            return [found[depth] for depth in self.layers]
        with _hidden_states(encoder.config):
            states = self.model(features)["all_layer_embeddings"]
        norm = getattr(encoder, "final_norm", nn.Identity())  # stock ModernBERT's; the last state has it already
        return [states[depth] if depth == len(states) - 1 else norm(states[depth]) for depth in self.layers]


@contextmanager
def _hidden_states(config: Any) -> Iterator[None]:
    before, config.output_hidden_states = config.output_hidden_states, True
    try:
        yield
    finally:
        config.output_hidden_states = before


def unwrapped(model: nn.Module) -> SentenceTransformer:
    """The model itself, without wrappers for several processes or compilation.

    Args:
        model: perhaps wrapped.
    """
    while not isinstance(model, SentenceTransformer):
        inner = getattr(model, "module", None) or getattr(model, "_orig_mod", None)
        if inner is None:
            raise TypeError(f"a grid needs a SentenceTransformer; got {type(model).__name__}")
        model = inner
    return model


def parts_of(model: SentenceTransformer, task: str | None = None) -> tuple[Transformer, Pooling]:
    """Transformer and pooling of a bi-encoder.

    Args:
        model: the bi-encoder.
        task: "query" or "document", where each has an encoder of its own.

    Raises:
        ValueError: if it has other modules, which cells of fewer dimensions have no part in.
    """
    modules = list(model.children())
    if modules and isinstance(modules[0], Router):
        routes: dict[str, Any] = dict(modules[0].sub_modules.items())
        name = task if task is not None and task in routes else next(iter(routes))
        modules = [*routes[name], *modules[1:]]
    kinds = [type(module).__name__ for module in modules]
    rest = all(isinstance(module, Normalize) for module in modules[2:])
    if len(modules) < 2 or not isinstance(modules[0], Transformer) or not isinstance(modules[1], Pooling) or not rest:
        raise ValueError(f"a grid needs a transformer with pooling and nothing behind it; the model has {kinds}")
    return modules[0], modules[1]


def shape_of(model: SentenceTransformer) -> tuple[int, int]:
    """Layers and width of a bi-encoder.

    Args:
        model: the bi-encoder.
    """
    config: Any = parts_of(model)[0].model.config
    return int(config.num_hidden_layers), int(config.hidden_size)


@torch.inference_mode()
def encode_grid(
    model: SentenceTransformer,
    texts: Sequence[str],
    role: Literal["query", "document"],
    layers: Sequence[int],
    batch_size: int = 64,
    bf16: bool = False,
) -> np.ndarray:
    """Vectors of all layers of a grid, float32 `[N, L, H]`, not normalised; each text is encoded once.

    Beyond `IN_MEMORY` they lie in a file of the temporary folder, which is gone with them.

    Args:
        model: the bi-encoder.
        texts: any number.
        role: which prompt, and which encoder where each has its own.
        layers: as `GridEncoder` takes them.
        batch_size: texts of one forward pass.
        bf16: bfloat16 autocast.
    """
    training, encoder = model.training, GridEncoder(model, layers)
    found = _space((len(texts), len(encoder.layers), shape_of(model)[1]))
    prompt = prompt_of(model, role)
    model.eval()
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        for start in range(0, len(texts), TOKENISE_ROWS):
            part = list(texts[start : start + TOKENISE_ROWS])
            features = {**model.preprocess(part, prompt=prompt, task=role), "task": role}
            features = {k: v.to(model.device) if isinstance(v, Tensor) else v for k, v in features.items()}
            blocks, place = blocks_of(features, batch_size)
            vectors = torch.cat([encoder(block)["sentence_embedding"].float() for block in blocks])
            found[start : start + len(part)] = vectors[place].cpu().numpy()
    model.train(training)
    return found


def _space(shape: tuple[int, int, int]) -> np.ndarray:
    if 4 * math.prod(shape) <= IN_MEMORY:
        return np.zeros(shape, dtype=np.float32)
    with tempfile.TemporaryFile() as file:  # the map keeps what the name does not
        return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)
