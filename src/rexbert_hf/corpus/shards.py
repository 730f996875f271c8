"""Kept documents of one domain, read from wherever they lie and written as the Parquet files of its splits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .raw_rows import is_of_the_machine

COLUMNS = ("id", "text", "url", "domain")
"""Columns of a corpus; `score`, the classifier's, is there where the filter wrote it."""
SCORE = "score"
UNKNOWN = "unknown"
_GROUP_ROWS = 256
"""Rows that are held at a time: web documents are long."""


def domains_of(files: Sequence[Path]) -> tuple[dict[str, list[Path]], int]:
    """The files that hold each domain, and the number of rows of all files.

    Args:
        files: Parquet files with `COLUMNS`.

    Raises:
        ValueError: if a file lacks a column or is no Parquet.
    """
    places: dict[str, list[Path]] = {}
    rows = 0
    for path in files:
        with _open(path) as file:
            rows += file.metadata.num_rows
            found = {
                name
                for batch in _batches(path, file, 10_000, ["domain"])
                for name in pc.unique(_domain(batch["domain"])).to_pylist()
            }
        for name in sorted(found):
            places.setdefault(name, []).append(path)
    return places, rows


def rows_of(domain: str, files: Sequence[Path]) -> Iterator[pa.Table]:
    """The rows of one domain, a few hundred at a time."""
    for path in files:
        with _open(path) as file:
            scored = SCORE in file.schema_arrow.names
            for batch in _batches(path, file, _GROUP_ROWS, [*COLUMNS, *([SCORE] if scored else [])]):
                columns = {name: pc.fill_null(batch[name].cast(pa.string()), "") for name in COLUMNS}
                columns["domain"] = _domain(batch["domain"])
                if scored:
                    columns[SCORE] = batch[SCORE].cast(pa.float32())
                table = pa.table(columns).filter(pc.equal(columns["domain"], domain))
                if table.num_rows:
                    yield table


def _open(path: Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise _damaged(path, error) from error
    if missing := [name for name in COLUMNS if name not in file.schema_arrow.names]:
        names = ", ".join(file.schema_arrow.names)
        file.close()
        raise ValueError(f"{path}: no column '{missing[0]}'; it has {names}")
    return file


def _batches(path: Path, file: pq.ParquetFile, rows: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
    try:
        yield from file.iter_batches(batch_size=rows, columns=columns)
    except (pa.ArrowException, OSError) as error:
        if is_of_the_machine(error):
            raise
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ValueError:
    message = next(iter(str(error).splitlines()), "no details")
    return ValueError(f"{path}: not a file of kept documents ({message}); run the filter stage again")


def _domain(column: pa.Array) -> pa.Array:
    known = pc.fill_null(column.cast(pa.string()), "")
    return pc.if_else(pc.equal(known, ""), UNKNOWN, known)


class ShardWriter:
    """The files of one split: a new one when the last is full, named when their number is known.

    Args:
        folder: where they go.
        split: how they are called.
        most_bytes: of text in a file, before compression; a row group more at most.
    """

    def __init__(self, folder: Path, split: str, most_bytes: int) -> None:
        self.folder, self.split, self.most_bytes = folder, split, most_bytes
        self.facts = {"documents": 0, "tokens": 0, "bytes": 0}
        self._paths: list[Path] = []
        self._writer: pq.ParquetWriter | None = None
        self._left = 0

    def write(self, table: pa.Table, size: int, tokens: int) -> None:
        """Append rows, whose texts have so many bytes and tokens."""
        if self._writer is None or self._left <= 0:
            self._finish()
            self._paths.append(self.folder / f"{self.split}-{len(self._paths):05d}")
            self._writer = pq.ParquetWriter(self._paths[-1], table.schema, compression="zstd")
            self._left = self.most_bytes
        self._writer.write_table(table)
        self._left -= size
        for name, value in (("documents", table.num_rows), ("tokens", tokens), ("bytes", size)):
            self.facts[name] += value

    def close(self) -> dict[str, Any] | None:
        """Name the files; None if nothing was written."""
        self._finish()
        names = []
        for i, path in enumerate(self._paths):
            names.append(f"{self.split}-{i:05d}-of-{len(self._paths):05d}.parquet")
            os.replace(path, self.folder / names[-1])
        return {**self.facts, "files": names} if names else None

    def abandon(self) -> None:
        """Let go of a file that could not be written; what it holds is of no use."""
        with suppress(OSError, pa.ArrowException):
            self._finish()

    def _finish(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()
