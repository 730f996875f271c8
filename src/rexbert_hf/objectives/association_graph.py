"""Which products belong together (E-BERT's product association graph): built, split, sampled, saved, pushed.

Nodes are products, edges undirected and counted once. Neighbours lie in CSR arrays, so a graph of millions of products
is a few arrays and a dict. An unrelated product is found by its rank among all that are not neighbours, in O(log
degree) and with one random number: no rejection, so a dense graph costs what a sparse one does.
"""

from __future__ import annotations

import bisect
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rexbert_hf.hub import push_dataset, resolve
from rexbert_hf.objectives.pair_counts import AssociationReport, PairCounter, ProductId, single_associations

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

Negatives = Literal["uniform", "degree"]

_TRIES = 16
"""Draws by degree before the choice among unrelated products becomes uniform."""
_COLUMNS = {"associations": ["product_a", "product_b"], "products": ["product_id"]}
_PART = re.compile(r"train-\d{5}-of-\d{5}\.parquet")


class AssociationGraph:
    """Products and who is associated with whom.

    Example:
        >>> graph = AssociationGraph.from_pairs([("mug", "spoon"), ("spoon", "mug"), ("mug", "tea"), ("pen", "ink")])
        >>> len(graph), graph.num_pairs, graph.neighbors("mug")
        (5, 3, ['spoon', 'tea'])
        >>> neighbor, negative = graph.sample("spoon", np.random.default_rng(0))
        >>> neighbor, negative in ("tea", "pen", "ink")
        ('mug', True)
    """

    def __init__(
        self, product_ids: Sequence[ProductId], pairs: np.ndarray, report: AssociationReport | None = None
    ) -> None:
        """Make the arrays; `from_pairs` and `from_baskets` are the usual ways in.

        Args:
            product_ids: the products, each once.
            pairs: int `[E, 2]`, indexes into them, each pair once and no product with itself.
            report: what was dropped on the way.

        Raises:
            ValueError: if a product is named twice, or no association is left.
        """
        self.product_ids = list(product_ids)
        self.report = report or AssociationReport(pairs=len(pairs))
        self._index = {product: i for i, product in enumerate(self.product_ids)}
        if len(self._index) < len(self.product_ids):
            raise ValueError(f"{len(self.product_ids) - len(self._index)} product ids are given twice: name each once")
        if not len(pairs):
            counts = str(self.report) or "no pair"
            raise ValueError(f"no association of two of the {len(self)} products is left ({counts}): check their ids")
        both = np.concatenate([pairs, pairs[:, ::-1]]).astype(np.int64)
        order = np.lexsort((both[:, 1], both[:, 0]))
        self._neighbors = both[order, 1].astype(np.int32)
        self._offsets = np.zeros(len(self) + 1, dtype=np.int64)
        np.cumsum(np.bincount(both[:, 0], minlength=len(self)), out=self._offsets[1:])

    @classmethod
    def from_pairs(
        cls,
        pairs: Iterable[Any],
        products: Iterable[ProductId] | None = None,
        unknown: Literal["drop", "raise"] = "drop",
    ) -> AssociationGraph:
        """Build a graph from associations.

        Args:
            pairs: (product, product) or (product, list of products), or rows of `catalog.ASSOCIATION`.
            products: the products there are, those without association included; None takes those that are named.
            unknown: what happens with an association to a product that is not among `products`: it is dropped and
                counted in `report`, or is an error.

        Raises:
            ValueError: if a pair is malformed or names an unknown product (`unknown="raise"`), or none is left.
        """
        counter = PairCounter(products)
        report = AssociationReport()
        for place, (product, other) in enumerate(single_associations(pairs)):
            report.pairs += 1
            a, b = counter.index_of(product), counter.index_of(other)
            if a is None or b is None:
                if unknown == "raise":
                    stranger = product if a is None else other
                    raise ValueError(f"association {place}: {stranger!r} is not among the products: drop it or add it")
                report.unknown += 1
            elif a == b:
                report.self_loops += 1
            else:
                counter.add(a, b)
        found, counts = counter.finish()
        report.repeated = int(counts.sum()) - len(found)
        return cls._built(counter, found, report)

    @classmethod
    def from_baskets(
        cls,
        baskets: Iterable[Iterable[ProductId]],
        products: Iterable[ProductId] | None = None,
        min_count: int = 1,
        max_size: int | None = 100,
    ) -> AssociationGraph:
        """Build a graph of what is bought together: every two products of a basket.

        Args:
            baskets: product ids of each.
            products: as in `from_pairs`; others are dropped from the baskets and counted.
            min_count: baskets that a pair must be in.
            max_size: larger baskets are dropped and counted (a basket of n products has n^2 / 2 pairs, and one of
                hundreds is a reseller's); None takes all.

        Raises:
            ValueError: if no pair is left.
        """
        counter = PairCounter(products)
        report = AssociationReport()
        for basket in baskets:
            if isinstance(basket, str):
                raise ValueError(f"a basket must be a list of product ids, got the text {basket!r}: split it")
            known = [counter.index_of(product) for product in basket]
            report.unknown += sum(product is None for product in known)
            items = sorted({product for product in known if product is not None})
            if max_size is not None and len(items) > max_size:
                report.large_baskets += 1
                continue
            counter.add_all(items)
            report.pairs += len(items) * (len(items) - 1) // 2
        found, counts = counter.finish()
        report.repeated, report.rare = int(counts.sum()) - len(found), int((counts < min_count).sum())
        return cls._built(counter, found[counts >= min_count], report)

    @classmethod
    def _built(cls, counter: PairCounter, pairs: np.ndarray, report: AssociationReport) -> AssociationGraph:
        graph = cls(counter.products, pairs, report)
        if report.unknown:
            logger.warning("%d of %d associations name unknown products and are left out", report.unknown, report.pairs)
        return graph

    def __len__(self) -> int:
        return len(self.product_ids)

    def __contains__(self, product_id: object) -> bool:
        return product_id in self._index

    def __repr__(self) -> str:
        return f"AssociationGraph({len(self)} products, {self.num_pairs} pairs)"

    @property
    def num_pairs(self) -> int:
        """Associations, each counted once."""
        return len(self._neighbors) // 2

    @property
    def degrees(self) -> np.ndarray:
        """Neighbours of each product, int64 `[N]`, in the order of `product_ids`."""
        return np.diff(self._offsets)

    def index_of(self, product_id: ProductId) -> int:
        """Place of a product in `product_ids`.

        Raises:
            KeyError: if the graph does not know it.
        """
        try:
            return self._index[product_id]
        except KeyError:
            raise KeyError(f"product {product_id!r} is not among the {len(self)} products of the graph") from None

    def neighbors(self, product_id: ProductId) -> list[ProductId]:
        """Products associated with one; an empty list where it has none."""
        return [self.product_ids[i] for i in self.neighbors_at(self.index_of(product_id))]

    def neighbors_at(self, index: int) -> np.ndarray:
        """Indexes of the neighbours of the product at `index`, sorted, int32."""
        return self._neighbors[self._offsets[index] : self._offsets[index + 1]]

    def pairs(self) -> np.ndarray:
        """Each association once, int64 `[E, 2]` of indexes, the smaller one first."""
        left = np.repeat(np.arange(len(self)), self.degrees)
        once = left < self._neighbors
        return np.stack([left[once], self._neighbors[once]], axis=1)

    # Sampling

    def sample(
        self, product_id: ProductId, rng: np.random.Generator, negatives: Negatives = "uniform"
    ) -> tuple[ProductId, ProductId]:
        """Draw a neighbour of a product, and a product that is not related to it.

        Args:
            product_id: the product.
            rng: the generator.
            negatives: "uniform" over all unrelated products (the paper's), or "degree": as often as they occur as
                neighbours, so that being popular tells nothing.

        Raises:
            KeyError: if the product is unknown.
            ValueError: if it has no neighbour, or all other products are its neighbours.
        """
        neighbor, negative = self.sample_at(self.index_of(product_id), rng, negatives)
        return self.product_ids[neighbor], self.product_ids[negative]

    def sample_at(self, index: int, rng: np.random.Generator, negatives: Negatives = "uniform") -> tuple[int, int]:
        """As `sample`, with indexes in place of ids."""
        near = self.neighbors_at(index)
        if not len(near):
            raise ValueError(f"product {self.product_ids[index]!r} has no neighbours: sample those with degree > 0")
        neighbor = int(near[rng.integers(len(near))])
        return neighbor, self.sample_unrelated(index, rng, negatives)

    def sample_unrelated(self, index: int, rng: np.random.Generator, negatives: Negatives = "uniform") -> int:
        """Index of a product that is neither the one at `index` nor its neighbour.

        Raises:
            ValueError: if there is none.
        """
        near = self.neighbors_at(index)
        free = len(self) - 1 - len(near)
        if free <= 0:
            raise ValueError(
                f"product {self.product_ids[index]!r} is related to all {len(near)} others: there is no negative for it"
            )
        if negatives == "degree":
            for place in rng.integers(len(self._neighbors), size=_TRIES):
                drawn = int(self._neighbors[place])
                at = int(np.searchsorted(near, drawn))
                if drawn != index and (at == len(near) or near[at] != drawn):
                    return drawn
        rank = int(rng.integers(free))
        # Among the excluded in order, the i-th has (its index - i) free ones before it.
        itself = int(np.searchsorted(near, index))
        excluded = len(near) + 1

        def free_before(i: int) -> int:
            value = int(near[i]) if i < itself else index if i == itself else int(near[i - 1])
            return value - i

        return rank + bisect.bisect_right(range(excluded), rank, key=free_before)

    @property
    def can_sample(self) -> np.ndarray:
        """Products with a neighbour and an unrelated product, bool `[N]`."""
        return (self.degrees > 0) & (self.degrees < len(self) - 1)

    # Parts

    def _part(self, kept: np.ndarray) -> AssociationGraph:
        pairs = self.pairs()
        place = np.cumsum(kept) - 1
        chosen = place[pairs[kept[pairs].all(axis=1)]]
        return AssociationGraph([self.product_ids[i] for i in np.flatnonzero(kept)], chosen)

    def split(
        self, held_out: float = 0.2, seed: int = 0, group: Callable[[ProductId], Any] | Mapping[ProductId, Any] = str
    ) -> tuple[AssociationGraph, AssociationGraph]:
        """Split by product: no product is on both sides, and associations across are left out.

        The side follows from a hash of the product's group, so it is the same in every run and order.

        Args:
            held_out: share of the groups on the second side.
            seed: draws another split.
            group: what must stay together (a model's colours, products with equal text), by product id; by default
                each product is a group.

        Raises:
            ValueError: if the share is not in (0, 1), or a side is left without association.
        """
        if not 0 < held_out < 1:
            raise ValueError(f"held_out is a share between 0 and 1, got {held_out}")
        of: Callable[[ProductId], Any] = group.__getitem__ if isinstance(group, Mapping) else group
        border = int(held_out * 2**64)
        second = np.array([_position(f"{seed} {of(product)}") < border for product in self.product_ids])
        return self._part(~second), self._part(second)

    # Storage

    def save(self, directory: str | Path) -> None:
        """Write the graph as two Parquet files, in the layout that `load_dataset(directory, "associations")` reads.

        Args:
            directory: made if needed.

        Raises:
            FileExistsError: if its folders `associations` or `products` hold Parquet files that are no graph's.
        """
        earlier = _earlier_files(Path(directory))
        staged: dict[Path, Path] = {}
        try:
            for name, dataset in self._tables().items():
                place = Path(directory) / name / "train-00000-of-00001.parquet"
                place.parent.mkdir(parents=True, exist_ok=True)
                staged[place] = place.with_name(f".{place.name}.{os.getpid()}")
                pq.write_table(dataset.data.table, staged[place])
            for place, whole in staged.items():
                os.replace(whole, place)
            for old in set(earlier) - staged.keys():  # of another layout
                old.unlink()
        finally:
            for whole in staged.values():
                whole.unlink(missing_ok=True)

    def _tables(self) -> dict[str, Dataset]:
        from datasets import Dataset

        ids = pa.array(self.product_ids)
        pairs = self.pairs()
        ends = {f"product_{name}": ids.take(pa.array(pairs[:, i])) for i, name in enumerate("ab")}
        return {"associations": Dataset(pa.table(ends)), "products": Dataset(pa.table({"product_id": ids}))}

    @classmethod
    def load(cls, directory_or_repo: str | Path, revision: str | None = None) -> AssociationGraph:
        """Read a graph that `save` wrote or `push_to_hub` pushed.

        Args:
            directory_or_repo: a folder, or a data set on the Hub.
            revision: of the data set.

        Raises:
            FileNotFoundError: if there is no such folder or data set, or it holds no graph.
        """
        folder = resolve(
            directory_or_repo, revision, ["associations/*.parquet", "products/*.parquet"], repo_type="dataset"
        )
        tables = {}
        for name, wanted in _COLUMNS.items():
            files = sorted((folder / name).glob("*.parquet"))
            if not files:
                raise FileNotFoundError(f"{folder} has no {name}/*.parquet: it holds no association graph")
            tables[name] = pa.concat_tables(pq.read_table(file, columns=wanted) for file in files)
        ends = (tables["associations"].column(name).to_pylist() for name in _COLUMNS["associations"])
        products = tables["products"].column("product_id").to_pylist()
        return cls.from_pairs(zip(*ends, strict=True), products, unknown="raise")

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, revision: str | None = None) -> str:
        """Push the graph as a data set with the configurations `associations` and `products`.

        Args:
            repo_id: "user/name"; made when missing.
            private: whether a new repository is private.
            revision: the branch to push to.

        Returns:
            The repository's address.
        """
        address = ""
        for name, dataset in self._tables().items():
            address = push_dataset(
                dataset, repo_id, name, private=private, revision=revision, commit_message=f"Push {name}: {self!r}"
            )
        return address


def _position(text: str) -> int:
    return int.from_bytes(hashlib.sha1(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()[:8])


def _earlier_files(folder: Path) -> list[Path]:
    """Files of the graph that a folder holds; a damaged one under the name of a graph's is one.

    Raises:
        FileExistsError: with the first Parquet file that is no graph's.
    """
    found = [path for name in _COLUMNS for path in sorted((folder / name).glob("*.parquet"))]
    for path in found:
        wanted = _COLUMNS[path.parent.name]
        try:
            columns = pq.read_schema(path).names
        except (pa.ArrowException, OSError):
            columns = wanted
        if columns != wanted or not _PART.fullmatch(path.name):
            further = ", ".join(name for name in columns if name not in wanted)
            lost = f" (its columns {further} would be lost)" if further else ""
            raise FileExistsError(f"{path} is no file of an association graph: choose another folder, or move it{lost}")
    return found
