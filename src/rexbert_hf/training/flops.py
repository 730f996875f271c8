"""Useful FLOPs of a masked-LM step, and the machine's matmul peak to hold them against.

Counted, with H hidden size, I half of the GLU, V vocabulary, 2 FLOPs a multiply-add, forward:

- each token, each layer: 8 H^2 (query, key, value, output) + 6 H I (GLU in and out);
- each visible query-key pair, each layer: 4 H (scores and weighted sum), counted with the documents' real lengths:
  L^2 in a global layer, |q - k| <= window in a local one;
- each predicted token: 2 H^2 (head) + 2 H V (output embedding); with a Matryoshka grid 2 d^2 + 2 d V for each cell of
  d dimensions.

Backward costs twice the forward. Padding, special cases of a kernel, norms, activations, RoPE and softmax count
nothing: the figure is what the mathematics needs, so a wasteful implementation gets a low share of the peak.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rexbert_hf.models import RexBertConfig
from rexbert_hf.models.matryoshka_rexbert import Grid
from rexbert_hf.models.products_rexbert import linear

logger = logging.getLogger(__name__)


def visible_pairs(lengths: np.ndarray, window: int | None = None) -> int:
    """Query-key pairs of documents of these lengths.

    Args:
        lengths: tokens of each document.
        window: largest distance of a pair; None for all pairs.

    Example:
        >>> visible_pairs(np.array([3, 5])), visible_pairs(np.array([3, 5]), window=1)
        (34, 20)
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if window is None:
        return int((lengths**2).sum())
    reach = np.minimum(window, np.maximum(lengths - 1, 0))
    return int((lengths * (2 * reach + 1) - reach * (reach + 1)).sum())


@dataclass(frozen=True)
class FlopCounter:
    """FLOPs of forward and backward from what a batch holds.

    Attributes:
        hidden_size: H.
        intermediate_size: I, one half of the GLU.
        vocab_size: V.
        global_layers: layers that see whole documents.
        local_layers: layers that see a window.
        window: largest distance of a pair in a local layer.
        heads: dimensions that prediction reads, and how often in a step; empty: all of them, once.

    Example:
        >>> counter = FlopCounter(hidden_size=2, intermediate_size=3, vocab_size=5, global_layers=1, local_layers=0)
        >>> counter.forward(tokens=4, global_pairs=16, local_pairs=0, predicted=1)
        428
    """

    hidden_size: int
    intermediate_size: int
    vocab_size: int
    global_layers: int
    local_layers: int
    window: int | None = None
    heads: tuple[tuple[int, float], ...] = ()

    @classmethod
    def from_config(cls, config: Any) -> FlopCounter | None:
        """Read a ModernBERT-shaped configuration; other encoders count as all-global layers with a plain MLP.

        A plain MLP costs 4 H I, which 6 H I' equals with I' = 2/3 I. None, after a warning, where a configuration does
        not say what is to be counted.
        """
        layers, width = getattr(config, "num_hidden_layers", None), _inner_size(config)
        kinds = getattr(config, "layer_types", None) or ["full_attention"] * (layers or 0)
        local = sum(kind == "sliding_attention" for kind in kinds)
        gated = hasattr(config, "local_attention")
        if width is None or not kinds or (local and not gated):
            logger.warning("the layers of %s cannot be counted: the log has no MFU", type(config).__name__)
            return None
        inner = width if gated else round(width * 2 / 3)
        window = config.local_attention // 2 if local else None
        return cls(config.hidden_size, inner, config.vocab_size, len(kinds) - local, local, window, _heads(config))

    def forward(self, tokens: int, global_pairs: int, local_pairs: int, predicted: int) -> int:
        """Forward FLOPs.

        Args:
            tokens: tokens, special ones included, padding not.
            global_pairs: visible pairs of one global layer.
            local_pairs: visible pairs of one local layer.
            predicted: tokens with a label.
        """
        layers = self.global_layers + self.local_layers
        linear = tokens * layers * (8 * self.hidden_size**2 + 6 * self.hidden_size * self.intermediate_size)
        attention = 4 * self.hidden_size * (self.global_layers * global_pairs + self.local_layers * local_pairs)
        heads = self.heads or ((self.hidden_size, 1),)
        head = predicted * sum(times * (2 * dim**2 + 2 * dim * self.vocab_size) for dim, times in heads)
        return round(linear + attention + head)

    def step(self, tokens: int, global_pairs: int, local_pairs: int, predicted: int) -> int:
        """FLOPs of forward and backward."""
        return 3 * self.forward(tokens, global_pairs, local_pairs, predicted)


def _inner_size(config: Any) -> int | None:
    """Width of the feed-forward layers, by the names that architectures have for it; None if it is not known."""
    if config.model_type in ("xlm", "flaubert"):  # which have no field for it
        return int(4 * config.hidden_size)
    found = getattr(config, "intermediate_size", None) or getattr(config, "hidden_dim", None)  # the latter DistilBERT's
    return found if isinstance(found, int) else None


def _heads(config: Any) -> tuple[tuple[int, float], ...]:
    """Dimensions of the cells of a Matryoshka grid, and how often a step trains each in expectation."""
    grid = Grid.of(config) if isinstance(config, RexBertConfig) else None
    if grid is None:
        return ()
    others, drawn = len(grid.cells) - 1, config.matryoshka_sample - 1
    share = drawn / others if 0 <= drawn < others else 1.0
    return (*((dim, share) for _, dim in grid.cells[:-1]), (grid.cells[-1][1], 1.0))


def measure_matmul_peak(
    dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu", size: int | None = None, repeats: int = 8
) -> float:
    """Measure the best rate of a square matrix product, by the library that RexBERT multiplies with.

    Args:
        dtype: of the operands; what the model computes in.
        device: where.
        size: rows and columns; None takes 8,192 on CUDA and 1,024 elsewhere.
        repeats: timed products; the fastest counts.

    Returns:
        FLOP/s of one process on this device.

    Example:
        >>> measure_matmul_peak(size=32, repeats=1) > 0
        True
    """
    device = torch.device(device)
    size = size or (8192 if device.type == "cuda" else 1024)
    a = torch.randn(size, size, device=device).to(dtype)
    b = torch.randn(size, size, device=device).to(dtype)
    best = float("inf")
    for _ in range(repeats + 1):  # one more: the first call allocates and chooses a kernel
        start = time.perf_counter()
        linear(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
