"""File formats, one row at a time: CSV, TSV, JSON (lines or one array), text, Parquet.

A row that cannot be read comes out as a reason in its place, and the next one follows.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .delimited import Located, delimited_rows
from .sources import FileOptions, Source

_CHUNK = 1 << 20


@dataclass(slots=True)
class Rows:
    """The rows of one source.

    Attributes:
        columns: names of all columns; None when every row has its own (JSON).
        schema: types, for formats that have them.
        unit: what the numbers count: "line", "item" or "row".
        rows: the rows with their numbers.
    """

    columns: list[str] | None
    schema: pa.Schema | None
    unit: str
    rows: Iterator[Located]


@contextmanager
def open_rows(source: Source, options: FileOptions, needed: Sequence[str] | None) -> Iterator[Rows]:
    """Open a source and say what it holds; rows are read as they are asked for.

    Args:
        source: the file.
        options: how to read it.
        needed: the columns that matter, for formats that can leave the others on disk; None for all.

    Raises:
        ValueError: if the file is empty or its head is unreadable.
    """
    with io.BufferedReader(source.open()) as stream:  # type: ignore[type-var]
        head = stream.peek(4)[:4]
        if not head:
            raise ValueError(f"{source.name}: the file is empty; remove it from the list")
        if source.format == "parquet":
            yield _parquet_rows(stream, needed)
            return
        if head[:2] in (b"\xff\xfe", b"\xfe\xff") and options.encoding.lower().startswith("utf-8"):
            raise ValueError(f"{source.name}: starts with a UTF-16 mark; pass encoding='utf-16'")
        newline = "" if source.format in ("csv", "tsv") else "\n"
        # What cannot be decoded becomes lone surrogates, so that the row is lost and not the file.
        with io.TextIOWrapper(stream, encoding=options.encoding, errors="surrogateescape", newline=newline) as text:
            yield _text_rows(source, text, options)


def _text_rows(source: Source, text: io.TextIOWrapper, options: FileOptions) -> Rows:
    lines = _without_mark(text)
    if source.format == "text":
        return Rows(["text"], None, "line", ((i, {"text": line.rstrip("\r\n")}) for i, line in enumerate(lines, 1)))
    if source.format == "json":
        return _json_rows(lines, text)
    names, rows = delimited_rows(source, lines, options)
    return Rows(names, None, "line", rows)


def _without_mark(lines: Iterator[str]) -> Iterator[str]:
    first = next(lines, None)
    return lines if first is None else chain([first.removeprefix("\ufeff")], lines)


def _parquet_rows(stream: io.BufferedReader[Any], needed: Sequence[str] | None) -> Rows:
    # Parquet is read from its end, which streams of .gz and .zip cannot do in reasonable time.
    seekable = stream if isinstance(stream.raw, io.FileIO) else pa.BufferReader(stream.read())
    file = pq.ParquetFile(seekable)
    schema = file.schema_arrow
    columns = None if needed is None else [name for name in needed if name in schema.names]

    def rows() -> Iterator[Located]:
        number = 0
        for batch in file.iter_batches(batch_size=1024, columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield number, row

    return Rows(list(schema.names), schema, "row", rows())


def _json_rows(lines: Iterator[str], text: io.TextIOWrapper) -> Rows:
    first = next((line for line in lines if line.strip()), "")
    if first.lstrip().startswith("["):
        return Rows(None, None, "item", _array_items(first, text))
    return Rows(None, None, "line", _json_lines(first, lines))


def _json_lines(first: str, lines: Iterator[str]) -> Iterator[Located]:
    for number, line in enumerate([first], 1):
        yield number, _json_object(line)
    for number, line in enumerate(lines, 2):
        if line.strip():
            yield number, _json_object(line)


def _json_object(line: str) -> dict[str, Any] | str:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        return f"is not JSON ({error.msg.removesuffix(' at')} at column {error.colno})"
    except (ValueError, RecursionError) as error:
        return f"is not JSON ({error})"
    return value if isinstance(value, dict) else f"holds {type(value).__name__}, not an object"


def _array_items(first: str, text: io.TextIOWrapper) -> Iterator[Located]:
    """Objects of one JSON array, decoded as they arrive; what follows a broken one cannot be found again."""
    decode = json.JSONDecoder().raw_decode
    buffer, number, chunk = first.lstrip()[1:], 0, _CHUNK
    while True:
        buffer = buffer.lstrip(" \t\r\n,")
        if buffer.startswith("]"):
            return
        try:
            value, end = decode(buffer)
        except json.JSONDecodeError as error:
            more = text.read(chunk)
            if not more:
                yield number + 1, f"ends inside the array or breaks it ({error.msg}); later items are lost"
                return
            buffer, chunk = buffer + more, chunk * 2  # doubling keeps one huge item from costing a square
            continue
        except (ValueError, RecursionError) as error:
            yield number + 1, f"is not JSON ({error}); later items are lost"
            return
        number, buffer = number + 1, buffer[end:]
        yield number, value if isinstance(value, dict) else f"holds {type(value).__name__}, not an object"
