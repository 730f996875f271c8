"""Which pieces are in micro-batch i of step s: a pure function of (seed, phase, step), with O(1) seek.

The slots of a phase (step x micro-batches) are cut into groups of bins. The tokens that a source has given before a
group follow from the mixture's integral, so a group finds its pieces by binary search in the shuffled passes of each
source and packs them into its own bins: any process, worker or rank can unpack any group alone and gets the same.

A load factor just below one leaves the packing enough air (load_factor.py measures it at plan time).
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rexbert_hf.data.load_factor import LOADS, calibrate
from rexbert_hf.data.mixture import Mixture, Weight
from rexbert_hf.data.pack import PackingReport, pack
from rexbert_hf.data.pieces import BIN_STREAM, PieceIndex, ShuffledStream
from rexbert_hf.data.rows import offsets_of
from rexbert_hf.data.steps import BatchWarmup, StepPlan
from rexbert_hf.data.store import TokenisedDataset

logger = logging.getLogger(__name__)

Source = TokenisedDataset | np.ndarray

GROUP_SEQUENCES = 1024
"""A group holds at least this many full-length sequences: each source's share is rounded to a piece in each group."""
GROUP_BINS = 16
_CACHED_GROUPS = 4
MAX_PHASE_DROPPED_SHARE = 0.001
"""Of a phase's tokens, at most so many may find no place."""
_MOST_AIR = 0.03


class Draw(NamedTuple):
    """Pieces of one source in a micro-batch: the arguments of `TokenisedDataset.take`."""

    source: str
    indices: np.ndarray
    starts: np.ndarray
    stops: np.ndarray


@dataclass(slots=True)
class _Group:
    """A packed group: pieces sorted by slot, with the offsets of the slots."""

    sources: np.ndarray
    pieces: np.ndarray
    offsets: np.ndarray
    report: PackingReport


def _piece_index(name: str, source: Source, seq_length: int, num_special: int) -> PieceIndex:
    if isinstance(source, TokenisedDataset):
        return PieceIndex(source.lengths, seq_length, source.num_special, name)
    return PieceIndex(source, seq_length, num_special, name)


def source_tokens(source: Source, seq_length: int, num_special: int = 2) -> int:
    """Tokens of one epoch over a source, counting the special tokens that cut documents repeat.

    Example:
        >>> source_tokens(np.array([5, 12]), seq_length=6)
        21
    """
    return _piece_index("source", source, seq_length, num_special).num_tokens


