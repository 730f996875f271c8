"""How an index is built: its kind, what of a product is encoded, what can be filtered."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any, Literal

from rexbert_hf.retrieval.serving.filters import FILTER_COLUMNS, columns_of

KINDS = ("flat", "hnsw", "int8", "int4", "binary")
METRICS = ("cosine", "dot")
MODES = ("dense", "lexical", "hybrid")

OWN_COLUMNS = ("product_id", "text", "digest", "__alive", "__digest")
"""What an index keeps of each product under names of its own."""

GRAPH_LINKS = 32
"""Neighbours of a graph node, unless told otherwise."""

# Candidates a hit, by kind: the coarser the code, the more.
_OVERSAMPLE = {"flat": 1.0, "hnsw": 1.0, "int8": 1.5, "int4": 3.0, "binary": 10.0}

# Least candidates kept while searching, and for each hit: of a graph, and of lists.
_GRAPH_EF, _LIST_EF = (128, 3), (256, 6)
_IN_LISTS = ("int8", "int4")
_MOST = 1 << 31  # FAISS counts in 32 bits


@dataclass
class IndexOptions:
    """Settings of an index; they are saved with it.

    A value that means nothing is a ValueError, and one of another type a TypeError: both name the option.

    Attributes:
        kind: "flat" compares with every vector; "hnsw" walks a graph over float32 vectors; "int4" looks
            through some of many lists of 4-bit codes (an eighth of the size), and "int8" sorts what it finds there by
            8-bit codes (three eighths in all) and so reads fewer vectors; "binary" scans one bit a dimension. The last
            three rescore their candidates with the stored vectors, which stay on disk.
        metric: "cosine" (vectors are normalised) or "dot".
        fields: of a product, in the order they are encoded.
        field_names: put "title: " and so on before each field.
        filters: columns that a search may be filtered by, where products have them.
        storage: how vectors are stored: "float32" or "int8" (a quarter of the disk, scores within about 1e-3).
        links: neighbours of a graph node ("hnsw"); twice as many on the lowest level. 32 by default.
        ef_construction: candidates looked at for each new node.
        ef_search: candidates kept while walking; by default three for each hit wanted, at least 128. An index of kind
            "int8" or "int4" looks through a list for every 8 of them; there it is six, and at least 256.
        oversample: candidates rescored for each hit wanted. Default by kind: 1.5 (int8), 3 (int4), 10 (binary).
        lexical: build BM25 beside the vectors at once; else at the first lexical search.
        stem: whether BM25 stems words (English).
        spelling: search for words that no product has in the catalogue's own spelling, see `Speller`, in every mode.
            The words are learned with BM25, so a dense search builds that too.
        dense_weight: what a hit by vector counts in a hybrid search beside one by words.
    """

    kind: Literal["flat", "hnsw", "int8", "int4", "binary"] = "hnsw"
    metric: Literal["cosine", "dot"] = "cosine"
    fields: list[str] = field(default_factory=lambda: ["title"])
    field_names: bool = False
    filters: list[str] = field(default_factory=lambda: list(FILTER_COLUMNS))
    storage: Literal["float32", "int8"] = "float32"
    links: int | None = None
    ef_construction: int = 128
    ef_search: int | None = None
    oversample: float | None = None
    lexical: bool = False
    stem: bool = True
    spelling: bool = False
    dense_weight: float = 1.0

    def __post_init__(self) -> None:
        for name, known in (("kind", KINDS), ("metric", METRICS), ("storage", ("float32", "int8"))):
            if getattr(self, name) not in known:
                raise ValueError(f"index {name} {getattr(self, name)!r} is unknown: choose one of {', '.join(known)}")
        for name in ("fields", "filters"):
            if isinstance(value := getattr(self, name), str):  # else each letter were one
                raise TypeError(f"index {name} is a list of names: write {name}=[{value!r}], not {name}={value!r}")
        for name in ("links", "ef_construction", "ef_search", "dense_weight", "oversample"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
                raise TypeError(f"index {name} is a number, not {value!r}")
        if not self.fields:
            raise ValueError("index fields is empty: name what of a product is encoded, such as title")
        if taken := [name for name in columns_of(self.filters) if name in OWN_COLUMNS]:
            raise ValueError(f"index filters: '{taken[0]}' is a name that the index itself uses: rename the column")
        for name in ("links", "ef_construction", "ef_search"):
            if (value := getattr(self, name)) is not None:
                setattr(self, name, _counted(name, value))
        if not 0 < self.dense_weight < math.inf:
            raise ValueError(f"index dense_weight must be above 0, got {self.dense_weight}")
        if self.oversample is not None and not 1 <= self.oversample < _MOST:  # NaN is neither
            raise ValueError(f"index oversample must be at least 1 and below {_MOST:,}, got {self.oversample}")
        self.dense_weight = float(self.dense_weight)
        self.oversample = None if self.oversample is None else float(self.oversample)

    @classmethod
    def of(cls, **options: Any) -> IndexOptions:
        """Options from keyword arguments.

        Raises:
            TypeError: for a name that is none; the known ones are listed.

        Example:
            >>> IndexOptions.of(kind="int8").candidates(100), IndexOptions.of(kind="int8").ef(10)
            (150, 256)
        """
        known = [item.name for item in fields(cls)]
        if unknown := sorted(set(options) - set(known)):
            raise TypeError(f"unknown index option '{unknown[0]}'; there are: {', '.join(known)}")
        return cls(**options)

    @property
    def graph_links(self) -> int:
        """Links of a graph node."""
        return self.links or GRAPH_LINKS

    def candidates(self, k: int) -> int:
        """Rows that are rescored for k hits."""
        return max(k, round(k * (self.oversample or _OVERSAMPLE[self.kind])))

    def ef(self, k: int) -> int:
        """Candidates kept while walking the graph for k hits; or lists looked through, times 8."""
        least, a_hit = _LIST_EF if self.kind in _IN_LISTS else _GRAPH_EF
        wanted = self.ef_search or max(least, a_hit * k)
        return wanted if self.kind in _IN_LISTS else max(wanted, self.candidates(k))


def _counted(name: str, value: Any) -> int:
    """Python's own whole number: FAISS takes no other, and JSON none of numpy's."""
    if not 2 <= value < _MOST:
        raise ValueError(f"index {name} must be at least 2 and below {_MOST:,}, got {value}")
    if value != int(value):
        raise ValueError(f"index {name} is a whole number, not {value}")
    return int(value)
