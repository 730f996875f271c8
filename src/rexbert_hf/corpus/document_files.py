"""Documents in Parquet: the form in which stages hand them on.

One decision worth knowing: a file appears under its name when it is complete, so what stands in a folder can be used
whatever happened to the process that wrote it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .documents import Document
from .raw_rows import is_of_the_machine

SCHEMA = pa.schema([("id", pa.string()), ("text", pa.string()), ("url", pa.string()), ("domain", pa.string())])
"""Columns of a file of documents; files of later stages may have more."""

_GROUP_ROWS = 1_000
_GROUP_CHARS = 1 << 24
"""A row group is written when it has so many rows or characters: what writing holds in memory."""


def write_documents(path: str | Path, documents: Iterable[Document], rows_per_file: int = 100_000) -> list[Path]:
    """Write documents to one Parquet file, or to a folder of `part-00000.parquet`, `part-00001.parquet` and so on.

    Args:
        path: one file if it ends in .parquet, else a folder. No document gives one file without rows.
        documents: taken as they come, in memory a row group at a time.
        rows_per_file: of a folder's files.

    Returns:
        The files, in order.

    Raises:
        OSError: if a file cannot be written; the files before it stay.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> [file.name for file in write_documents(folder, (Document(str(i), "mug") for i in range(5)), 3)]
        ['part-00000.parquet', 'part-00001.parquet']
        >>> [document.id for document in read_parquet(folder)]
        ['0', '1', '2', '3', '4']
    """
    path, documents = Path(path), iter(documents)
    if path.suffix == ".parquet":
        _write_file(path, documents, None)
        return [path]
    files: list[Path] = []
    first = next(documents, None)
    while first is not None or not files:
        file = path / f"part-{len(files):05d}.parquet"
        # Not a generator: one that is dropped before its end would close the documents for the files that follow.
        _write_file(file, documents if first is None else chain([first], documents), rows_per_file)
        files.append(file)
        first = next(documents, None)
    return files


def read_parquet(path: str | Path | Sequence[str | Path], batch_rows: int = 256) -> Iterator[Document]:
    """Documents of a Parquet file, of a folder's files in the order of their names, or of a list of files.

    Args:
        path: what `write_documents` wrote; further columns are left on disk.
        batch_rows: decoded at a time.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a file is not Parquet or lacks a column.
    """
    for file in parquet_files(path):
        try:
            with pq.ParquetFile(file) as source:
                missing = [name for name in SCHEMA.names if name not in source.schema_arrow.names]
                if missing:
                    raise ValueError(f"no column '{missing[0]}'; it has {', '.join(source.schema_arrow.names)}")
                for batch in source.iter_batches(batch_size=batch_rows, columns=SCHEMA.names):
                    for id, text, url, domain in zip(*(batch[name].to_pylist() for name in SCHEMA.names), strict=True):
                        yield Document(id, text, url or "", domain or "unknown")
        except (pa.ArrowException, OSError, ValueError) as error:
            if is_of_the_machine(error):
                raise
            raise ValueError(
                f"{file}: not a file of documents ({next(iter(str(error).splitlines()), 'no details')}); make it again"
            ) from error


def parquet_files(path: str | Path | Sequence[str | Path]) -> list[Path]:
    """The Parquet files behind a file, a folder or a list of files, sorted within a folder.

    Raises:
        FileNotFoundError: if there is none.
    """
    if not isinstance(path, (str, Path)):
        return [file for one in path for file in parquet_files(one)]
    place = Path(path)
    files = sorted(place.glob("*.parquet")) if place.is_dir() else [place]
    files = [file for file in files if not file.name.startswith(".") and file.is_file()]
    if not files:
        raise FileNotFoundError(f"{path}: no Parquet file of documents there; run the stage that writes it")
    return files


def _write_file(path: Path, documents: Iterator[Document], rows: int | None) -> None:
    """Write up to so many documents by way of a temporary file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with pq.ParquetWriter(staged, SCHEMA, compression="zstd") as writer:
            for group in _groups(documents, rows):
                writer.write_table(pa.table(_columns(group), schema=SCHEMA))
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)


def _columns(group: list[Document]) -> dict[str, list[str]]:
    return {name: [getattr(document, name) for document in group] for name in SCHEMA.names}


def _groups(documents: Iterator[Document], rows: int | None) -> Iterator[list[Document]]:
    group: list[Document] = []
    chars = taken = 0
    while taken != rows and (document := next(documents, None)) is not None:
        group.append(document)
        taken, chars = taken + 1, chars + len(document.text)
        if len(group) == _GROUP_ROWS or chars >= _GROUP_CHARS:
            yield group
            group, chars = [], 0
    if group:
        yield group
