"""File formats, one row at a time: CSV, TSV, JSON (lines or one array), text, Parquet.

A row that cannot be read comes out as a reason in its place, and the next one follows.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .class_labels import class_names, named_classes, noted_features, with_names
from .delimited import Located, delimited_rows
from .sources import FileOptions, Source

_CHUNK = 1 << 20
_UNFINISHED = 64
"""An error so near to the end of what was read may go with more of it: of an escape, a number or a word."""
_LISTS = (pa.ListType, pa.LargeListType, pa.FixedSizeListType, pa.ListViewType, pa.LargeListViewType)
_BETWEEN_ITEMS = re.compile(r"[ \t\r\n,]*")


@dataclass(slots=True)
class Rows:
    """The rows of one source.

    Attributes:
        columns: names of all columns; None when every row has its own (JSON).
        schema: types, for formats that have them.
        unit: what the numbers count: "line", "item" or "row".
        rows: the rows with their numbers.
        classes: names of classes, by column, where a column is of them: its rows have the names.
    """

    columns: list[str] | None
    schema: pa.Schema | None
    unit: str
    rows: Iterator[Located]
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)


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
    if source.format == "json":
        return _json_rows(source, text)
    lines = _without_mark(text)
    if source.format == "text":
        return Rows(["text"], None, "line", ((i, {"text": line.rstrip("\r\n")}) for i, line in enumerate(lines, 1)))
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
    noted = noted_features(schema)
    types, named = named_classes(noted)
    for name in named:
        schema = schema.set(schema.get_field_index(name), types.arrow_schema.field(name))

    def rows() -> Iterator[Located]:
        number = 0
        for batch in file.iter_batches(batch_size=1024, columns=columns):
            for row in rows_of(batch):
                number += 1
                yield number, with_names(row, named)

    return Rows(list(schema.names), schema, "row", rows(), class_names(noted))


def rows_of(table: pa.RecordBatch | pa.Table) -> list[dict[str, Any]]:
    """Rows of a table; numbers of 16 and 32 bits are the shortest decimals that stand for them, which text shows.

    So are those within lists, maps and structs.

    Args:
        table: any.

    Example:
        >>> rows_of(pa.table({"price": pa.array([19.99, None], pa.float32())}))
        [{'price': 19.99}, {'price': None}]
    """
    whole = table if isinstance(table, pa.Table) else pa.Table.from_batches([table])
    vectors = [i for i, kind in enumerate(whole.schema.types) if isinstance(kind, _LISTS) and _is_single(kind)]
    rest = whole
    for i in vectors:
        rest = rest.set_column(i, whole.schema.names[i], pa.nulls(len(whole)))
    rows: list[dict[str, Any]] = rest.to_pylist()
    for i in vectors:
        for row, value in zip(rows, _short_lists(whole.column(i)), strict=True):
            row[whole.schema.names[i]] = value
    for column in rest.schema:
        shorten = _shortener(column.type)
        if shorten is not None:
            for row in rows:
                if row[column.name] is not None:
                    row[column.name] = shorten(row[column.name])
    return rows


def _is_single(kind: pa.DataType) -> bool:
    return bool(pa.types.is_float32(kind.value_type))


def _short_lists(column: pa.ChunkedArray) -> Iterator[list[float | None] | None]:
    """Lists of single precision with their shortest decimals, by Arrow: a vector is hundreds of numbers a row."""
    numbers = pc.list_flatten(column).cast(pa.string()).cast(pa.float64()).to_pylist()
    start = 0
    for length in pc.list_value_length(column).to_pylist():
        yield None if length is None else numbers[start : start + length]
        start += length or 0


def _shortener(kind: pa.DataType) -> Callable[[Any], Any] | None:
    """How the numbers of 16 and 32 bits in a value that is there are made short; None if it can hold none."""
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        narrow = np.float32 if pa.types.is_float32(kind) else np.float16
        return lambda value: float(str(narrow(value)))
    if pa.types.is_map(kind):
        key, item = _shortener(kind.key_type), _shortener(kind.item_type)
        if key is None and item is None:
            return None
        first, second = _unless_missing(key), _unless_missing(item)
        return lambda pairs: [(first(name), second(value)) for name, value in pairs]
    if pa.types.is_struct(kind):
        parts = {field.name: _unless_missing(part) for field in kind if (part := _shortener(field.type)) is not None}
        return (lambda value: value | {name: part(value[name]) for name, part in parts.items()}) if parts else None
    if isinstance(kind, _LISTS) and (item := _shortener(kind.value_type)) is not None:
        each = _unless_missing(item)
        return lambda items: [each(one) for one in items]
    return None


def _unless_missing(shorten: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    return lambda value: value if value is None or shorten is None else shorten(value)


def _json_rows(source: Source, text: io.TextIOWrapper) -> Rows:
    skipped = 0
    while (first := text.read(1)) and (first.isspace() or first == "\ufeff"):
        skipped += first == "\n"
    if first == "[":  # told before a line is read: an array may be a single line as long as the file
        return Rows(None, None, "item", _array_items(source.name, text))
    lines = chain([first + text.readline()], text) if first else iter(())
    return Rows(None, None, "line", _json_lines(lines, skipped + 1))


def _json_lines(lines: Iterator[str], start: int) -> Iterator[Located]:
    for number, line in enumerate(lines, start):
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


def _array_items(name: str, text: io.TextIOWrapper) -> Iterator[Located]:
    """Objects of one JSON array, decoded as they arrive.

    Raises:
        ValueError: at an item that is broken or cut off, because what follows it cannot be found again.
    """
    decode = json.JSONDecoder().raw_decode
    buffer, at, number, chunk = "", 0, 0, _CHUNK
    while True:
        at = _BETWEEN_ITEMS.match(buffer, at).end()  # type: ignore[union-attr]  # it matches nothing, too
        if buffer.startswith("]", at):
            return
        try:
            value, at = decode(buffer, at)
        except json.JSONDecodeError as error:
            # Only a text may be cut far behind where it begins; another error there stays, whatever follows.
            cut = error.msg.startswith("Unterminated string") or error.pos > len(buffer) - _UNFINISHED
            more = text.read(chunk) if cut else ""
            if not more:
                raise _broken_array(name, number + 1, error.msg) from error
            buffer, at, chunk = buffer[at:] + more, 0, chunk * 2  # doubling keeps one huge item from costing a square
            continue
        except (ValueError, RecursionError) as error:
            raise _broken_array(name, number + 1, str(error)) from error
        number, chunk = number + 1, _CHUNK
        yield number, value if isinstance(value, dict) else f"holds {type(value).__name__}, not an object"


def _broken_array(name: str, item: int, why: str) -> ValueError:
    return ValueError(
        f"{name} item {item} ends inside the array or breaks it ({why}): fetch or write it again, or store one object "
        "a line, where a bad one costs one"
    )
