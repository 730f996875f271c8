"""Associations on their way into a graph: ids to indexes, and pairs of indexes counted in bounded memory.

Pairs are kept as one int64 each and merged whenever many new ones are there, so memory follows the distinct pairs and
not how often they occur.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

ProductId: TypeAlias = str | int

_MERGE_AT = 4_000_000


@dataclass
class AssociationReport:
    """What was read and what of it the graph holds.

    Attributes:
        pairs: associations read, in either direction and with repetitions.
        self_loops: products associated with themselves: dropped.
        unknown: associations that name a product which is not among the given ones: dropped.
        repeated: associations that were there already, in either direction.
        rare: pairs of products that fewer baskets hold than asked for: dropped.
        large_baskets: baskets with more products than `max_size`: dropped.
    """

    pairs: int = 0
    self_loops: int = 0
    unknown: int = 0
    repeated: int = 0
    rare: int = 0
    large_baskets: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in vars(self).items() if count)


class PairCounter:
    """Count unordered pairs of products.

    Args:
        products: the products there are; None learns them from what is looked up.

    Example:
        >>> counter = PairCounter()
        >>> counter.add_all([counter.index_of(name) for name in ("mug", "tea")])
        >>> counter.add(counter.index_of("tea"), counter.index_of("mug"))
        >>> [part.tolist() for part in counter.finish()], counter.products
        ([[[0, 1]], [2]], ['mug', 'tea'])
    """

    def __init__(self, products: Iterable[ProductId] | None = None) -> None:
        self._closed = products is not None
        self._index: dict[ProductId, int] = {}
        for product in products or ():
            self._index.setdefault(product, len(self._index))
        self._keys: list[np.ndarray] = []
        self._single: list[int] = []
        self._pending = 0
        self._done = np.zeros(0, dtype=np.int64)
        self._counts = np.zeros(0, dtype=np.int64)

    @property
    def products(self) -> list[ProductId]:
        """The products by index."""
        return list(self._index)

    def index_of(self, product: ProductId) -> int | None:
        """Index of a product; None for one that is not among the given ones.

        Raises:
            ValueError: if it is no id.
        """
        found = self._index.get(product)
        if found is None and not self._closed:
            if not isinstance(product, str | int | np.integer) or product == "":
                raise ValueError(f"{product!r} is no product id: ids are texts or whole numbers")
            found = self._index[product] = len(self._index)
        return found

    def add(self, a: int, b: int) -> None:
        """Count a pair of indexes."""
        self._single.append((min(a, b) << 32) | max(a, b))
        self._grow(1)

    def add_all(self, items: Sequence[int]) -> None:
        """Count every two of some indexes, each given once."""
        if len(items) < 2:
            return
        sorted_items = np.sort(np.asarray(items, dtype=np.int64))
        low, high = np.triu_indices(len(items), k=1)
        self._keys.append((sorted_items[low] << 32) | sorted_items[high])
        self._grow(len(low))

    def _grow(self, count: int) -> None:
        self._pending += count
        if self._pending >= _MERGE_AT:
            self._merge()

    def _merge(self) -> None:
        found = np.concatenate([*self._keys, np.array(self._single, dtype=np.int64)])
        new, counts = np.unique(found, return_counts=True)
        keys = np.concatenate([self._done, new])
        self._done, inverse = np.unique(keys, return_inverse=True)
        weights = np.concatenate([self._counts, counts])
        self._counts = np.bincount(inverse, weights, minlength=len(self._done)).astype(np.int64)
        self._keys, self._single, self._pending = [], [], 0

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Distinct pairs int64 `[E, 2]`, the smaller index first, and how often each was counted `[E]`."""
        self._merge()
        return np.stack([self._done >> 32, self._done & 0xFFFFFFFF], axis=1), self._counts


def single_associations(pairs: Iterable[Any]) -> Iterator[tuple[ProductId, ProductId]]:
    """Single associations of pairs, lists and records.

    Args:
        pairs: (product, product), (product, list of products), or rows with `product_a` and `product_b`.

    Raises:
        ValueError: naming the row that is none of these.

    Example:
        >>> list(single_associations([("mug", "tea"), ("tea", ["milk", "honey"])]))
        [('mug', 'tea'), ('tea', 'milk'), ('tea', 'honey')]
    """
    for number, row in enumerate(pairs):
        try:
            product, others = (row["product_a"], row["product_b"]) if isinstance(row, Mapping) else row
            several = [others] if isinstance(others, str | int) else list(others if others is not None else ())
        except (KeyError, TypeError, ValueError):
            raise ValueError(
                f"row {number}: {row!r} is no association: give (product, product), (product, list of products) or a "
                "row with product_a and product_b"
            ) from None
        yield from ((product, other) for other in several)
