"""Rows of a crawl's files as they are, one at a time: JSON lines, text, Parquet and what the catalog's readers know.

One decision worth knowing: lines are read as bytes with a bound, so one line of any length costs no more memory than
the bound, and bytes that do not decode lose one line and not the file. What cannot be read comes out as a `Flaw` in
its place.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..catalog.class_labels import named_classes, noted_features, with_names
from ..catalog.dataset_errors import reason_of
from ..catalog.formats import open_rows
from ..catalog.sources import COMPRESSED, FORMATS, FileOptions, find_sources
from ..hub.trouble import explain, is_passing

BATCH_ROWS = 256
"""Rows of Parquet that are decoded at a time: web documents are long."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a row cannot be used: the reason it is counted under, and what a person wants to know."""

    reason: str
    message: str


Row = dict[str, Any] | Flaw

FILE_ERRORS = (
    *(EOFError, zlib.error, zipfile.BadZipFile, pa.ArrowException, OSError, ValueError, RuntimeError),
    *(OverflowError, LookupError),  # dates beyond Python's, time zones that nobody knows
)
"""What a file that is broken as a whole raises while it is read; see `is_of_the_machine`."""


def is_of_the_machine(error: Exception) -> bool:
    """Whether a disk or a network failed and not the file: only the system's errors have a number.

    Example:
        >>> is_of_the_machine(OSError(5, "Input/output error")), is_of_the_machine(gzip.BadGzipFile("no gzip"))
        (True, False)
    """
    return isinstance(error, OSError) and error.errno is not None


def format_of(path: Path) -> str | None:
    """Format by the suffix below .gz and .zst, or None.

    Example:
        >>> format_of(Path("news_000001.jsonl.zst")), format_of(Path("a.parquet")), format_of(Path("README.md"))
        ('json', 'parquet', None)
    """
    name = Path(path.name.lower())
    if name.suffix == ".zip":
        return "zip"
    return FORMATS.get(Path(name.stem).suffix if name.suffix in COMPRESSED else name.suffix)


def folder_of(path: PurePath, root: PurePath) -> str:
    """The name of a file's folder, which may be its domain; "" for a single file.

    Args:
        path: of the file.
        root: what the source names: the file, a folder above it or a glob.

    Example:
        >>> root = PurePath("crawl/hobby")
        >>> folder_of(root / "news/1.jsonl", root), folder_of(root / "1.jsonl", root), folder_of(root, root)
        ('news', 'hobby', '')
    """
    return "" if path == root else path.parent.name if path.parent != root else root.name


def raw_rows(path: Path, max_bytes: int, texts: Sequence[str], others: Sequence[str] = ()) -> Iterator[tuple[int, Row]]:
    """Rows of one file with their numbers, counted from 1: lines of line formats, rows or items of the others.

    Args:
        path: the file.
        max_bytes: a longer line is skipped and comes out as a flaw.
        texts: fields that make the text. Of Parquet without any, rows have all fields, and no values.
        others: further fields that matter; Parquet's others are not read.

    Raises:
        OSError, ValueError: one of `FILE_ERRORS`, if the file breaks off or is not what its name says, or if the disk
            fails.
    """
    form = format_of(path)
    if form == "parquet" and path.suffix.lower() not in COMPRESSED:
        yield from _parquet(path, texts, others)
        return
    if form not in ("json", "text"):
        yield from _by_catalog(path, texts, others)
        return
    with _open(path) as stream:
        head = stream.peek(64)[:64]
        if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise ValueError("starts with a UTF-16 mark; store it as UTF-8")
        if form == "json" and head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
            yield from _by_catalog(path, texts, others)  # one array of objects
            return
        for number, line in _lines(stream, max_bytes):
            if isinstance(line, Flaw):
                yield number, line
            elif line.strip():
                yield number, _object(line) if form == "json" else _text(line)


