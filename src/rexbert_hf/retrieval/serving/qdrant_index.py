"""The same index in Qdrant: a server or cluster by URL, the way past one machine, or in memory.

A build fills a collection of its own and then moves the alias that searches go through, so readers see the old
catalogue or the new one. Texts and their hashes are kept in the payload: an upsert encodes only what has changed. BM25
lies in the memory of each client, who reads all texts for it and again when the number of products has changed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rexbert_hf.catalog.columns import as_text
from rexbert_hf.catalog.sources import with_home
from rexbert_hf.hub import versions
from rexbert_hf.retrieval.serving.encoding import Bfloat16
from rexbert_hf.retrieval.serving.filters import parse_filter
from rexbert_hf.retrieval.serving.index_folder import write_version
from rexbert_hf.retrieval.serving.index_options import IndexOptions
from rexbert_hf.retrieval.serving.lexical import LexicalIndex, check_installed
from rexbert_hf.retrieval.serving.product_rows import Batch, batches, digests_of
from rexbert_hf.retrieval.serving.qdrant_alias import (
    collection_of,
    drop_left,
    drop_unless_used,
    is_gone,
    look_behind,
    new_name,
    point_to,
)
from rexbert_hf.retrieval.serving.qdrant_points import (
    collection_settings,
    condition_of,
    connect,
    connect_described,
    explained,
    facts_of,
    index_columns,
    payload_of,
    point_id,
    saved_columns,
    send,
)
from rexbert_hf.retrieval.serving.query_model import ModelIdentity, opened
from rexbert_hf.retrieval.serving.search_index import Hits, SearchIndex

SCROLL_POINTS = 4_096
MOST_CHOICES = 1_000


class QdrantIndex(SearchIndex):
    """Products in a Qdrant collection; made by `ProductIndex.build(..., backend="qdrant")`.

    Args:
        client: of qdrant-client.
        place: URL or ":memory:".
        collection: name that searches use; an alias of the collection that the last build filled.
        options: how the index was built.
        identity: of its model.
        model: encodes queries and products.
    """

    def __init__(
        self,
        client: Any,
        place: str,
        collection: str,
        options: IndexOptions,
        identity: ModelIdentity | None,
        model: Any = None,
    ) -> None:
        super().__init__(options, identity, model)
        self.client, self.place, self.collection = client, place, collection
        self.columns: dict[str, bool] = {}  # whether it holds texts
        self._behind: str | None = None  # the collection that the alias pointed to when it was last looked at
        self._dim = len(identity.probes[0]) if identity is not None else 0
        self._words: tuple[LexicalIndex, list[str]] | None = None
        self._reading = threading.Lock()

    # Making

    @classmethod
    def build(
        cls,
        products: Any,
        model: Any,
        kind: str = "hnsw",
        *,
        revision: str | None = None,
        url: str | None = None,
        collection: str = "products",
        api_key: str | None = None,
        cache_dir: str | Path | None = None,
        bf16: Bfloat16 = "auto",
        **options: Any,
    ) -> QdrantIndex:
        """Encode a catalogue into a new collection, then let the alias point there.

        Args:
            products: as for `ProductIndex.build`.
            model: likewise.
            kind: "flat" searches exactly; "hnsw", "int8" and "binary" set up graph and quantisation on the server
                (in memory all search exactly).
            revision: likewise.
            url: of a server or cluster; without it the index lies in memory, for trying it out.
            collection: name that searches use.
            api_key: of the server; by default the environment's QDRANT_API_KEY. Never saved.
            cache_dir: an embedding cache.
            bf16: as for `ProductIndex.build`.
            options: further fields of `IndexOptions`.

        Raises:
            ConnectionError: if Qdrant cannot be reached.
            ValueError: as for `ProductIndex.build`; kind "int4" is unknown to Qdrant.
            ImportError: if qdrant-client, or what BM25 and spelling need, is not installed.
        """
        settings = IndexOptions.of(kind=kind, **options)
        if kind == "int4":
            raise ValueError("Qdrant has no 4-bit codes: choose kind int8 or binary")
        check_installed(settings)
        loaded, identity = opened(model, revision)
        client, place = connect(url, api_key)
        index = cls(client, place, collection, settings, identity, loaded)
        index.bf16 = bf16
        index.use_cache(cache_dir)
        try:
            with explained(place):
                index._fill(products)
        except BaseException:
            client.close()
            raise
        return index

    @classmethod
    def attach(
        cls,
        facts: Mapping[str, Any],
        identity: ModelIdentity | None,
        model: Any = None,
        *,
        url: str | None = None,
        api_key: str | None = None,
        pulled: bool = False,
    ) -> QdrantIndex:
        """Open the collection that a saved description names.

        Args:
            facts: of `index.json`.
            identity: of its model.
            model: encodes queries; by default the one that is named, loaded when it is needed.
            url: the server; by default the environment's QDRANT_URL, else the one that is named.
            api_key: of the server; by default QDRANT_API_KEY, which goes to a `url` that you give and to no other.
            pulled: whether the description came from the Hub: then the server that it names is not asked.

        Raises:
            ConnectionError: if Qdrant cannot be reached.
            FileNotFoundError: if the collection is not there.
            ValueError: if the server is for you to name, or another model has filled the collection.
        """
        client, place = connect_described(str(facts["place"]), url, api_key, pulled)
        index = cls(client, place, str(facts["collection"]), IndexOptions.of(**facts["options"]), identity)
        index.columns = saved_columns(facts["columns"])
        try:
            if model is not None:
                index.model = model
            with explained(place):
                index._look()
        except BaseException:
            client.close()
            raise
        return index

    def _fill(self, products: Any) -> None:
        if collection_of(self.client, self.collection) == self.collection:
            raise ValueError(f"Qdrant at {self.place} has a collection '{self.collection}' that is no alias: rename it")
        drop_left(self.client, self.collection)
        name = new_name(self.collection, self.identity)
        try:
            self.client.create_collection(name, **collection_settings(self.options, self._dim))
            self._behind = name
            written = sum(self._write(batch) for batch in batches(products, self.options, fresh=True))
            if not written:
                raise ValueError("no product to index: give products with a title")
            if "://" in self.place:  # in memory there are no such indexes
                index_columns(self.client, name, self.columns)
            point_to(self.client, self.collection, name)
        except BaseException:
            drop_unless_used(self.client, name)
            raise

    def _look(self) -> str:
        """The collection behind the alias, which a build may have moved since; another model's is refused."""
        name = look_behind(self.client, self.collection, self.identity, self.place)
        if name != self._behind:
            self._behind, self._words = name, None
        return name

    def _ask(self, question: str, *rest: Any, **options: Any) -> Any:
        """Call a method of the client on the collection; where a build has replaced this, on the new one."""
        method = getattr(self.client, question)
        try:
            return method(self._behind or self._look(), *rest, **options)
        except Exception as error:
            if not is_gone(error):
                raise
        return method(self._look(), *rest, **options)

    # Changing

    def upsert(self, products: Any) -> int:
        """See `SearchIndex.upsert`."""
        with explained(self.place):
            encoded = 0
            for batch in batches(products, self.options):
                self._look()
                encoded += self._write(batch, known=True)
            return encoded

    def _write(self, batch: Batch, known: bool = False) -> int:
        """Send a batch; returns how many of its products were encoded."""
        if not batch.ids:
            batch.removed = self._remove(batch.skipped)
            return 0
        points = [point_id(name) for name in batch.ids]
        digests = [f"{digest:016x}" for digest in digests_of(batch.texts)]
        kept: dict[str, Any] = {}
        if known:
            there = self.client.retrieve(self._behind, points, with_payload=["digest"], with_vectors=True)
            kept = {str(point.id): point for point in there}
        same = [
            point in kept and (kept[point].payload or {}).get("digest") == digest
            for point, digest in zip(points, digests, strict=True)
        ]
        places = [i for i, unchanged in enumerate(same) if not unchanged]
        vectors = np.empty((len(points), self._dim), dtype=np.float32)
        for i in np.flatnonzero(same):
            vectors[i] = kept[points[i]].vector
        if places:
            vectors[places] = self._encoded([batch.texts[i] for i in places], [batch.ids[i] for i in places])
        # All that may fail of this catalogue comes before the first change.
        columns = dict(self.columns)
        payloads = [payload_of(batch, i, digests[i], columns) for i in range(len(points))]
        self.columns = columns
        batch.removed = self._remove(batch.skipped)
        send(self.client, str(self._behind), points, vectors, payloads)
        self._words = None
        return len(places)

    def _remove(self, ids: Sequence[str]) -> int:
        """Remove products; returns how many were there."""
        from qdrant_client import models

        points: list[Any] = [point_id(name) for name in ids]
        there = self.client.retrieve(self._behind, points, with_payload=False) if points else []
        if there:
            selector = models.PointIdsList(points=[point.id for point in there])
            self.client.delete(self._behind, points_selector=selector, wait=True)
        self._words = None
        return len(there)

    def delete(self, ids: Sequence[str]) -> int:
        """See `SearchIndex.delete`."""
        if isinstance(ids, str):
            raise TypeError(f"delete takes a list of product ids, not the text {ids!r}")
        with explained(self.place):
            self._look()
            return self._remove([as_text(name) for name in ids])

    # Searching

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self._dim

    def __len__(self) -> int:
        with explained(self.place):
            return int(self._ask("count", exact=True).count)

    def __repr__(self) -> str:
        return f"QdrantIndex({self.collection} at {self.place}, {self.options.kind}, {self.dim} dimensions)"

    def _searched(self) -> QdrantIndex:
        return self

    def search_vectors(self, vectors: np.ndarray, k: int, filter: Mapping[str, Any] | None) -> list[Hits]:
        """See `Searched`."""
        from qdrant_client import models

        wanted = self._filter(filter)
        codes = models.QuantizationSearchParams(rescore=True, oversampling=self.options.candidates(k) / k)
        params = models.SearchParams(exact=self.options.kind == "flat", hnsw_ef=self.options.ef(k), quantization=codes)
        requests = [
            models.QueryRequest(
                query=vector.tolist(), filter=wanted, limit=k, params=params, with_payload=["product_id"]
            )
            for vector in vectors
        ]
        with explained(self.place):
            answers = self._ask("query_batch_points", requests=requests)
        return [[(point.payload["product_id"], float(point.score)) for point in answer.points] for answer in answers]

    def ids(self) -> list[str]:
        """See `SearchIndex.ids`."""
        with explained(self.place):
            return [payload["product_id"] for payload in self._scroll(None, ["product_id"])]

    def texts(self, ids: Sequence[str]) -> list[str | None]:
        """See `SearchIndex.texts`."""
        return [payload.get("text") for payload in self._payloads(ids, ["text"])]

    def facts(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """See `SearchIndex.facts`."""
        return [facts_of(payload) for payload in self._payloads(ids, self.filter_columns)]

    def _payloads(self, ids: Sequence[str], fields: list[str]) -> list[dict[str, Any]]:
        points = [point_id(as_text(name)) for name in ids]
        with explained(self.place):
            found = self._ask("retrieve", points, with_payload=fields) if points else []
        there = {str(point.id): point.payload or {} for point in found}
        return [there.get(point, {}) for point in points]

    def choices(self, column: str) -> list[str]:
        """See `SearchIndex.choices`; of a category path each level and each beginning."""
        if not self.columns.get(column):
            return []
        with explained(self.place):
            answer = self._ask("facet", key=column, limit=MOST_CHOICES)
        return sorted(str(hit.value) for hit in answer.hits)

    @property
    def filter_columns(self) -> list[str]:
        """Columns that a search may be filtered by."""
        return sorted(self.columns)

    def search_words(self, texts: Sequence[str], k: int, filter: Mapping[str, Any] | None) -> list[Hits]:
        """See `Searched`."""
        lexical, names = self._named_words()
        with explained(self.place):
            mask = None
            if filter:
                passing = {payload["product_id"] for payload in self._scroll(self._filter(filter), ["product_id"])}
                mask = np.array([name in passing for name in names], dtype=bool)
        scores, rows = lexical.search(texts, min(k, max(len(names), 1)), mask)
        return [
            [(names[row], float(score)) for row, score in zip(found, values, strict=True) if row >= 0]
            for found, values in zip(rows, scores, strict=True)
        ]

    def words(self) -> LexicalIndex:
        """BM25 of all products; see `SearchIndex`."""
        return self._named_words()[0]

    def _named_words(self) -> tuple[LexicalIndex, list[str]]:
        """BM25 and the ids of its products, read from the collection: at first, and when their number has changed."""
        count = len(self)
        with self._reading:
            if self._words is None or len(self._words[1]) != count:
                with explained(self.place):
                    found = list(self._scroll(None, ["product_id", "text"]))
                texts = [payload["text"] for payload in found]
                lexical = LexicalIndex.build(texts, self.options.stem, spelling=self.options.spelling)
                self._words = lexical, [payload["product_id"] for payload in found]
            return self._words

    def _scroll(self, wanted: Any, fields: list[str]) -> Iterator[dict[str, Any]]:
        offset = None
        while True:
            points, offset = self._ask("scroll", wanted, limit=SCROLL_POINTS, offset=offset, with_payload=fields)
            yield from (point.payload for point in points)
            if offset is None:
                return

    def _filter(self, wanted: Mapping[str, Any] | None) -> Any:
        from qdrant_client import models

        if not wanted:
            return None
        conditions = parse_filter(wanted, self.columns)
        return models.Filter(must=[condition_of(name, condition) for name, condition in conditions.items()])

    def close(self) -> None:
        """Close the client: the folder of an embedded Qdrant is free for others then."""
        self.client.close()

    def save(self, directory: str | Path) -> Path:
        """Save where the collection is and how it was built; the products stay in Qdrant.

        Args:
            directory: for `ProductIndex.load`.
        """
        facts = {"format": 1, "backend": "qdrant", "place": self.place, "collection": self.collection}
        facts |= {"columns": self.columns, "options": asdict(self.options), "versions": versions()}
        facts["model"] = None if self.identity is None else asdict(self.identity)
        return write_version(with_home(directory), lambda stage: facts)
