"""One version of an index in FAISS: rows, vectors, codes, words. All that a search reads is one such object.

A search takes it once, so that row numbers, vectors and codes belong together however often a newer version takes its
place. It fills itself from products, writes and reads the files of a version, and copies itself without dead rows.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rexbert_hf.hub import versions
from rexbert_hf.hub.left_over import temporary_folder
from rexbert_hf.retrieval.serving.codes import FAISS_KINDS, Codes, build_codes, load_codes, load_faiss
from rexbert_hf.retrieval.serving.dense import dense_search
from rexbert_hf.retrieval.serving.filters import parse_filter
from rexbert_hf.retrieval.serving.index_folder import FORMAT, INDEX_FILE, DamagedIndexError, check_files
from rexbert_hf.retrieval.serving.index_options import IndexOptions
from rexbert_hf.retrieval.serving.lexical import LexicalIndex, check_installed
from rexbert_hf.retrieval.serving.product_rows import Batch, ProductRows, batches
from rexbert_hf.retrieval.serving.search_index import Hits, checked_documents
from rexbert_hf.retrieval.serving.text_column import SCRATCH_FILE, saved_texts
from rexbert_hf.retrieval.serving.vector_store import VECTORS_FILE, VectorStore, VectorWriter, read_segment

logger = logging.getLogger(__name__)

SMALL_CATALOGUE = 50_000
"""Without FAISS, an index of so many products is searched exactly, whatever its kind."""

KEPT_MASKS = 16
"""Filters whose rows are remembered until the index changes."""

LEXICAL_FOLDER = "bm25"
COPY_ROWS = 16_384
"""Vectors copied at a time."""

Encode = Callable[[list[str], list[str]], np.ndarray]
"""Texts and their products' ids to vectors `[N, D]` as the index keeps them."""