def told_rows(rows: Iterable[dict[str, Any]], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a data set with their numbers, counted from 1; what breaks on the way is one line with its place.

    Args:
        rows: of it.
        name: of the data set.

    Raises:
        ConnectionError: if the Hub goes away.
        OSError: if the disk fails.
        ValueError: if a row cannot be read: those behind it cannot be found again.
    """
    left, number = iter(rows), 0
    while True:
        number += 1
        try:
            row = next(left)
        except StopIteration:
            return
        except Exception as error:  # of the file, of the Hub's client, of `datasets`
            what = f"{name} row {number} cannot be read"
            told = explain(error, what, "start again") if is_passing(error) else None
            if told is None and (is_of_the_machine(error) or isinstance(error, MemoryError)):
                raise
            remedy = "correct it, or give the files as `path`, where a broken row costs one"
            why = f"{type(error).__name__}: {reason_of(error)}"
            raise told or ValueError(f"{what} ({why}); {remedy}") from error
        yield number, row


def text_flaw(text: Any, max_chars: int) -> Flaw | None:
    """What keeps a row's text from being a document's; None if nothing does.

    Args:
        text: as the row has it.
        max_chars: longer texts are left out.

    Example:
        >>> text_flaw(" ", 10)
        Flaw(reason='empty', message='no text')
    """
    if not isinstance(text, str):
        return Flaw("no_text", f"the text is {type(text).__name__}")
    if not text or text.isspace():
        return Flaw("empty", "no text")
    if len(text) > max_chars:
        return Flaw("too_long", f"{len(text):,} characters, at most {max_chars:,}")
    if "\0" in text:
        return Flaw("nul", f"a NUL at character {text.index(chr(0)) + 1:,}")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            return Flaw("wrong_encoding", f"half a surrogate pair at character {error.start + 1:,}")
    return None


def _open(path: Path) -> Any:
    """A stream with `readline` and `peek`. Its buffer is what is lost of a compressed file that breaks off."""
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rb")
    if path.suffix.lower() == ".zst":
        return io.BufferedReader(pa.input_stream(str(path), compression="zstd"))
    return path.open("rb", buffering=1 << 20)


def _lines(stream: Any, max_bytes: int) -> Iterator[tuple[int, bytes | Flaw]]:
    number = 0
    while line := stream.readline(max_bytes + 1):
        number += 1
        if len(line) <= max_bytes or line.endswith(b"\n"):
            yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            continue
        length = len(line)
        while line and not line.endswith(b"\n"):
            line = stream.readline(1 << 20)
            length += len(line)
        yield number, Flaw("too_long", f"a line of {length:,} bytes, at most {max_bytes:,}")


def _object(line: bytes) -> Row:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Flaw("wrong_encoding", f"not UTF-8 (byte {line[error.start]:#04x} at {error.start + 1})")
    except json.JSONDecodeError as error:
        return Flaw("broken_json", f"not JSON ({error.msg.removesuffix(' at')} at column {error.colno})")
    except (ValueError, RecursionError) as error:
        return Flaw("broken_json", f"not JSON ({error})")
    return value if isinstance(value, dict) else Flaw("broken_json", f"{type(value).__name__}, not an object")


def _text(line: bytes) -> Row:
    try:
        return {"text": line.decode("utf-8").rstrip("\r\n")}
    except UnicodeDecodeError as error:
        return Flaw("wrong_encoding", f"not UTF-8 (byte {line[error.start]:#04x} at {error.start + 1})")


def _parquet(path: Path, texts: Sequence[str], others: Sequence[str]) -> Iterator[tuple[int, Row]]:
    number = 0
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        if not set(texts) & set(names):
            for number in range(1, file.metadata.num_rows + 1):
                yield number, dict.fromkeys(names)
            return
        wanted = [name for name in dict.fromkeys((*texts, *others)) if name in names]
        _, named = named_classes(noted_features(file.schema_arrow))
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=wanted):
            yield from enumerate((with_names(row, named) for row in batch.to_pylist()), number + 1)
            number += batch.num_rows


def _by_catalog(path: Path, texts: Sequence[str], others: Sequence[str]) -> Iterator[tuple[int, Row]]:
    for source in find_sources(path, FileOptions()):
        with open_rows(source, FileOptions(), [*dict.fromkeys((*texts, *others))]) as rows:
            names = rows.columns if rows.schema is not None else None
            textless = None if names is None or set(texts) & set(names) else dict.fromkeys(names)
            for number, row in rows.rows:
                yield number, textless or row if isinstance(row, dict) else Flaw("broken_row", row)
