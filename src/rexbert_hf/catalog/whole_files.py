"""Small files that are read as a whole: text, JSON and CSV, or one line that names the file and the way out."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def text_of(path: str | Path) -> str:
    """The text of a file, line ends as they are, a mark at its beginning left out.

    Args:
        path: the file; a name that ends in .gz is unpacked.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is not UTF-8, or a damaged archive.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.txt"
        >>> _ = file.write_bytes(b"mug" + bytes([13, 10]))
        >>> text_of(file) == "mug" + chr(13) + chr(10)
        True
    """
    data = Path(path).read_bytes()
    if Path(path).suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: cannot be unpacked ({error}); fetch it again") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{line}: not UTF-8 ({error.reason}); store it as UTF-8, or fetch it again") from None


def csv_rows(lines: Iterable[str], path: str | Path) -> Iterator[tuple[int, list[str]]]:
    r"""Rows of CSV, each with the line that it begins on; a quote that is left open takes in nothing of what follows.

    Args:
        lines: of the file, with their ends as they are.
        path: of the file, for messages.

    Raises:
        ValueError: if a row is no CSV, with its line.

    Example:
        >>> list(csv_rows(['1,"red\n', 'mug"\n', "2,lamp\n"], "a.csv"))
        [(1, ['1', 'red\nmug']), (3, ['2', 'lamp'])]
        >>> list(csv_rows(["1,mug\n", '2,"lamp\n', "3,desk\n"], "a.csv"))
        Traceback (most recent call last):
        ...
        ValueError: a.csv, line 2: no CSV (unexpected end of data); close its quote, or fetch the file again
    """
    reader = csv.reader(lines, strict=True)
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(
                f"{path}, line {number}: no CSV ({error}); close its quote, or fetch the file again"
            ) from None
        yield number, fields


def json_of(text: str, where: str) -> Any:
    """What a text says in JSON.

    Args:
        text: the text.
        where: file, or file and line, for messages.

    Raises:
        ValueError: if it is none.

    Example:
        >>> json_of("{", "a.json")
        Traceback (most recent call last):
        ...
        ValueError: a.json: no JSON (Expecting property name enclosed in double quotes at column 2); fetch it again
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        told = f"{error.msg.removesuffix(' at')} at {line}column {error.colno}"
    except (ValueError, RecursionError) as error:
        told = str(error)
    raise ValueError(f"{where}: no JSON ({told}); fetch it again")
