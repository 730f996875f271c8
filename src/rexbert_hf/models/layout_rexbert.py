"""Where the documents of a batch lie: from the caller's arguments to flat order, and back.

A padded call, a flat one and a plain one all become the same `Layout`. For the sdpa back-end documents are sorted by
length, so that equal ones are neighbours and a group of them is a view.

Travels to the Hub as remote code: imports torch only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F


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

    def in_order(self, vectors: torch.Tensor) -> torch.Tensor:
        """Vectors of documents `[D, H]` in the caller's order; of padded rows one each, 0 for one of padding alone."""
        if self.token_index is None or self.cu_seqlens is None:
            return vectors
        first = self.token_index[self.cu_seqlens[:-1].long()]
        if self.shape[0] == 1 and len(first) > 1:  # the documents of a flat batch
            return vectors[first.argsort()]
        return vectors.new_zeros(self.shape[0], vectors.shape[1]).index_copy(0, first // self.shape[1], vectors)

    def borders(self) -> torch.Tensor | None:
        """Borders `[D + 1]` of a flat batch's documents in the caller's order; None where there are not several."""
        if self.cu_seqlens is None or self.shape[0] != 1 or len(self.cu_seqlens) <= 2:
            return None
        first = self.cu_seqlens[:-1].long()
        if self.token_index is not None:
            first = self.token_index[first].sort().values
        return F.pad(first, (0, 1), value=self.shape[1])

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

    def local_mask(
        self, block: tuple[int, int, int, int] | int, window: int | None, like: torch.Tensor
    ) -> torch.Tensor | None:
        """Additive mask of a block of a document, or of a document of this length; None where nothing is hidden.

        Args:
            block: first query, end, first key, end; or the length.
            window: see `band`; None hides nothing.
            like: gives device and dtype.
        """
        q0, q1, k0, k1 = (0, block, 0, block) if isinstance(block, int) else block
        if window is None or max(q1 - 1 - k0, k1 - 1 - q0) <= window:
            return None
        return self.band(q1 - q0, k1 - k0, q0 - k0, window, like)

    def block_mask(self, block: int, halo: int) -> torch.Tensor:
        """Additive `[blocks, block, block + 2 * halo]` mask of the flat order, kept for the rest of the batch.

        Query i of block n is token n * block + i; key j is token n * block - halo + j. A query sees its own document
        within `halo`; queries past the last token see each other, so that no row is empty.
        """
        name = ("blocks", block, halo)
        if name not in self._masks:
            assert self.cu_seqlens is not None
            lengths = self.cu_seqlens.diff().long()
            total, count = len(self.position_ids), -(-len(self.position_ids) // block)
            document = torch.full((count * block + 2 * halo,), -1)
            document[halo : halo + total] = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
            query = document[halo : halo + count * block].view(count, block, 1)
            key = document.as_strided((count, 1, block + 2 * halo), (block, 1, 1))
            distance = torch.arange(block)[:, None] + halo - torch.arange(block + 2 * halo)[None, :]
            hidden = (query != key) | (distance.abs() > halo)
            self._masks[name] = torch.zeros(hidden.shape).masked_fill_(hidden, -math.inf)
        return self._masks[name]


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

    `cu_seqlens` (flat batch), else `position_ids` of one row without padding (its zeros are the borders), else
    `attention_mask` (padded batch), else rows of equal length.

    Raises:
        ValueError: if the arguments contradict each other or the shape.
    """
    batch, length = shape
    # torch 2.11 says inside torch.compile that it exports; without this, documents would see each other there.
    exporting = torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()
    tracing = exporting or torch.jit.is_tracing()
    if cu_seqlens is None and batch == 1 and position_ids is not None and not tracing:
        if attention_mask is None or bool(attention_mask.all()):
            cu_seqlens = _borders(position_ids.reshape(-1))
        elif tuple(attention_mask.shape) == (batch, length):
            _check_one_document(position_ids.reshape(-1), attention_mask.reshape(-1).bool())
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
    if length == 0:
        none = torch.zeros(0, dtype=torch.long, device=device)
        return _ragged(shape, none, none, none, varlen)
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


def _check_one_document(position_ids: torch.Tensor, mask: torch.Tensor) -> None:
    """Refuse several documents in a row with padding: as one they would see each other; zeros at padding begin none."""
    document = (position_ids == 0).cumsum(0)[mask]  # whose first token may be hidden
    if bool(((document.diff() > 0) & (position_ids[mask].diff() <= 0)).any()):
        raise ValueError(
            "position_ids begin again, so the row holds several documents, and a flat batch has no padding: leave"
            " attention_mask out, and the padding too"
        )


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


def label_places(labels: torch.Tensor | None, count: int | None = None) -> torch.Tensor | None:
    """Places `[M]` of the labels in `[B * S]`.

    Args:
        labels: `[B, S]`, -100 where nothing is predicted.
        count: M, where the caller knows it; else it comes from the device, so ask before the encoder runs.
    """
    if labels is None:
        return None
    labelled = labels.reshape(-1) != -100
    return (labelled.nonzero() if count is None else torch.nonzero_static(labelled, size=count)).squeeze(1)
