"""Triplets (product, neighbour, unrelated product) for the rows of a micro-batch; each content is encoded once.

The graph here is one over contents and not over product ids: products with equal text are one content, so a pair of
them is no association and never a negative. Equation 8 has two readings here. "masked": the rows of the step are the
products, masked as the scheme says, and what they lack beside them (neighbours, unrelated products) becomes further
masked rows; every encoding serves both losses. "clean": the contents stand beside the masked rows once more, unmasked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np

from rexbert_hf.data.loader import join
from rexbert_hf.data.rows import RowBatch
from rexbert_hf.data.store import TokenisedDataset
from rexbert_hf.objectives.association_graph import AssociationGraph

TRIPLET_STREAM = 7
"""First word of the random generator's key; the streams of the order have others."""

BatchNegatives = Literal["uniform", "degree", "batch", "length"]

_ALIKE = 32
"""Contents of about equal length that an unrelated one is drawn from, where fewer have just that length."""
_TRIES = 16


@dataclass(slots=True)
class TripletRows(RowBatch):
    """A micro-batch with triplets.

    Attributes:
        clean: contents that follow the rows unmasked and without labels; or None.
        triplets: int64 `[P, 3]`, documents of the batch (rows first, then `clean`): product, neighbour, unrelated.
        left_out: products with a neighbour for which there was no room.
    """

    clean: RowBatch | None = None
    triplets: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), dtype=np.int64))
    left_out: int = 0

    @classmethod
    def of(cls, batch: RowBatch, **values: Any) -> TripletRows:
        """The rows of another batch with triplets."""
        return cls(**{f.name: getattr(batch, f.name) for f in fields(RowBatch)}, **values)


@dataclass(frozen=True)
class ContentGraph:
    """Associations between the documents of tokenised sources.

    Attributes:
        graph: its products are the numbers of contents.
        names: the sources.
        source: int `[N]`, place in `names` of each content.
        row: int `[N]`, document of that source.
        missing: products of the graph of product ids that no source has.
        merged: products whose text another one has.

    Example:
        >>> products = AssociationGraph.from_pairs([("mug", "tea"), ("cup", "tea"), ("pen", "ink")])
        >>> contents = ContentGraph.build(products, {"shop": {"mug": 0, "cup": 0, "tea": 3, "pen": 5, "ink": 1}})
        >>> contents.graph.num_pairs, contents.merged, contents.contents_of("shop", np.array([3, 4, 1])).tolist()
        (2, 1, [1, -1, 3])
    """

    graph: AssociationGraph
    names: tuple[str, ...]
    source: np.ndarray
    row: np.ndarray
    missing: int = 0
    merged: int = 0

    @classmethod
    def build(cls, products: AssociationGraph, places: Mapping[str, Mapping[Any, int]]) -> ContentGraph:
        """Find the content of each product.

        Args:
            products: the associations by product id.
            places: for each source the document of each product id; a product in several sources has the content of
                the first.

        Raises:
            ValueError: if no association of two contents is left.
        """
        number: dict[tuple[int, int], int] = {}
        content = np.full(len(products), -1, dtype=np.int64)
        for i, product in enumerate(products.product_ids):
            for source, found in enumerate(places.values()):
                if product in found:
                    content[i] = number.setdefault((source, found[product]), len(number))
                    break
        missing, known = int((content < 0).sum()), int((content >= 0).sum())
        if not known:
            raise ValueError(
                f"none of the {len(products)} products of the associations is in the sources "
                f"({', '.join(places) or 'none has product ids'}): check that both name products the same way"
            )
        pairs = content[products.pairs()]
        graph = AssociationGraph.from_pairs(pairs[(pairs >= 0).all(axis=1)].tolist(), range(len(number)))
        if not graph.can_sample.any():
            raise ValueError("every product is associated with every other: there is no unrelated one to tell apart")
        source, row = np.array(list(number), dtype=np.int64).T
        return cls(graph, tuple(places), source, row, missing, known - len(number))

    def contents_of(self, source: str, rows: np.ndarray) -> np.ndarray:
        """Contents that documents of a source are, -1 for those that are none."""
        own = np.flatnonzero(self.source == self.names.index(source)) if source in self.names else np.zeros(0, int)
        order = own[np.argsort(self.row[own])]
        if not len(order):
            return np.full(len(rows), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.row[order], rows), len(order) - 1)
        return np.where(self.row[order[at]] == rows, order[at], -1)


