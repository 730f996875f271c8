"""The texts of all rows of an index: on disk while it is built, in the saved file until somebody asks for one.

While an index is built they go to a file of Arrow's beside the vectors, which is mapped afterwards; those of a few
upserts are kept in memory. What is saved is one Parquet file, written group by group, so that no step holds all texts.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rexbert_hf.retrieval.serving.parquet_file import AS_WRITTEN, opened, whole
from rexbert_hf.retrieval.serving.vector_store import JOINED_ROWS

TEXTS_FILE = "texts.parquet"
SCRATCH_FILE = "texts.arrow"
"""In the scratch folder of an index that is being built."""

GROUP_BYTES = 16 << 20
"""Text of a row group of the saved file, about."""

COPY_ROWS = 4_096
"""Rows of a saved file that are read at a time where all are copied."""

_TEXT = pa.large_string()  # offsets of 64 bits: all texts together may exceed 2 GiB
_SCHEMA = pa.schema([("text", _TEXT)])


class TextColumn:
    """Texts, one a row; rows are only ever added.

    Args:
        scratch: a file that texts are written to until `settle`; without it they are kept in memory.

    Example:
        >>> column = TextColumn()
        >>> column.append(["red mug", "lamp"])
        >>> column.take(np.array([1, 0, 1])), len(column)
        (['lamp', 'red mug', 'lamp'], 2)
    """

    def __init__(self, scratch: Path | None = None) -> None:
        self._chunks: list[pa.Array] = []
        self._mapped = 0  # of the chunks: they lie on disk, and are not joined with others
        self._stored: pq.ParquetFile | None = None
        self._rows_stored = 0
        self._place = scratch or Path()
        self._writer = None if scratch is None else pa.ipc.new_stream(str(scratch), _SCHEMA)
        self._rows_written = 0
        self._reading = threading.RLock()

    def __len__(self) -> int:
        return self._rows_written + self._rows_stored + sum(len(chunk) for chunk in self._chunks)

    def append(self, texts: Sequence[str] | pa.Array) -> None:
        """Add rows.

        Args:
            texts: of each.
        """
        last = pa.array(texts, _TEXT)
        if self._writer is not None:
            self._writer.write_batch(pa.record_batch([last], schema=_SCHEMA))
            self._rows_written += len(last)
            return
        kept = self._chunks  # joined as segments of vectors are, see `VectorStore.with_rows`
        while len(kept) > self._mapped and len(kept[-1]) <= min(len(last), JOINED_ROWS - 1):
            last = pa.concat_arrays([kept[-1], last])
            kept = kept[:-1]
        self._chunks = [*kept, last]

    def settle(self) -> None:
        """Map what was written to the scratch file; rows that come later are kept in memory."""
        if self._writer is None:
            return
        self._writer.close()
        self._writer, self._rows_written = None, 0
        table = pa.ipc.open_stream(pa.memory_map(str(self._place))).read_all()
        self._chunks = table.column("text").chunks
        self._mapped = len(self._chunks)

    def take(self, rows: np.ndarray) -> list[str]:
        """Texts of rows, in the order asked for; a saved file is read when first asked, by one thread, others wait.

        Args:
            rows: int64 `[N]`.

        Raises:
            DamagedIndexError: if the file is damaged.
        """
        with self._reading:
            self._read()
            chunks = self._chunks
        ends = np.cumsum([len(chunk) for chunk in chunks])
        where = np.searchsorted(ends, rows, side="right")
        found = [""] * len(rows)
        order = np.argsort(where, kind="stable")
        for places in np.split(order, np.flatnonzero(np.diff(where[order])) + 1) if len(rows) else ():
            chunk = int(where[places[0]])
            own = chunks[chunk].take(pa.array(rows[places] - (ends[chunk] - len(chunks[chunk]))))
            for place, text in zip(places.tolist(), own.to_pylist(), strict=True):
                found[place] = text
        return found

    def chunks(self) -> Iterator[pa.Array]:
        """All texts in order, a part at a time; a saved file that nobody has asked for is not kept in memory.

        Raises:
            DamagedIndexError: if the file is damaged.
        """
        self.settle()
        with self._reading:  # one reads the file at a time
            stored, place, chunks = self._stored, self._place, self._chunks
            parts = None if stored is None else stored.iter_batches(COPY_ROWS, columns=["text"])
        while parts is not None:
            with self._reading, whole(place):  # not while a part is used: a server that saves goes on answering
                part = next(parts, None)
            if part is None:
                break
            yield part.column(0).cast(_TEXT)
        yield from chunks

    def save(self, folder: Path) -> None:
        """Write the Parquet file.

        Args:
            folder: of the index.
        """
        with pq.ParquetWriter(folder / TEXTS_FILE, _SCHEMA, **AS_WRITTEN) as writer:
            group: list[pa.Array] = []
            for chunk in self.chunks():
                group.append(chunk)
                if sum(part.nbytes for part in group) >= GROUP_BYTES:
                    writer.write_table(_table(group))
                    group = []
            if group:
                writer.write_table(_table(group))

    def use(self, stored: pq.ParquetFile, folder: Path) -> None:
        """Read texts from a saved file from now on, when they are first asked for.

        Args:
            stored: see `saved_texts`.
            folder: that it lies in.
        """
        with self._reading:
            self._stored, self._rows_stored, self._place = stored, stored.metadata.num_rows, folder / TEXTS_FILE
            self._chunks, self._mapped = [], 0

    def _read(self) -> None:
        self.settle()
        if self._stored is not None:
            with whole(self._place):
                chunks = _stored_texts(self._stored)
            self._chunks, self._mapped = [*chunks, *self._chunks], len(chunks)
            self._stored, self._rows_stored = None, 0


def saved_texts(folder: Path, rows: int) -> pq.ParquetFile:
    """The file of texts that an index saved; open, so that it can be read when its version has been replaced.

    Args:
        folder: of the version.
        rows: that it has.

    Raises:
        DamagedIndexError: if the file is damaged.
    """
    with whole(folder / TEXTS_FILE) as path:
        stored = opened(path)
        if stored.metadata.num_rows != rows:
            raise pa.ArrowInvalid(f"{stored.metadata.num_rows} texts for {rows} rows")
        return stored


def _table(chunks: Sequence[pa.Array]) -> pa.Table:
    return pa.table([pa.chunked_array(chunks, _TEXT)], schema=_SCHEMA)


def _stored_texts(file: pq.ParquetFile) -> list[pa.Array]:
    chunks: list[pa.Array] = file.read().column("text").cast(_TEXT).chunks
    return chunks
