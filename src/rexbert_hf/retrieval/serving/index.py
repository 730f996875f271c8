"""`ProductIndex`: a catalogue that can be searched, filtered, changed, saved whole and shared.

Vectors lie in a mapped file, codes (see `codes.py`) in memory, filter columns in numpy arrays. Searching needs no
lock; changing an index that is being searched does: change one copy, `save` it, and let the readers `refresh`, which
changes one reference.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rexbert_hf.catalog.columns import as_text
from rexbert_hf.catalog.sources import with_home
from rexbert_hf.hub import resolve
from rexbert_hf.retrieval.serving.encoding import Bfloat16
from rexbert_hf.retrieval.serving.index_card import push_index
from rexbert_hf.retrieval.serving.index_folder import INDEX_FILE, current_version, described, read_facts, write_version
from rexbert_hf.retrieval.serving.index_options import IndexOptions
from rexbert_hf.retrieval.serving.index_state import LEXICAL_FOLDER, IndexState
from rexbert_hf.retrieval.serving.product_rows import ProductRows, batches
from rexbert_hf.retrieval.serving.query_model import ModelIdentity, opened
from rexbert_hf.retrieval.serving.search_index import SearchIndex
from rexbert_hf.retrieval.serving.vector_store import VectorStore

logger = logging.getLogger(__name__)

COMPACT_SHARE = 0.3
"""Share of dead rows from which an index says that it wants `compact()`."""

_DOWNLOADED = (INDEX_FILE, "*.parquet", "*.safetensors", "*.faiss", f"{LEXICAL_FOLDER}/*")
_READ_ATTEMPTS = 5


class ProductIndex(SearchIndex):
    """Products and their vectors; made by `build` and `load`.

    Args:
        options: how it is built.
        identity: of the model that encodes its products.
        model: the model.
        state: products and vectors; none by default.

    Attributes:
        folder: where it was saved or opened.

    Example:
        >>> from rexbert_hf.retrieval.serving.hashing_encoder import HashingEncoder
        >>> products = [{"product_id": "p1", "title": "red lamp"}, {"product_id": "p2", "title": "kiwi", "price": 3}]
        >>> index = ProductIndex.build(products, HashingEncoder(), kind="flat")
        >>> [name for name, _ in index.search("red lamps")[0]], index.search("red lamp", filter={"price": (4, 5)})
        (['p1', 'p2'], [[]])
    """

    def __init__(
        self,
        options: IndexOptions,
        identity: ModelIdentity | None,
        model: Any = None,
        state: IndexState | None = None,
    ) -> None:
        super().__init__(options, identity, model)
        self.state = state or IndexState(options, ProductRows(options.filters), VectorStore(0, options.storage))
        self.folder: Path | None = None
        self._unsaved = False

    # Making

    @classmethod
    def build(
        cls,
        products: Any,
        model: Any,
        kind: str = "hnsw",
        *,
        revision: str | None = None,
        backend: str = "faiss",
        cache_dir: str | Path | None = None,
        work_dir: str | Path | None = None,
        vectors: np.ndarray | None = None,
        bf16: Bfloat16 = "auto",
        **options: Any,
    ) -> Any:
        """Encode a catalogue and index it, in batches: memory holds codes, ids, columns and one batch.

        Vectors and texts lie on disk meanwhile. BM25 (`lexical`) reads all texts into memory.

        Of products with the same id the last one counts; products without any text are left out; both are logged.

        Args:
            products: a data set, a data frame of pandas, a list or a generator of `PRODUCT` rows or mappings with some
                of their fields.
            model: a SentenceTransformer, an `OnnxEncoder`, any object with `encode(texts)`, or a folder or repository.
            kind: "flat", "hnsw", "int8", "int4" or "binary", see `IndexOptions`.
            revision: of the model's repository; the index remembers the commit and loads its model from there.
            backend: "faiss", or "qdrant" (then see `QdrantIndex.build` for `url`, `collection`).
            cache_dir: an embedding cache: texts encoded before with this model are not encoded again.
            work_dir: where vectors and texts lie until the index is saved; the system's temporary folder by default.
            vectors: `[N, D]` of the products, in place of encoding them.
            bf16: whether a RexBERT encoder in float32 runs in bfloat16; "auto" on a GPU that multiplies it fast.
            options: further fields of `IndexOptions`, such as `fields`, `filters`, `metric`, `lexical`.

        Returns:
            A `ProductIndex`, or a `QdrantIndex`.

        Raises:
            ValueError: for a product without id, a vector that is not finite, an empty catalogue, or one in which no
                product has one of the fields.
            ImportError: if FAISS, or what BM25 and spelling need, is not installed.
        """
        if backend == "qdrant":
            from rexbert_hf.retrieval.serving.qdrant_index import QdrantIndex

            if vectors is not None or work_dir is not None:
                raise ValueError("backend 'qdrant' keeps vectors in Qdrant and encodes them: no vectors=, no work_dir=")
            places: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir, "bf16": bf16}
            return QdrantIndex.build(products, model, kind, **places, **options)
        if backend != "faiss":
            raise ValueError(f"index backend {backend!r} is unknown: faiss or qdrant")
        loaded, identity = opened(model, revision)
        index = cls(IndexOptions.of(kind=kind, **options), identity, loaded)
        index.bf16 = bf16
        if loaded is not None:
            index.use_cache(cache_dir)
        index.state = IndexState.filled(index.options, products, index._encoded, vectors, work_dir)
        return index

    # Searching

    def __repr__(self) -> str:
        name = self.identity.name if self.identity else "vectors"
        return f"ProductIndex({len(self)} products, {self.options.kind}, {self.dim} dimensions, {name})"

    def __len__(self) -> int:
        return self.state.rows.count

    def _searched(self) -> IndexState:
        return self.state

    def ids(self) -> list[str]:
        """See `SearchIndex.ids`."""
        rows = self.state.rows
        return rows.names(np.flatnonzero(rows.alive))

    def texts(self, ids: Sequence[str]) -> list[str | None]:
        """See `SearchIndex.texts`."""
        all_rows = self.state.rows
        rows = all_rows.find([as_text(name) for name in ids])
        there = iter(all_rows.texts.take(rows[rows >= 0]))
        return [next(there) if row >= 0 else None for row in rows]

    def facts(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """See `SearchIndex.facts`."""
        rows = self.state.rows
        return [rows.columns.at(int(row)) if row >= 0 else {} for row in rows.find([as_text(name) for name in ids])]

    def choices(self, column: str) -> list[str]:
        """See `SearchIndex.choices`."""
        rows = self.state.rows
        found = rows.columns.columns.get(column)
        return [] if found is None else sorted(found.held(rows.alive))

    @property
    def filter_columns(self) -> list[str]:
        """Columns that a search may be filtered by."""
        return list(self.state.rows.columns.columns)

    # Changing

    def upsert(self, products: Any) -> int:
        """See `SearchIndex.upsert`."""
        self._unsaved = True
        encoded = sum(self.state.upsert(batch, self._encoded) for batch in batches(products, self.options))
        self._say_if_sparse()
        return encoded

    def delete(self, ids: Sequence[str]) -> int:
        """See `SearchIndex.delete`."""
        if isinstance(ids, str):
            raise TypeError(f"delete takes a list of product ids, not the text {ids!r}")
        self._unsaved = True
        killed = self.state.kill(np.unique(self.state.rows.find([as_text(name) for name in ids])))
        self._say_if_sparse()
        return killed

    @property
    def dead_share(self) -> float:
        """Share of rows that were deleted or replaced."""
        return 1 - len(self) / max(len(self.state.rows), 1)

    def _say_if_sparse(self) -> None:
        if self.dead_share > COMPACT_SHARE:
            logger.warning("%.0f %% of the rows are dead: compact() builds the codes again", 100 * self.dead_share)

    def compact(self, work_dir: str | Path | None = None) -> None:
        """Drop dead rows and build the codes again; nothing is encoded.

        Args:
            work_dir: where vectors and texts lie until the index is saved; the system's temporary folder by default.
        """
        self._unsaved = True
        self.state = self.state.compacted(work_dir)

    # Storage

    def save(self, directory: str | Path) -> Path:
        """Save a new version and make it the current one, in one step for every reader.

        Args:
            directory: of the index; earlier versions in it are replaced.

        Returns:
            The folder of the version.
        """
        folder = with_home(directory)
        state, use = self.state, []
        version = write_version(folder, self._write, lambda version: use.append(state.reopened(version)))
        use[0]()
        self.folder, self._unsaved = folder, False
        return version

    def _write(self, stage: Path) -> dict[str, Any]:
        """Write all files but `index.json`; returns what that holds."""
        return {**self.state.write(stage), "model": None if self.identity is None else asdict(self.identity)}

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
            options: of `QdrantIndex.attach`, for an index in Qdrant; a download needs `url`, or your queries would go
                to a server that somebody else has named.

        Returns:
            A `ProductIndex`, or the `QdrantIndex` that the folder describes.

        Raises:
            FileNotFoundError: if there is no index.
            ValueError: if a file is damaged, or the model is not the one of the index.
        """
        folder = resolve(directory_or_repo, revision, _DOWNLOADED, repo_type="dataset")
        pulled = not Path(directory_or_repo).expanduser().is_dir()
        for attempt in range(_READ_ATTEMPTS):
            version = current_version(folder)
            try:
                return cls._open(folder, version, model, verify, pulled, options)
            except FileNotFoundError:
                if attempt == _READ_ATTEMPTS - 1 or current_version(folder) == version:
                    raise
                # Saved twice while it was being read: read the new one.
        raise AssertionError("unreachable")

    @classmethod
    def _open(
        cls, folder: Path, version: Path, model: Any, verify: bool | None, pulled: bool, options: dict[str, Any]
    ) -> Any:
        facts = read_facts(version, verify)
        settings, identity = described(version, facts)
        if facts.get("backend") == "qdrant":
            from rexbert_hf.retrieval.serving.qdrant_index import QdrantIndex

            return QdrantIndex.attach(facts, identity, model, pulled=pulled, **options)
        if options:
            raise TypeError(f"load: unknown argument '{sorted(options)[0]}'")
        index = cls(settings, identity)
        if model is not None:
            index.model = model
        index.state, index.folder = IndexState.read(version, settings, facts), folder
        return index

    def refresh(self) -> bool:
        """Open the current version of the folder, if another one than this was saved there.

        Searches that run go on in the version that they began with; model and embedding cache stay.

        Returns:
            Whether there was one.

        Raises:
            ValueError: if another model encoded it, it lies in Qdrant, or changes of this index would be lost.
        """
        if self.folder is None or current_version(self.folder) == self.state.version:
            return False
        if self._unsaved:
            raise ValueError(
                f"{self.folder} has a newer version, and this index changes that are not saved: open another"
            )
        newer = ProductIndex.load(self.folder)
        if not isinstance(newer, ProductIndex):
            raise ValueError(f"{self.folder} holds an index in Qdrant now: open it with ProductIndex.load")
        if self._model is not None and newer.identity is not None:
            newer.identity.check(self._model)
        if self.state.lexical is not None:
            newer.state.words()  # here, not within the first search
        self.options, self.identity, self.state = newer.options, newer.identity, newer.state
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
        options.setdefault("commit_message", f"Push {self!r}")
        return push_index(self._write, self.filter_columns, repo_id, private=private, **options)
