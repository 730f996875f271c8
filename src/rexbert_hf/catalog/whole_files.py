"""Small files that are read as a whole: text and JSON, or one line that names the file and the way out."""

from __future__ import annotations

import gzip
import json
import zlib
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