class PhaseOrder:
    """The order of samples in one training phase.

    Example:
        >>> lengths = np.full(1000, 10)
        >>> order = PhaseOrder({"shop": lengths}, {"shop": 1.0}, 16, 100, micro_batches=2, max_tokens=10_000)
        >>> order.num_steps, sum(len(draw.indices) for draw in order.micro(57, 1))
        (100, 5)
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        mixture: Mixture | Mapping[str, Weight] | None,
        seq_length: int,
        batch_tokens: int,
        micro_batches: int,
        max_tokens: float,
        *,
        seed: int = 0,
        phase: int = 0,
        batch_warmup_tokens: float = 0,
        batch_warmup_start: float = 0.25,
        num_special: int = 2,
    ) -> None:
        """Plan the phase: cut the long documents, measure the load factor, fix the number of steps.

        Args:
            sources: tokenised data sets, or arrays of document lengths (special tokens included).
            mixture: weights of the sources; None takes each source by its size, so that all end an epoch together.
            seq_length: longest piece in tokens, special tokens included.
            batch_tokens: token places of an optimizer step over all ranks and accumulation steps; the last two steps
                share what is left of the budget (`micro_capacity` says how much).
            micro_batches: micro-batches of an optimizer step over all ranks; each holds up to
                `batch_tokens // micro_batches` tokens.
            max_tokens: budget of the phase in real tokens; sources repeat until it is spent. One epoch's worth is
                exactly one epoch.
            seed: of every random choice.
            phase: number of the phase; two phases over one source see it in different orders.
            batch_warmup_tokens: tokens over which the batch grows linearly to its full size.
            batch_warmup_start: share of the batch that the warm-up starts from.
            num_special: special tokens of every document of sources given as lengths.

        Raises:
            ValueError: if sources and mixture name different things, a micro-batch cannot hold one full sequence, the
                budget is not positive, or a source is empty.
        """
        if not sources:
            raise ValueError("a phase needs at least one source; got none")
        if max_tokens < 1 or micro_batches < 1:
            raise ValueError(f"max_tokens and micro_batches must be positive; got {max_tokens} and {micro_batches}")
        self.capacity = int(batch_tokens) // micro_batches
        if self.capacity < seq_length:
            raise ValueError(
                f"a micro-batch holds {self.capacity} tokens (batch_tokens {batch_tokens} / {micro_batches} "
                f"micro-batches), less than seq_length {seq_length}: raise batch_tokens or lower one of the others"
            )
        self.names = tuple(sources)
        self.seq_length, self.micro_batches, self.max_tokens = seq_length, micro_batches, int(max_tokens)
        self.seed, self.phase = seed, phase
        indexes = [_piece_index(name, source, seq_length, num_special) for name, source in sources.items()]
        self._streams = [ShuffledStream(index, seed, phase, i) for i, index in enumerate(indexes)]
        self.mixture = self._checked_mixture(mixture)
        warmup = self._checked_warmup(batch_warmup_tokens, batch_warmup_start)
        self.group_bins = max(GROUP_BINS, -(-GROUP_SEQUENCES * seq_length // (warmup.slots_of(0) // micro_batches)))
        airless = StepPlan.fit(warmup, micro_batches, seq_length, self.max_tokens, load=1.0)
        bins = min(self.group_bins, airless.num_steps * micro_batches)
        size = self.capacity if airless.full_steps else airless.micro_capacity(0)
        self.load, self._spread = calibrate(indexes, self.mixture, bins, size, (seed, phase))
        self._groups: OrderedDict[int, _Group] = OrderedDict()
        self._plan = self._fit(warmup)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_groups": OrderedDict()}

    def _fit(self, warmup: BatchWarmup) -> StepPlan:
        """Lay out the steps; a short phase is packed at once, as it will be, and gets more air where it drops much.

        Calibration draws other pieces. Over many groups that evens out, but where a phase has a few dozen bins, the
        piece that begins last before the budget's end can be a full percent of all tokens. In a phase of a few
        documents a dropped one counts more than any air could win back: there the calibrated load stays.
        """
        calibrated = self.load
        for load in (calibrated, *(x for x in LOADS if calibrated - _MOST_AIR < x < calibrated), calibrated):
            self.load = float(load)
            self._plan = StepPlan.fit(warmup, self.micro_batches, self.seq_length, self.max_tokens, self.load)
            self._groups.clear()
            if self.num_groups > _CACHED_GROUPS or self.report().dropped_share <= MAX_PHASE_DROPPED_SHARE:
                break
        return self._plan

    def _checked_mixture(self, mixture: Mixture | Mapping[str, Weight] | None) -> Mixture:
        if mixture is None:
            tokens = [stream.index.num_tokens for stream in self._streams]
            mixture = dict(zip(self.names, map(float, tokens), strict=True))
        weights: dict[str, Weight] = {}
        if isinstance(mixture, Mixture):
            weights.update(zip(mixture.names, mixture.points.T.tolist(), strict=True))
        else:
            weights.update(mixture)
        if set(weights) != set(self.names):
            raise ValueError(
                f"the mixture weighs {sorted(weights)}, the sources are {sorted(self.names)}: name the same"
            )
        return Mixture({name: weights[name] for name in self.names})

    def _checked_warmup(self, tokens: float, start: float) -> BatchWarmup:
        full = self.capacity * self.micro_batches
        warmup = BatchWarmup(full, tokens, start)
        smallest = self.seq_length / self.capacity
        if tokens and start < smallest:
            logger.warning(
                "batch warm-up starts at %.3f of the batch instead of %.3f: a micro-batch must hold a full sequence of "
                "%d tokens",
                smallest,
                start,
                self.seq_length,
            )
            warmup = BatchWarmup(full, tokens, smallest)
        return warmup

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the phase."""
        return self._plan.num_steps

    @property
    def num_groups(self) -> int:
        """Groups that are packed on their own."""
        return -(-self.num_steps * self.micro_batches // self.group_bins)

    @property
    def source_tokens(self) -> dict[str, int]:
        """Tokens of one epoch over each source, as cut to `seq_length`."""
        return {name: s.index.num_tokens for name, s in zip(self.names, self._streams, strict=True)}

    @property
    def fingerprint(self) -> str:
        """A hash of everything the order depends on; two orders with the same one give the same batches."""
        parts = [self.names, self.mixture.start.tolist(), self.mixture.end.tolist(), self._plan]
        parts += [self.max_tokens, self.seed, self.phase, self.load, self._spread]
        if len(self.mixture.points) > 2:
            parts.append(self.mixture.points.tolist())
        digest = hashlib.sha256(repr(parts).encode())
        for stream in self._streams:
            digest.update(stream.index.lengths.data)
        return digest.hexdigest()[:16]

    def micro_capacity(self, step: int) -> int:
        """Token places of each micro-batch of a step."""
        return self._plan.micro_capacity(step)

    def tokens_before(self, step: float) -> float:
        """Real tokens planned before a step (dropped ones count); the budget at `num_steps`."""
        return self.max_tokens * self._plan.slots_before(step) / self._plan.slots

    def _cursors(self, slot: int) -> list[int]:
        """Stream position of each source before a slot."""
        t = self.tokens_before(slot / self.micro_batches) / self.max_tokens
        return [int(x) for x in self.mixture.integral(t) * self.max_tokens]

    def micro(self, step: int, i: int) -> list[Draw]:
        """Pieces of micro-batch `i` of `step`, by source: at least one, at most `micro_capacity(step)` tokens.

        Raises:
            IndexError: if the phase has no such step or micro-batch.
        """
        if not (0 <= step < self.num_steps and 0 <= i < self.micro_batches):
            raise IndexError(
                f"micro-batch {i} of step {step}: phase {self.phase} has {self.num_steps} steps of {self.micro_batches}"
            )
        number, place = divmod(step * self.micro_batches + i, self.group_bins)
        group = self._group(number)
        here = slice(group.offsets[place], group.offsets[place + 1])
        sources, pieces = group.sources[here], group.pieces[here]
        draws = []
        for source in np.unique(sources):
            resolved = self._streams[source].index.resolve(pieces[sources == source])
            draws.append(Draw(self.names[source], *resolved))
        return draws

    def report(self, groups: Iterable[int] | None = None) -> PackingReport:
        """Pack `groups` (numbers; default all of them) and say how well they filled."""
        total = PackingReport()
        for number in range(self.num_groups) if groups is None else groups:
            total += self._group(number).report
        return total

    def _group(self, number: int) -> _Group:
        if number not in self._groups:
            while len(self._groups) >= _CACHED_GROUPS:
                self._groups.popitem(last=False)
            self._groups[number] = self._pack_group(number)
        self._groups.move_to_end(number)
        return self._groups[number]

    def _draw(self, first_slot: int, end_slot: int) -> tuple[np.ndarray, np.ndarray]:
        """Source and piece numbers of everything due in a range of slots."""
        lows, highs = self._cursors(first_slot), self._cursors(end_slot)
        parts = [s.draw(low, high) for s, low, high in zip(self._streams, lows, highs, strict=True)]
        if not any(len(part) for part in parts):
            # A budget of less than a document a group: the documents that begin last before it.
            source = int(np.argmax(self.mixture.shares(0.5)))
            parts[source] = self._streams[source].draw(lows[source], lows[source] + self.seq_length)[:1]
        sources = np.repeat(np.arange(len(parts), dtype=np.int16), [len(part) for part in parts])
        return sources, np.concatenate(parts)

    def _lengths(self, sources: np.ndarray, pieces: np.ndarray) -> np.ndarray:
        lengths = np.empty(len(pieces), dtype=np.int64)
        for number, stream in enumerate(self._streams):
            own = sources == number
            lengths[own] = stream.index.lengths[pieces[own]]
        return lengths

    def _pack_group(self, number: int) -> _Group:
        first = number * self.group_bins
        slots = np.arange(first, min(first + self.group_bins, self.num_steps * self.micro_batches))
        sources, pieces = self._draw(int(slots[0]), int(slots[-1]) + 1)
        lengths = self._lengths(sources, pieces)
        steps, inverse = np.unique(slots // self.micro_batches, return_inverse=True)
        capacity = np.array([self.micro_capacity(int(step)) for step in steps])[inverse]
        where = pack(lengths, capacity, len(slots), self._spread)
        items, where = _without_empty_bins(where, len(slots))
        rng = np.random.default_rng([BIN_STREAM, self.seed, self.phase, number])
        slot = _shuffle_equal(capacity, rng)[where]
        by_slot = items[np.argsort(slot, kind="stable")]
        placed = np.bincount(items, minlength=len(lengths)) > 0  # np.unique would sort them
        report = PackingReport(
            slots=int(capacity.sum()),
            tokens=int(lengths[items].sum()),
            dropped_tokens=int(lengths[~placed].sum()),
            documents=len(items),
            split_documents=sum(
                s.index.split_among(pieces[items][sources[items] == i]) for i, s in enumerate(self._streams)
            ),
            repeated_documents=len(items) - int(np.count_nonzero(placed)),
        )
        return _Group(sources[by_slot], pieces[by_slot], offsets_of(np.bincount(slot, minlength=len(slots))), report)


def _without_empty_bins(where: np.ndarray, num_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Placed items and their bins, with something in every bin.

    An empty bin takes an item of the bin that has most; with fewer items than bins, documents are repeated.
    """
    items = np.flatnonzero(where >= 0)
    bins = where[items]
    counts = np.bincount(bins, minlength=num_bins)
    for empty in np.flatnonzero(counts == 0):
        donor = int(counts.argmax())
        given = int(np.flatnonzero(bins == donor)[-1])
        counts[empty] += 1
        if counts[donor] > 1:
            bins[given] = empty
            counts[donor] -= 1
        else:
            items, bins = np.append(items, items[given]), np.append(bins, empty)
    return items, bins


def _shuffle_equal(capacity: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random slot for each bin, among the slots of its capacity."""
    place = np.arange(len(capacity))
    for size in np.unique(capacity):
        same = np.flatnonzero(capacity == size)
        place[same] = rng.permutation(same)
    return place
