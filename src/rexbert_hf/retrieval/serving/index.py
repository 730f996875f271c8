"""`ProductIndex`: a catalogue that can be searched, filtered, changed, saved whole and shared.

Vectors lie in a mapped file, codes (see `codes.py`) in memory, filter columns in numpy arrays. Searching needs no
lock; changing an index that is being searched does: change one copy, `save` it, and let the readers `refresh`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rexbert_hf.hub import resolve
from rexbert_hf.retrieval.serving.dense import dense_search
from rexbert_hf.retrieval.serving.filters import canonical
from rexbert_hf.retrieval.serving.index_build import compact_index, fill_index
from rexbert_hf.retrieval.serving.index_card import push_index
from rexbert_hf.retrieval.serving.index_files import LEXICAL_FOLDER, described, read_files, write_files
from rexbert_hf.retrieval.serving.index_folder import INDEX_FILE, current_version, read_facts, write_version
from rexbert_hf.retrieval.serving.index_options import IndexOptions
from rexbert_hf.retrieval.serving.index_state import IndexState
from rexbert_hf.retrieval.serving.product_rows import Batch, batches, digests_of
from rexbert_hf.retrieval.serving.query_model import ModelIdentity, load_model
from rexbert_hf.retrieval.serving.search_index import Hits, checked_documents
from rexbert_hf.retrieval.serving.vector_store import VECTORS_FILE, VectorStore, read_segment

logger = logging.getLogger(__name__)

KEPT_MASKS = 16
"""Filters whose rows are remembered until the index changes."""

COMPACT_SHARE = 0.3
"""Share of dead rows from which an index says that it wants `compact()`."""

_DOWNLOADED = (INDEX_FILE, "*.parquet", "*.safetensors", "*.faiss", f"{LEXICAL_FOLDER}/*")
_READ_ATTEMPTS = 5


class ProductIndex(IndexState):
    """Products and their vectors; made by `build` and `load`.

    Example:
        >>> from rexbert_hf.retrieval.serving.hashing_encoder import HashingEncoder
        >>> products = [{"product_id": "p1", "title": "red lamp"}, {"product_id": "p2", "title": "kiwi", "price": 3}]
        >>> index = ProductIndex.build(products, HashingEncoder(), kind="flat")
        >>> [name for name, _ in index.search("red lamps")[0]], index.search("red lamp", filter={"price": (4, 5)})
        (['p1', 'p2'], [[]])
    """

    # Making

    @classmethod
    def build(
        cls,
        products: Any,
        model: Any,
        kind: str = "hnsw",
        *,
        backend: str = "faiss",
        cache_dir: str | Path | None = None,
        work_dir: str | Path | None = None,
        vectors: np.ndarray | None = None,
        **options: Any,
    ) -> Any:
        """Encode a catalogue and index it, in batches: memory holds codes, columns and one batch.

        Of products with the same id the last one counts; products without any text are left out; both are logged.

        Args:
            products: a data set, a list or a generator of `PRODUCT` rows or mappings with some of their fields.
            model: a SentenceTransformer, an `OnnxEncoder`, any object with `encode(texts)`, or a folder or repository.
            kind: "flat", "hnsw", "int8", "int4" or "binary", see `IndexOptions`.
            backend: "faiss", or "qdrant" (then see `QdrantIndex.build` for `url`, `path`, `collection`).
            cache_dir: an embedding cache: texts encoded before with this model are not encoded again.
            work_dir: where vectors are kept until the index is saved; the system's temporary folder by default.
            vectors: `[N, D]` of the products, in place of encoding them.
            options: further fields of `IndexOptions`, such as `fields`, `filters`, `metric`, `lexical`.

        Returns:
            A `ProductIndex`, or a `QdrantIndex`.

        Raises:
            ValueError: for a product without id, a vector that is not finite, an empty catalogue.
            ImportError: if FAISS is needed and not installed.
        """
        if backend == "qdrant":
            from rexbert_hf.retrieval.serving.qdrant_index import QdrantIndex

            return QdrantIndex.build(products, model, kind, cache_dir=cache_dir, **options)
        if backend != "faiss":
            raise ValueError(f"index backend {backend!r} is unknown: faiss or qdrant")
        loaded = None if model is None else load_model(model)
        name = str(model) if isinstance(model, (str, Path)) else None
        identity = None if loaded is None else ModelIdentity.of(loaded, name)
        index = cls(IndexOptions.of(kind=kind, **options), identity, loaded)
        if loaded is not None:
            index.use_cache(cache_dir)
        fill_index(index, products, vectors, work_dir)
        return index

    # Searching

    def __repr__(self) -> str:
        name = self.identity.name if self.identity else "vectors"
        return f"ProductIndex({len(self)} products, {self.options.kind}, {self.dim} dimensions, {name})"

    def _mask(self, filter: Mapping[str, Any] | None) -> np.ndarray | None:
        """Rows that may be returned; None: all."""
        if not filter:
            return None if self.rows.alive.all() else self.rows.alive
        name = repr([(key, getattr(value, "tolist", lambda v=value: v)()) for key, value in canonical(filter).items()])
        if name not in self._masks:
            if len(self._masks) >= KEPT_MASKS:
                self._masks.clear()
            self._masks[name] = self.rows.columns.mask(filter) & self.rows.alive
        return self._masks[name]

    def _dense(self, vectors: np.ndarray, k: int, filter: Mapping[str, Any] | None) -> list[Hits]:
        scores, rows = dense_search(self.store, self.codes, self.options, vectors, k, self._mask(filter))
        return self._named(scores, rows)

    def _lexical(self, texts: Sequence[str], k: int, filter: Mapping[str, Any] | None) -> list[Hits]:
        lexical = self.words()
        return self._named(*lexical.search(texts, min(k, len(self.rows)), self._mask(filter)))

    def _named(self, scores: np.ndarray, rows: np.ndarray) -> list[Hits]:
        hits = []
        for found, values in zip(rows, scores, strict=True):
            there = found >= 0
            hits.append(list(zip(self.rows.names(found[there]), values[there].tolist(), strict=True)))
        return hits

    def texts(self, ids: Sequence[str]) -> list[str | None]:
        """The encoded text of products, None for unknown ones.

        Args:
            ids: product ids.
        """
        rows = self.rows.find(list(ids))
        there = self.rows.texts.take(pa.array(rows[rows >= 0])).to_pylist()
        return [there.pop(0) if row >= 0 else None for row in rows]

    def facts(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Filter columns of products, such as price and category_path; {} for unknown ones.

        Args:
            ids: product ids.
        """
        return [self.rows.columns.at(int(row)) if row >= 0 else {} for row in self.rows.find(list(ids))]

    def choices(self, column: str) -> list[str]:
        """Texts that a filter column holds, sorted; [] for numbers, and for a column that the index does not have.

        Args:
            column: its name.
        """
        found = self.rows.columns.columns.get(column)
        return sorted(found.texts) if found is not None and found.texts is not None else []

    @property
    def filter_columns(self) -> list[str]:
        """Columns that a search may be filtered by."""
        return list(self.rows.columns.columns)

    # Changing

    def upsert(self, products: Any) -> int:
        """Add products, or replace those of the same id; returns how many had to be encoded.

        A product whose text is the same keeps its vector; its filter columns are written anew.

        Args:
            products: as for `build`.
        """
        encoded = 0
        for batch in batches(products, self.options):
            self._masks.clear()
            if not batch.ids:
                continue
            rows = self.rows.find(batch.ids)
            known = rows >= 0
            same = np.zeros(len(rows), dtype=bool)
            same[known] = self.rows.digests[rows[known]] == digests_of(batch.texts)[known]
            for place in np.flatnonzero(same):
                self.rows.columns.replace(int(rows[place]), batch.products[place], batch.ids[place])
            encoded += self._add(batch, np.flatnonzero(~same), rows)
        self._say_if_sparse()
        return encoded

    def _add(self, batch: Batch, places: np.ndarray, rows: np.ndarray) -> int:
        """New rows for the products at `places`; their old `rows` are dead."""
        if not len(places):
            return 0
        part = Batch([batch.ids[i] for i in places], [batch.texts[i] for i in places], [])
        vectors = checked_documents(self.encode(part), part.ids, self.options.metric)
        if vectors.shape[1] != self.dim:
            raise ValueError(f"the model gives {vectors.shape[1]} dimensions, the index has {self.dim}: use its model")
        self.rows.append(batch, places.tolist())
        self.kill(rows[places])
        self.store.append(vectors)
        if self.codes is not None:
            self.codes.add(vectors)
        return len(places)

    def delete(self, ids: Sequence[str]) -> int:
        """Remove products; returns how many were there.

        Args:
            ids: product ids; unknown ones are passed over.
        """
        if isinstance(ids, str):
            raise TypeError(f"delete takes a list of product ids, not the text {ids!r}")
        killed = self.kill(np.unique(self.rows.find([str(name) for name in ids])))
        self._say_if_sparse()
        return killed

    @property
    def dead_share(self) -> float:
        """Share of rows that were deleted or replaced."""
        return 1 - len(self) / max(len(self.rows), 1)

    def _say_if_sparse(self) -> None:
        if self.dead_share > COMPACT_SHARE:
            logger.warning("%.0f %% of the rows are dead: compact() builds the codes again", 100 * self.dead_share)

    def compact(self) -> None:
        """Drop dead rows and build the codes again; nothing is encoded."""
        self._masks.clear()
        compact_index(self)

    # Storage

    def save(self, directory: str | Path) -> Path:
        """Save a new version and make it the current one, in one step for every reader.

        Args:
            directory: of the index; earlier versions in it are replaced.

        Returns:
            The folder of the version.
        """
        folder = Path(directory)
        self.version = write_version(folder, lambda stage: write_files(self, stage))
        self.folder = folder
        self.store = VectorStore(self.dim, self.options.storage, [read_segment(self.version / VECTORS_FILE)])
        self.scratch = None
        return self.version

    @classmethod
    def load(
        cls,
        directory_or_repo: str | Path,
        model: Any = None,
        *,
        revision: str | None = None,
        verify: bool | None = None,
        **options: Any,
    ) -> Any:
        """Open an index that `save` wrote or `push_to_hub` pushed.

        Args:
            directory_or_repo: a folder, or a data set on the Hub.
            model: what encodes queries; by default the model that the index names, loaded when it is needed.
            revision: of the repository.
            verify: compare checksums of all files; by default for up to 256 MB.
            options: of `QdrantIndex.attach`, for an index in Qdrant.

        Returns:
            A `ProductIndex`, or the `QdrantIndex` that the folder describes.

        Raises:
            FileNotFoundError: if there is no index.
            ValueError: if a file is damaged, or the model is not the one of the index.
        """
        folder = resolve(directory_or_repo, revision, _DOWNLOADED, repo_type="dataset")
        for attempt in range(_READ_ATTEMPTS):
            version = current_version(folder)
            try:
                return cls._open(folder, version, model, verify, options)
            except FileNotFoundError:
                if attempt == _READ_ATTEMPTS - 1 or current_version(folder) == version:
                    raise
                # Saved twice while it was being read: read the new one.
        raise AssertionError("unreachable")

    @classmethod
    def _open(cls, folder: Path, version: Path, model: Any, verify: bool | None, options: dict[str, Any]) -> Any:
        facts = read_facts(version, verify)
        settings, identity = described(version, facts)
        if facts.get("backend") == "qdrant":
            from rexbert_hf.retrieval.serving.qdrant_index import QdrantIndex

            return QdrantIndex.attach(facts, identity, model, **options)
        if options:
            raise TypeError(f"load: unknown argument '{sorted(options)[0]}'")
        index = cls(settings, identity)
        if model is not None:
            index.model = model
        index.folder = folder
        read_files(index, version, facts)
        return index

    def refresh(self) -> bool:
        """Open the current version of the folder, if another one than this was saved there.

        Returns:
            Whether there was one.
        """
        if self.folder is None or current_version(self.folder) == self.version:
            return False
        newer = ProductIndex.load(self.folder, self._model)
        self.__dict__.update(newer.__dict__)
        return True

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, **options: Any) -> str:
        """Push the index as a data set, in one commit, with a card.

        Args:
            repo_id: "user/name"; made when missing.
            private: whether a new repository is private.
            options: `token`, `endpoint`, `revision`, `tag`, `commit_message`; see `push_files`.

        Returns:
            The repository's address.
        """
        return push_index(self, repo_id, private=private, **options)