class IndexState:
    """Products, their vectors, and what finds them.

    Args:
        options: how it is built.
        rows: product ids, texts, filter columns, and which rows count.
        store: vectors of all rows.
        scratch: folder of vectors and texts until the index is saved.

    Attributes:
        codes: of all rows, see `codes.py`; None where every vector is compared.
        lexical: BM25 of the rows, once it was asked for.
        version: the folder that it was written to or read from.
    """

    def __init__(
        self,
        options: IndexOptions,
        rows: ProductRows,
        store: VectorStore,
        scratch: tempfile.TemporaryDirectory[str] | None = None,
    ) -> None:
        self.options, self.rows, self.store, self.scratch = options, rows, store, scratch
        self.codes: Codes | None = None
        self.lexical: LexicalIndex | None = None
        self.version: Path | None = None
        self._masks: dict[str, np.ndarray] = {}
        self._building = threading.Lock()

    # Making

    @classmethod
    def filled(
        cls,
        options: IndexOptions,
        products: Any,
        encode: Encode,
        vectors: np.ndarray | None = None,
        work_dir: str | Path | None = None,
    ) -> IndexState:
        """Encode products in batches into scratch files and build the codes.

        Args:
            options: how.
            products: as for `ProductIndex.build`.
            encode: encodes and checks.
            vectors: `[N, D]` of the products, in place of encoding them.
            work_dir: where the scratch files lie.

        Raises:
            ValueError: if there is no product, none has one of the fields, or vectors do not fit them.
            ImportError: if a package is missing; before the encoding that would be lost.
        """
        check_installed(options)
        scratch = temporary_folder(work_dir, ".index-")
        rows = ProductRows(options.filters, Path(scratch.name) / SCRATCH_FILE)
        path = Path(scratch.name) / VECTORS_FILE
        writer: VectorWriter | None = None
        skipped = 0
        try:
            for batch in batches(products, options, fresh=vectors is None):
                skipped += len(batch.skipped)
                batch.repeated += rows.kill(rows.find([*batch.ids, *batch.skipped]))
                if not batch.ids:
                    continue
                if options.kind in FAISS_KINDS and len(rows) + len(batch.ids) > SMALL_CATALOGUE:
                    load_faiss()
                if vectors is None:
                    found = encode(batch.texts, batch.ids)
                else:
                    found = checked_documents(_given(vectors, batch, len(rows)), batch.ids, options.metric)
                writer = writer or VectorWriter(path, found.shape[1], options.storage)
                coded = rows.columns.coded(batch.values, batch.ids)
                writer.append(found)
                rows.append(batch.ids, batch.texts, coded, np.arange(len(batch.ids)))
        finally:
            if writer is not None:
                writer.close()
        rows.texts.settle()
        if writer is None:
            raise ValueError(f"no product to index ({skipped} had no text): give products with a title")
        if vectors is not None and len(vectors) != len(rows):
            raise ValueError(f"{len(vectors)} vectors for {len(rows)} products: one for each is due")
        return cls._over(options, rows, scratch)

    def compacted(self, work_dir: str | Path | None = None) -> IndexState:
        """A copy without dead rows, with codes of its own.

        Args:
            work_dir: where its vectors and texts lie until it is saved.
        """
        scratch = temporary_folder(work_dir, ".index-")
        with VectorWriter(Path(scratch.name) / VECTORS_FILE, self.dim, self.options.storage) as writer:
            for first, block in self.store.blocks(COPY_ROWS):
                writer.append(block[self.rows.alive[first : first + len(block)]])
        return self._over(self.options, self.rows.kept(self.rows.alive, Path(scratch.name) / SCRATCH_FILE), scratch)

    @classmethod
    def _over(cls, options: IndexOptions, rows: ProductRows, scratch: tempfile.TemporaryDirectory[str]) -> IndexState:
        """Rows over the vectors of a scratch file, which lives as long as they do; codes and BM25 are built."""
        segment = read_segment(Path(scratch.name) / VECTORS_FILE)
        state = cls(options, rows, VectorStore(segment.data.shape[1], options.storage, [segment]), scratch)
        state._build_codes()
        if options.lexical:
            state.words()
        return state

    def _build_codes(self) -> None:
        options = self.options
        with _exact_without_faiss(len(self.store)):
            self.codes = build_codes(self.store, options.kind, options.graph_links, options.ef_construction)

    # Searching

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.store.dim

    def search_vectors(self, vectors: np.ndarray, k: int, filter: Mapping[str, Any] | None) -> list[Hits]:
        """Hits by vectors that are checked already; see `Searched`."""
        return self._named(*dense_search(self.store, self.codes, self.options, vectors, k, self._mask(filter)))

    def search_words(self, texts: Sequence[str], k: int, filter: Mapping[str, Any] | None) -> list[Hits]:
        """Hits by words; see `Searched`."""
        return self._named(*self.words().search(texts, min(k, len(self.rows)), self._mask(filter)))

    def words(self) -> LexicalIndex:
        """BM25 of the rows that count, built anew if these have changed: by one thread, while others wait."""
        with self._building:
            # Rows only come and die, so that equal numbers are the same rows.
            sizes = len(self.rows), self.rows.count
            if self.lexical is None or (self.lexical.rows, len(self.lexical.numbers)) != sizes:
                living = np.flatnonzero(self.rows.alive)
                texts = self.rows.texts.take(living)
                options = self.options
                self.lexical = LexicalIndex.build(texts, options.stem, living, len(self.rows), options.spelling)
            return self.lexical

    def _mask(self, filter: Mapping[str, Any] | None) -> np.ndarray | None:
        """Rows that may be returned; None: all."""
        if not filter:
            return None if self.rows.alive.all() else self.rows.alive
        conditions = parse_filter(filter, self.rows.columns.texts)
        name = repr(conditions)
        mask = self._masks.get(name)  # other threads may empty it at any moment
        if mask is None:
            mask = self.rows.columns.passing(conditions) & self.rows.alive
            if len(self._masks) >= KEPT_MASKS:
                self._masks.clear()
            self._masks[name] = mask
        return mask

    def _named(self, scores: np.ndarray, rows: np.ndarray) -> list[Hits]:
        hits = []
        for found, values in zip(rows, scores, strict=True):
            there = found >= 0
            hits.append(list(zip(self.rows.names(found[there]), values[there].tolist(), strict=True)))
        return hits

    # Changing

    def upsert(self, batch: Batch, encode: Encode) -> int:
        """Add a batch's products, or replace those of the same id; returns how many had to be encoded.

        Those that have no text any more are no longer found.

        Args:
            batch: see `batches`.
            encode: encodes and checks.
        """
        rows = self.rows.find(batch.ids)
        same = self.rows.holds(rows, batch.texts)
        old, new = np.flatnonzero(same), np.flatnonzero(~same)
        # All that may fail comes before the first change.
        coded = self.rows.columns.coded(batch.values, batch.ids)
        vectors = encode([batch.texts[i] for i in new], [batch.ids[i] for i in new]) if len(new) else None
        if vectors is not None and vectors.shape[1] != self.dim:
            raise ValueError(f"the model gives {vectors.shape[1]} dimensions, the index has {self.dim}: use its model")
        emptied = self.rows.find(batch.skipped)
        batch.removed = int((emptied >= 0).sum())
        gone = np.concatenate([rows[new], emptied])
        first = not len(self.store)
        if vectors is not None:
            segments = self.store.with_rows(vectors)
            self.rows.append(batch.ids, batch.texts, coded, new)
            self.store.segments = segments
        self.kill(gone)
        self.rows.columns.write(rows[old], coded, old)
        if vectors is None:
            return 0
        if self.codes is not None:
            self.codes.add(vectors)
        elif first:  # all products had gone, and the codes with them
            self._build_codes()
        return len(new)

    def kill(self, rows: np.ndarray) -> int:
        """Mark rows as dead; returns how many.

        Args:
            rows: -1 is none.
        """
        self._masks.clear()
        return self.rows.kill(rows)

    # Storage

    def write(self, stage: Path) -> dict[str, Any]:
        """Write all files but `index.json`; returns what that holds, its model aside.

        Args:
            stage: an empty folder.
        """
        with VectorWriter(stage / VECTORS_FILE, self.dim, self.options.storage) as writer:
            for _, block in self.store.blocks(COPY_ROWS):
                writer.append(block)
        self.rows.save(stage)
        if self.codes is not None:
            self.codes.save(stage)
        if self.options.lexical or self.lexical is not None:
            self.words().save(stage / LEXICAL_FOLDER)
        facts = {"format": FORMAT, "products": self.rows.count, "rows": len(self.rows), "dim": self.dim}
        return {**facts, "options": asdict(self.options), "versions": versions()}

    def reopened(self, version: Path) -> Callable[[], None]:
        """Open vectors and texts of a version; what is returned reads from there from now on, and cannot fail.

        The scratch files are let go then.

        Args:
            version: the folder that `write` filled.
        """
        store = VectorStore(self.dim, self.options.storage, [read_segment(version / VECTORS_FILE)])
        texts = saved_texts(version, len(self.rows))

        def use() -> None:
            self.store, self.version, self.scratch = store, version, None
            self.rows.texts.use(texts, version)

        return use

    @classmethod
    def read(cls, version: Path, options: IndexOptions, facts: Mapping[str, Any]) -> IndexState:
        """Open the files of a version; vectors and BM25 are mapped.

        Args:
            version: the folder.
            options: of the index.
            facts: of its `index.json`.

        Raises:
            FileNotFoundError: if a newer version takes this one's place meanwhile.
            DamagedIndexError: if a file is damaged, or they do not belong together.
            OSError: if the system cannot read one now, or MemoryError: nothing is wrong with it.
        """
        try:
            return cls._read(version, options, facts)
        except DamagedIndexError:
            raise
        except ValueError as error:  # of what they hold: what the system refuses is none
            raise DamagedIndexError(str(error)) from None
        finally:
            # A version is removed file by file: had one been missing above, it still is, whatever came of that.
            check_files(version, facts)

    @classmethod
    def _read(cls, version: Path, options: IndexOptions, facts: Mapping[str, Any]) -> IndexState:
        segment, dim = read_segment(version / VECTORS_FILE), facts["dim"]
        if segment.data.shape[1] != dim:
            told = f"vectors of {segment.data.shape[1]} dimensions, {INDEX_FILE} says {dim!r:.40}"
            raise ValueError(f"{version} is damaged ({told}): build the index again")
        store = VectorStore(segment.data.shape[1], options.storage, [segment])
        state = cls(options, ProductRows.load(version, options.filters), store)
        state.version = version
        with _exact_without_faiss(len(store)):
            state.codes = load_codes(version, options.kind, store)
        if (version / LEXICAL_FOLDER).is_dir():
            state.lexical = LexicalIndex.load(version / LEXICAL_FOLDER)
        sizes = {len(store), len(state.rows), *([len(state.codes)] if state.codes is not None else [])}
        if len(sizes) != 1:
            raise ValueError(f"{version} is damaged (its files hold {sorted(sizes)} rows): build the index again")
        return state


@contextmanager
def _exact_without_faiss(products: int) -> Iterator[None]:
    """Let a small index do without codes where FAISS is not installed."""
    try:
        yield
    except ImportError as error:
        if products > SMALL_CATALOGUE:
            raise
        logger.warning("%s; %d products are searched exactly", error, products)


def _given(vectors: np.ndarray, batch: Batch, first: int) -> np.ndarray:
    if batch.skipped or batch.repeated:
        raise ValueError("with vectors given, every product needs a text and an id of its own")
    found = vectors[first : first + len(batch.ids)]
    if len(found) < len(batch.ids):
        raise ValueError(f"{len(vectors)} vectors for more products: one for each is due")
    return found