class TripletSampler:
    """Draw the triplets of micro-batches: a pure function of the rows and the generator.

    Args:
        contents: who is associated with whom.
        stores: the tokenised sources.
        seq_length: contents are cut to so many tokens, special ones included.
        masked: whether the rows themselves are the products ("masked"), or clean copies.
        negatives: "uniform" over all unrelated products, "degree" (as often as they are neighbours), "length" (those of
            about the neighbour's length, for distances grow with length), or "batch": one of the batch's other contents
            that is unrelated, which costs no encoding.
    """

    def __init__(
        self,
        contents: ContentGraph,
        stores: Mapping[str, TokenisedDataset],
        seq_length: int,
        masked: bool = True,
        negatives: BatchNegatives = "uniform",
    ) -> None:
        self.contents, self.masked, self.negatives = contents, masked, negatives
        self.stores = [stores[name] for name in contents.names]
        self.seq_length = seq_length
        self.lengths = np.zeros(len(contents.row), dtype=np.int64)
        for number, store in enumerate(self.stores):
            own = contents.source == number
            self.lengths[own] = np.minimum(store.lengths[contents.row[own]], seq_length)
        self._can_sample = contents.graph.can_sample
        self._by_length = np.argsort(self.lengths, kind="stable")
        self._sorted_lengths = self.lengths[self._by_length]

    def add(self, batch: RowBatch, rows_of: np.ndarray, room: int, rng: np.random.Generator) -> TripletRows:
        """Give a batch as many triplets as fit.

        Args:
            batch: the rows.
            rows_of: int `[D]`, the content that each row is, -1 for none (another source, a later piece).
            room: tokens that further encodings may take.
            rng: the generator of this micro-batch.
        """
        first = {int(content): d for d, content in reversed(list(enumerate(rows_of))) if content >= 0}
        wanted = np.array([content for content in first if self._can_sample[content]], dtype=np.int64)
        rng.shuffle(wanted)
        encoded = dict(first) if self.masked else {}
        offset = len(batch) if self.masked else 0
        chosen: list[int] = []
        triplets: list[tuple[int, int, int]] = []

        def encode(needed: Sequence[int]) -> bool:
            """Take contents into the batch, all of them or none."""
            nonlocal room
            new = [c for c in dict.fromkeys(needed) if c not in encoded]
            cost = int(self.lengths[new].sum())
            if cost > room:
                return False
            room -= cost
            for content in new:
                encoded[content] = offset + len(chosen)
                chosen.append(content)
            return True

        drawn = [(int(a), *self._draw(int(a), rng)) for a in wanted]
        if self.negatives == "batch":
            drawn = [(a, b, -1) for a, b, _ in drawn if encode((a, b))]
            triplets = [(a, b, c) for a, b, c in self._from_batch(drawn, rng)]
        else:
            triplets = [row for row in drawn if encode(row)]
        place = np.array([[encoded[content] for content in row] for row in triplets], dtype=np.int64).reshape(-1, 3)
        left_out = len(wanted) - len(triplets)
        further = self._take(np.array(chosen, dtype=np.int64), batch)
        if further is None:
            return TripletRows.of(batch, triplets=place, left_out=left_out)
        if self.masked:
            return TripletRows.of(join([batch, further]), triplets=place, left_out=left_out)
        return TripletRows.of(batch, clean=further, triplets=place + len(batch), left_out=left_out)

    def _draw(self, anchor: int, rng: np.random.Generator) -> tuple[int, int]:
        graph = self.contents.graph
        neighbor, unrelated = graph.sample_at(anchor, rng, "degree" if self.negatives == "degree" else "uniform")
        if self.negatives == "length":
            return neighbor, self._of_length(anchor, int(self.lengths[neighbor]), unrelated, rng)
        return neighbor, unrelated

    def _of_length(self, anchor: int, length: int, otherwise: int, rng: np.random.Generator) -> int:
        """An unrelated content of a length; `otherwise` where all tries are related to the anchor."""
        low, high = (int(np.searchsorted(self._sorted_lengths, length, side)) for side in ("left", "right"))
        spare = max(0, _ALIKE - (high - low)) // 2
        low, high = max(0, low - spare), min(len(self.lengths), high + spare)
        related = self.contents.graph.neighbors_at(anchor)
        for place in rng.integers(low, high, size=_TRIES):
            drawn = int(self._by_length[place])
            if drawn != anchor and drawn not in related:
                return drawn
        return otherwise

    def _from_batch(
        self, pairs: Sequence[tuple[int, int, int]], rng: np.random.Generator
    ) -> list[tuple[int, int, int]]:
        """Pairs with an unrelated content of another pair; a pair that is related to all of them gets none."""
        pool = np.unique([content for a, b, _ in pairs for content in (a, b)]) if pairs else np.zeros(0, dtype=int)
        found = []
        for a, b, _ in pairs:
            free = np.setdiff1d(pool, [*self.contents.graph.neighbors_at(a), a])
            if len(free):
                found.append((a, b, int(rng.choice(free))))
        return found

    def _take(self, chosen: np.ndarray, batch: RowBatch) -> RowBatch | None:
        """The chosen contents as rows, in their order, with the columns of `batch`."""
        if not len(chosen):
            return None
        parts = []
        at = {"step": batch.step, "micro": batch.micro, "phase": batch.phase}
        for content in chosen:
            store = self.stores[self.contents.source[content]]
            stop = self.seq_length - store.num_special
            parts.append(store.take([self.contents.row[content]], [0], [stop], **at))
        return join(parts)
