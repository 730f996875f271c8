"""Embed a batch in blocks of similar length, and the gradient cache that lets a batch be larger than memory.

Rows are sorted by length, so a block is padded to its own longest row (rounded up, because CPUs compile a kernel for
each new shape), and equal rows are embedded once: a query stands in many pairs of a batch.

The gradient cache (Gao et al. 2021, arXiv 2101.06983) embeds without a graph, takes the gradient of the loss by the
embeddings, and embeds each block again, with the same dropout, to pass it on: memory is one block, time a third more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

ROUND_TO = 4
"""Widths of blocks are multiples of it."""

Features = Mapping[str, Any]


def rows_in(features: Features) -> int:
    """Texts of one column of a batch.

    Args:
        features: as `blocks_of` takes them.
    """
    return len(features["offsets"] if "offsets" in features else features["input_ids"])


def blocks_of(features: Features, block_size: int) -> tuple[list[dict[str, Any]], Tensor]:
    """Split one column of a batch.

    Args:
        features: `input_ids` and `attention_mask` `[B, S]`, and whatever else the model takes; or, of a
            `StaticEmbedding`, `input_ids` of all rows `[N]` and `offsets`, where each row begins, `[B]`.
        block_size: rows of a block.

    Returns:
        Blocks, and for each row of the batch its place in their concatenation.

    Raises:
        ValueError: for features of another kind.

    Example:
        >>> ids = torch.tensor([[5, 6, 7, 8, 9], [5, 0, 0, 0, 0], [5, 0, 0, 0, 0]])
        >>> blocks, place = blocks_of({"input_ids": ids, "attention_mask": (ids > 0).long()}, 1)
        >>> [tuple(block["input_ids"].shape) for block in blocks], place.tolist()
        ([(1, 4), (1, 5)], [1, 0, 0])
    """
    if "attention_mask" not in features:
        return _blocks_without_padding(features, block_size)
    ids, mask = features["input_ids"], features["attention_mask"]
    # -1 marks padding, so that rows that differ in their mask alone stay apart.
    _, inverse = torch.unique(torch.where(mask.bool(), ids, -1), dim=0, return_inverse=True)
    first = torch.full((int(inverse.max()) + 1,), len(ids), device=ids.device)
    first.scatter_reduce_(0, inverse, torch.arange(len(ids), device=ids.device), reduce="amin")
    width = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(dim=1)
    order = torch.argsort(width[first], stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=ids.device)
    blocks = []
    for start in range(0, len(order), block_size):
        rows = first[order[start : start + block_size]]
        columns = min(-(-int(width[rows].max()) // ROUND_TO) * ROUND_TO, ids.shape[1])
        blocks.append({name: _part(value, rows, columns, ids.shape) for name, value in features.items()})
    return blocks, place[inverse]


def _blocks_without_padding(features: Features, block_size: int) -> tuple[list[dict[str, Any]], Tensor]:
    if not {"input_ids", "offsets"} <= set(features):
        raise ValueError(
            f"the model makes {', '.join(sorted(features))} of texts, and no attention_mask: use one whose first module"
            " is sentence-transformers' Transformer or StaticEmbedding"
        )
    ids, offsets = features["input_ids"], features["offsets"]
    ends = torch.cat([offsets[1:], offsets.new_tensor([len(ids)])])
    blocks = []
    for start in range(0, len(offsets), block_size):
        part = offsets[start : start + block_size]
        first, last = int(part[0]), int(ends[start + len(part) - 1])
        blocks.append({**features, "input_ids": ids[first:last], "offsets": part - first})
    return blocks, torch.arange(len(offsets), device=offsets.device)


def _part(value: Any, rows: Tensor, columns: int, shape: torch.Size) -> Any:
    if not isinstance(value, Tensor) or value.ndim == 0 or len(value) != shape[0]:
        return value
    return value[rows, :columns] if value.ndim > 1 and value.shape[1] == shape[1] else value[rows]


def embed(model: nn.Module, features: Features, block_size: int) -> Tensor:
    """Embeddings of one column with their graph, at least float32, `[B, D]` (or `[B, L, D]`, where a model gives L).

    Args:
        model: a `SentenceTransformer`.
        features: of the column.
        block_size: rows of a forward pass.
    """
    blocks, place = blocks_of(features, block_size)
    return torch.cat([_embedded(model, block) for block in blocks])[place]


def _embedded(model: nn.Module, block: dict[str, Any]) -> Tensor:
    vectors: Tensor = model(dict(block))["sentence_embedding"]
    return vectors if vectors.dtype == torch.float64 else vectors.float()


class _Pieces:
    """The blocks of all columns, with the generator's state before each, so that they can be embedded again."""

    def __init__(self, model: nn.Module, columns: Sequence[Features], block_size: int) -> None:
        self.model = model
        self.split = [blocks_of(features, block_size) for features in columns]
        self.flat = [block for blocks, _ in self.split for block in blocks]
        self.ends = [count - 1 for count in accumulate(len(blocks) for blocks, _ in self.split)]
        self.states: list[tuple[Tensor, Tensor | None]] = []
        self.vectors = [self._first(block) for block in self.flat]

    def _first(self, block: dict[str, Any]) -> Tensor:
        device = block["input_ids"].device
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        self.states.append((torch.get_rng_state(), cuda))
        with torch.no_grad():
            vectors = _embedded(self.model, block)
        return vectors.requires_grad_()

    def columns(self) -> list[Tensor]:
        found, start = [], 0
        for blocks, place in self.split:
            found.append(torch.cat(self.vectors[start : start + len(blocks)])[place])
            start += len(blocks)
        return found

    def backward(self, scale: Tensor) -> None:
        """Embed again, block by block, and pass the cached gradients on."""
        devices = [block["input_ids"].device for block in self.flat if block["input_ids"].device.type == "cuda"][:1]
        wrapped = hasattr(self.model, "no_sync")
        # Ranks sum their gradients in one backward pass, which has to meet every weight: that of the last block of each
        # column, since queries and products may have an encoder each.
        together = self.ends if wrapped else []
        with torch.enable_grad(), torch.random.fork_rng(devices):
            for i in range(len(self.flat)):
                if i not in together:
                    with self.model.no_sync() if wrapped else nullcontext():  # type: ignore[operator]
                        torch.autograd.backward(*self._again(i, scale))
            if together:
                vectors, gradients = zip(*(self._again(i, scale) for i in together), strict=True)
                torch.autograd.backward(vectors, gradients)

    def _again(self, number: int, scale: Tensor) -> tuple[Tensor, Tensor]:
        """A block embedded with its graph and the same dropout, and the gradient of its vectors."""
        block, vectors, (cpu, cuda) = self.flat[number], self.vectors[number], self.states[number]
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, block["input_ids"].device)
        gradient = torch.zeros_like(vectors) if vectors.grad is None else vectors.grad
        return _embedded(self.model, block), gradient * scale


def cached_loss(
    model: nn.Module, columns: Sequence[Features], block_size: int, loss_of: Callable[[list[Tensor]], Tensor]
) -> Tensor:
    """A loss over the embeddings of whole columns, whose `backward` embeds block by block.

    Args:
        model: a `SentenceTransformer`.
        columns: features of each column.
        block_size: rows of a forward pass.
        loss_of: of the columns' embeddings.
    """
    if not torch.is_grad_enabled():
        return loss_of([embed(model, features, block_size) for features in columns])
    device = columns[0]["input_ids"].device.type
    autocast, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    pieces = _Pieces(model, columns, block_size)
    loss = loss_of(pieces.columns())
    loss.backward()
    result = loss.detach().requires_grad_()

    def again(scale: Tensor) -> None:
        # Hooks run outside of the autocast that the forward pass ran in.
        with torch.autocast(device, enabled=autocast, dtype=dtype):
            pieces.backward(scale)

    result.register_hook(again)
    return result
