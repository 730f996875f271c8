"""The phases' orders as a map-style data set and a batch sampler for a stock `DataLoader`.

A key is (global step, micro-batch), so workers and ranks need no common state: whoever gets the key builds the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from torch.utils.data import Dataset, Sampler

from rexbert_hf.data.order import PhaseOrder
from rexbert_hf.data.rows import RowBatch, offsets_of
from rexbert_hf.data.store import SPAN_COLUMNS, TokenisedDataset

Key = tuple[int, int]


def join(batches: Sequence[RowBatch]) -> RowBatch:
    """One batch of the rows of several; step, micro and phase are those of the first.

    Spans of batches without any are empty. Word ids must be in all batches or in none.

    Raises:
        ValueError: if there is no batch, or only some have word ids.
    """
    if not batches:
        raise ValueError("nothing to join: got no batch")
    first = batches[0]
    if len(batches) == 1:
        return first
    out = RowBatch(
        np.concatenate([batch.input_ids for batch in batches]),
        offsets_of(np.concatenate([batch.lengths for batch in batches])),
        step=first.step,
        micro=first.micro,
        phase=first.phase,
    )
    words = [batch.word_ids for batch in batches if batch.word_ids is not None]
    if words and len(words) < len(batches):
        raise ValueError("some batches have word ids and some have none: tokenise all sources the same way")
    out.word_ids = np.concatenate(words) if words else None
    if any(batch.span_start is not None for batch in batches):
        shifts = np.cumsum([0, *(len(batch.input_ids) for batch in batches[:-1])], dtype=np.int32)
        for name, dtype in SPAN_COLUMNS.items():
            parts = []
            for batch, shift in zip(batches, shifts, strict=True):
                part = getattr(batch, name)
                part = np.zeros(0, dtype=dtype) if part is None else part
                parts.append(part + shift if name in ("span_start", "span_end") else part)
            setattr(out, name, np.concatenate(parts))
    return out


class CurriculumDataset(Dataset[RowBatch]):
    """Micro-batches of a curriculum, addressed by (global step, micro-batch).

    The global step counts over all phases. With `CurriculumSampler` as `batch_sampler` the collate function receives a
    `RowBatch` whose `step`, `micro` and `phase` say where it belongs.

    Example:
        >>> store = TokenisedDataset.from_rows([{"input_ids": [1, n, 2]} for n in range(100)])
        >>> orders = [PhaseOrder({"s": store}, None, 8, 30, 1, max_tokens=60, phase=p) for p in range(2)]
        >>> dataset = CurriculumDataset(orders, {"s": store})
        >>> len(dataset), dataset[3, 0].phase, len(dataset[3, 0])
        (4, 1, 10)
    """

    def __init__(self, orders: Sequence[PhaseOrder], stores: Mapping[str, TokenisedDataset]) -> None:
        """Keep orders and stores; nothing is read yet.

        Args:
            orders: one for each phase, in sequence.
            stores: the tokenised data set behind each source name.

        Raises:
            ValueError: if an order names a source without a store, or the sources of a phase disagree on word ids.
        """
        if not orders:
            raise ValueError("a curriculum needs at least one phase; got none")
        for order in orders:
            missing = [name for name in order.names if name not in stores]
            if missing:
                raise ValueError(f"phase {order.phase} draws from {missing}, but the stores are {sorted(stores)}")
            without = [name for name in order.names if not stores[name].has_word_ids]
            if without and len(without) < len(order.names):
                raise ValueError(
                    f"sources {without} of phase {order.phase} have no word ids, the others do: retokenise"
                )
        self.orders = list(orders)
        self.stores = dict(stores)
        self.first_steps = np.cumsum([0, *(order.num_steps for order in orders)])

    def __len__(self) -> int:
        """Micro-batches of the whole curriculum, over all ranks."""
        return sum(order.num_steps * order.micro_batches for order in self.orders)

    @property
    def num_steps(self) -> int:
        """Optimizer steps of all phases."""
        return int(self.first_steps[-1])

    def locate(self, step: int) -> tuple[int, int]:
        """Phase number (position in `orders`) and step within it of a global step.

        Raises:
            IndexError: if the curriculum is shorter.
        """
        if not 0 <= step < self.num_steps:
            raise IndexError(f"step {step} of a curriculum of {self.num_steps} steps")
        phase = int(np.searchsorted(self.first_steps, step, side="right")) - 1
        return phase, step - int(self.first_steps[phase])

    def __getitem__(self, key: Key) -> RowBatch:
        step, micro = key
        phase, inside = self.locate(step)
        draws = self.orders[phase].micro(inside, micro)
        at = {"step": int(step), "micro": int(micro), "phase": phase}
        return join([self.stores[d.source].take(d.indices, d.starts, d.stops, **at) for d in draws])

    def __getitems__(self, keys: Sequence[Key]) -> RowBatch:
        """The rows of all `keys` in one batch; what a `DataLoader` calls."""
        return join([self[key] for key in keys])


class CurriculumSampler(Sampler[list[Key]]):
    """Keys of one rank in order, as a batch sampler.

    Accumulation step a of rank r is micro-batch `a * world_size + r`, so any number of ranks sees the same global
    batches, and a `BatchSamplerShard` of accelerate over a sampler with `world_size=1` deals out the same keys.

    Example:
        >>> order = PhaseOrder({"s": np.full(100, 5)}, None, 8, 40, micro_batches=4, max_tokens=40)
        >>> list(CurriculumSampler([order], rank=1, world_size=2))
        [[(0, 1)], [(0, 3)]]
    """

    def __init__(self, orders: Sequence[PhaseOrder], rank: int = 0, world_size: int = 1, start_step: int = 0) -> None:
        """Plan the keys of `rank`.

        Args:
            orders: one for each phase, in sequence.
            rank: of this process.
            world_size: the number of processes.
            start_step: first global step, to resume without reading what came before.

        Raises:
            ValueError: if a phase's micro-batches do not divide by the number of processes.
        """
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of {world_size} processes")
        for order in orders:
            if order.micro_batches % world_size:
                raise ValueError(
                    f"phase {order.phase} has {order.micro_batches} micro-batches a step, not a multiple of "
                    f"{world_size} processes: change accumulation or the number of processes"
                )
        self.orders = list(orders)
        self.rank, self.world_size, self.start_step = rank, world_size, start_step
        # Attributes that accelerate looks for on a batch sampler.
        self.batch_size, self.drop_last = 1, False

    def _phases(self) -> Iterator[tuple[int, int, int]]:
        """First global step, end and accumulation steps of each phase, from `start_step` on."""
        first = 0
        for order in self.orders:
            end = first + order.num_steps
            if end > self.start_step:
                yield max(first, self.start_step), end, order.micro_batches // self.world_size
            first = end

    def __len__(self) -> int:
        return sum((end - first) * accumulation for first, end, accumulation in self._phases())

    def __iter__(self) -> Iterator[list[Key]]:
        for first, end, accumulation in self._phases():
            for step in range(first, end):
                for a in range(accumulation):
                    yield [(step, a * self.world_size + self.rank)]
