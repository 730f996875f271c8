"""A tokenised data set on disk or in memory, read through its Arrow buffers.

Documents are stored whole, as `[prefix specials] body [suffix specials]`, whatever the sequence length: `take` cuts
pieces out of them, so one tokenised folder serves every phase. Opening costs the number of record batches, not of rows.
"""

from __future__ import annotations

import logging
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rexbert_hf.data.buffers import ListColumn
from rexbert_hf.data.manifest import MANIFEST, SHARDS, check_files, read_manifest, refuse_foreign, write_manifest
from rexbert_hf.data.rows import RowBatch, offsets_of

logger = logging.getLogger(__name__)

SPAN_COLUMNS: dict[str, type[np.generic]] = {
    "span_start": np.int32,
    "span_end": np.int32,
    "span_score": np.float32,
    "span_kind": np.int8,
}


class TokenisedDataset:
    """Tokenised rows with a vectorised `take`.

    Example:
        >>> store = TokenisedDataset.from_rows([{"input_ids": [1, 7, 8, 9, 2]}, {"input_ids": [1, 5, 2]}])
        >>> len(store), store.num_tokens, store.take([1, 0]).input_ids.tolist()
        (2, 8, [1, 5, 2, 1, 7, 8, 9, 2])
        >>> store.take([0], starts=[1], stops=[3]).input_ids.tolist()  # a piece keeps its special tokens
        [1, 8, 9, 2]
    """

    def __init__(
        self,
        table: pa.Table,
        num_prefix: int = 1,
        num_suffix: int = 1,
        *,
        metadata: dict[str, Any] | None = None,
        path: Path | None = None,
    ) -> None:
        """Wrap an Arrow table.

        Args:
            table: columns `input_ids` and optionally `word_ids` and the four span columns.
            num_prefix: special tokens before the body of every row.
            num_suffix: special tokens after it.
            metadata: what the folder's manifest says (tokenizer fingerprint, counts).
            path: the folder the table is mapped from; makes the object cheap to send to another process.

        Raises:
            ValueError: if `input_ids` is missing, the span columns are incomplete, or a column is no list of numbers.
        """
        names = set(table.column_names)
        if "input_ids" not in names:
            raise ValueError(f"no column 'input_ids' among {sorted(names)}: tokenise the text first")
        spans = [name for name in SPAN_COLUMNS if name in names]
        if spans and len(spans) < len(SPAN_COLUMNS):
            raise ValueError(f"span columns need all of {list(SPAN_COLUMNS)}; got only {spans}")
        if min(num_prefix, num_suffix) < 0:
            raise ValueError(f"num_prefix and num_suffix count tokens; got {num_prefix} and {num_suffix}")
        self.num_prefix, self.num_suffix = num_prefix, num_suffix
        self.metadata = dict(metadata or {})
        self.path = path
        self._table = table.select([n for n in ("input_ids", "word_ids", *SPAN_COLUMNS) if n in names])
        self._columns = self._read(self._table)
        self._lengths: np.ndarray | None = None

    @staticmethod
    def _read(table: pa.Table) -> dict[str, ListColumn]:
        dtypes: dict[str, type[np.generic]] = {"input_ids": np.int32, "word_ids": np.int32, **SPAN_COLUMNS}
        return {name: ListColumn(table.column(name), name, dtypes[name]) for name in table.column_names}

    @classmethod
    def from_rows(cls, rows: Any, num_prefix: int = 1, num_suffix: int = 1) -> TokenisedDataset:
        """Hold row dicts (or a `RowBatch`) in memory; for tests and small evaluation sets."""
        types = {"input_ids": pa.int32(), "word_ids": pa.int32(), "span_start": pa.int32(), "span_end": pa.int32()}
        types |= {"span_score": pa.float32(), "span_kind": pa.int8()}
        rows = list(rows)
        names = [name for name in types if rows and name in rows[0]] or ["input_ids"]
        arrays = [pa.array([np.asarray(row[n]) for row in rows], type=pa.list_(types[n])) for n in names]
        return cls(pa.table(arrays, names=names), num_prefix, num_suffix)

    @classmethod
    def load(cls, directory: str | Path, verify: bool | None = None) -> TokenisedDataset:
        """Open a folder that `tokenise` or `save` wrote, memory-mapped.

        Args:
            directory: the folder.
            verify: compare the checksums of its files; None does so up to `VERIFIED_BYTES`.

        Raises:
            FileNotFoundError: if the folder has no manifest (not a tokenised data set, or one that was not finished).
            ValueError: if the format is a later one, or the manifest or a shard is damaged.
        """
        directory = Path(directory)
        manifest = read_manifest(directory)
        check_files(directory, manifest.get("files", {}), verify)
        tables = [_map_shard(directory / name) for name in manifest["shards"]]
        store = cls(
            pa.concat_tables(tables),
            manifest["num_prefix"],
            manifest["num_suffix"],
            metadata=manifest,
            path=directory.resolve(),
        )
        if len(store) != manifest["num_rows"]:
            raise ValueError(
                f"{directory}: {len(store)} rows, the manifest says {manifest['num_rows']}: tokenise again"
            )
        return store

    def save(self, directory: str | Path, **metadata: Any) -> None:
        """Write the rows as a folder that `load` opens: one shard, under a name that no shard there has.

        So the folder that the rows are mapped from may be written too, and what a killed call leaves still loads.

        Args:
            directory: made if needed; the shards of a tokenised data set there go when the new one is there.
            metadata: further fields of the manifest.

        Raises:
            FileExistsError: if `datasets` saved a data set of another kind there.
            OSError: if it cannot be written.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        refuse_foreign(directory)
        old = list(directory.glob(SHARDS)) if (directory / MANIFEST).exists() else []
        names = (f"data-{number:05d}.arrow" for number in count())
        name = next(name for name in names if not (directory / name).exists())
        staged = directory / f".{name}.partial"
        try:
            write_shard(staged, self._table)
            staged.rename(directory / name)
        finally:
            staged.unlink(missing_ok=True)
        fields = {"num_rows": len(self), "num_tokens": self.num_tokens}
        fields |= {"num_prefix": self.num_prefix, "num_suffix": self.num_suffix}
        write_manifest(directory, [name], **fields, **metadata)
        for shard in old:
            shard.unlink()

    def where(self, kept: np.ndarray) -> TokenisedDataset:
        """Some of the rows, in memory, in their order.

        Args:
            kept: bool `[N]`.

        Example:
            >>> store = TokenisedDataset.from_rows([{"input_ids": [1, n, 2]} for n in (7, 8, 9)])
            >>> [row["input_ids"].tolist() for row in store.where(np.array([True, False, True])).take([0, 1])]
            [[1, 7, 2], [1, 9, 2]]
        """
        return TokenisedDataset(self._table.filter(pa.array(kept)), self.num_prefix, self.num_suffix)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.path is not None:
            return TokenisedDataset.load, (self.path, False)  # a loader worker's: it was looked at before
        return TokenisedDataset, (self._table, self.num_prefix, self.num_suffix)

    def __len__(self) -> int:
        return len(self._columns["input_ids"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of a data set of {len(self)} rows")
        return self.take([index % len(self)])[0]

    def __repr__(self) -> str:
        return f"TokenisedDataset({len(self)} rows, {self.num_tokens} tokens, columns {list(self._columns)})"

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, special tokens included, int32 `[N]`; computed once, from the offsets alone."""
        if self._lengths is None:
            self._lengths = self._columns["input_ids"].lengths()
        return self._lengths

    @property
    def num_tokens(self) -> int:
        """All tokens of all rows."""
        if "num_tokens" in self.metadata:
            return int(self.metadata["num_tokens"])
        return int(self.lengths.sum(dtype=np.int64))

    @property
    def num_special(self) -> int:
        """Special tokens that every row and every piece carries."""
        return self.num_prefix + self.num_suffix

    @property
    def has_word_ids(self) -> bool:
        """Whether rows carry `word_ids`."""
        return "word_ids" in self._columns

    @property
    def has_spans(self) -> bool:
        """Whether rows carry spans."""
        return "span_start" in self._columns

    def take(
        self,
        indices: Any,
        starts: Any = None,
        stops: Any = None,
        step: int | None = None,
        micro: int = 0,
        phase: int = 0,
    ) -> RowBatch:
        """Gather rows, or pieces of rows, into one `RowBatch`.

        With `starts` and `stops` row d is `prefix + body[starts[d]:stops[d]] + suffix`, counted in body tokens; a stop
        past the end of the body means its end. Spans are cut at the borders of the piece and those outside are left
        out. Word ids keep the numbers they have in the whole document.

        Args:
            indices: rows, int `[D]`.
            starts: first body token of each piece, or None for whole documents.
            stops: one past its last body token; required with `starts`.
            step: global step to put on the batch.
            micro: micro-batch within the step.
            phase: index of the training phase.

        Raises:
            IndexError: if a row does not exist.
            ValueError: if `starts` and `stops` do not describe pieces of these rows.
        """
        rows = np.asarray(indices, dtype=np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} asked of a data set of {len(self)} rows")
        ids = self._columns["input_ids"]
        located = ids.locate(rows)
        pieces = None if starts is None and stops is None else self._pieces(rows, located[2], starts, stops)
        lengths = located[2] if pieces is None else pieces[1] - pieces[0] + self.num_special
        batch = RowBatch(self._tokens(ids, located, pieces), offsets_of(lengths), step=step, micro=micro, phase=phase)
        if self.has_word_ids:
            words = self._columns["word_ids"]
            word_rows = words.locate(rows)
            _check_same(rows, located[2], word_rows[2], "word_ids")
            batch.word_ids = self._tokens(words, word_rows, pieces)
        if self.has_spans:
            self._add_spans(batch, rows, pieces)
        return batch

    def _pieces(
        self, rows: np.ndarray, lengths: np.ndarray, starts: Any, stops: Any
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Checked (starts, stops), or None when every piece is its whole document."""
        if starts is None or stops is None:
            raise ValueError("give both starts and stops, or neither")
        starts, stops = np.asarray(starts, dtype=np.int64), np.asarray(stops, dtype=np.int64)
        bodies = lengths - self.num_special
        stops = np.minimum(stops, bodies)
        bad = (starts < 0) | (stops < starts)
        if bad.any():
            d = int(np.flatnonzero(bad)[0])
            raise ValueError(
                f"piece {starts[d]}:{stops[d]} of row {rows[d]} does not lie in its body of {bodies[d]} tokens"
            )
        if not starts.any() and (stops == bodies).all():
            return None
        return starts, stops

    def _tokens(
        self,
        column: ListColumn,
        located: tuple[np.ndarray, np.ndarray, np.ndarray],
        pieces: tuple[np.ndarray, np.ndarray] | None,
    ) -> np.ndarray:
        chunks, first, lengths = located
        if pieces is None:
            return column.gather_ranges(chunks, first, lengths)
        starts, stops = pieces
        # Three ranges a row: prefix, the cut of the body, suffix.
        begin = np.stack([first, first + self.num_prefix + starts, first + lengths - self.num_suffix], axis=1)
        size = np.stack(
            [np.full_like(starts, self.num_prefix), stops - starts, np.full_like(starts, self.num_suffix)], axis=1
        )
        return column.gather_ranges(np.repeat(chunks, 3), begin.ravel(), size.ravel())

    def _add_spans(self, batch: RowBatch, rows: np.ndarray, pieces: tuple[np.ndarray, np.ndarray] | None) -> None:
        start, counts = self._columns["span_start"].gather(rows)
        others = {}
        for name in list(SPAN_COLUMNS)[1:]:
            others[name], other_counts = self._columns[name].gather(rows)
            _check_same(rows, counts, other_counts, name)
        end, score, kind = others["span_end"], others["span_score"], others["span_kind"]
        place = np.repeat(batch.offsets[:-1], counts)
        if pieces is not None:
            low = np.repeat(pieces[0], counts) + self.num_prefix
            high = np.repeat(pieces[1], counts) + self.num_prefix
            start, end = np.maximum(start, low), np.minimum(end, high)
            place = place - low + self.num_prefix
            keep = start < end
            start, end, score, kind, place = start[keep], end[keep], score[keep], kind[keep], place[keep]
        batch.span_start = (start + place).astype(np.int32)
        batch.span_end = (end + place).astype(np.int32)
        batch.span_score, batch.span_kind = score, kind


def _check_same(rows: np.ndarray, lengths: np.ndarray, others: np.ndarray, name: str) -> None:
    if not np.array_equal(lengths, others):
        d = int(np.flatnonzero(lengths != others)[0])
        raise ValueError(f"row {rows[d]}: '{name}' has {others[d]} entries where {lengths[d]} are due: tokenise again")


def _map_shard(path: Path) -> pa.Table:
    try:
        return pa.ipc.open_stream(pa.memory_map(str(path)).read_buffer()).read_all()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing, but the manifest names it: tokenise again") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is damaged ({str(error).splitlines()[0]}): tokenise again") from None


def write_shard(path: Path, table: pa.Table) -> None:
    """Write one shard: an Arrow stream, the form that `datasets.Dataset.from_file` maps too."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=65536)
