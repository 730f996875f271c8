"""Category trees as lists of paths, in the two forms that Google's product taxonomy is shared in.

Either a full path a line, levels parted by ">" ("3 - Home & Garden > Kitchen", the number optional), or a name a line
whose indentation says its level ("   1 | [   1- 250] | Home & Garden"). Lines that begin with # are comments.
"""

from __future__ import annotations

import re
from pathlib import Path

from .whole_files import text_of

_NUMBER = re.compile(r"\A\s*\d+\s+-\s+")
_NESTED = re.compile(r"\s*\d+\s*\|\s*\[[\d\s-]+\]\s*\|\s*(?P<name>.+)")


def read_taxonomy(path: str | Path) -> list[tuple[str, ...]]:
    """Paths of all categories, from the root down, in the file's order.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if a line is deeper than the one above it allows, with its number, it is not UTF-8, or there is no
            category.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "tree.txt"
        >>> _ = file.write_text("  1 | [ 1- 4] | Home" + chr(10) + "    2 | [ 2- 3] | Kitchen")
        >>> read_taxonomy(file)
        [('Home',), ('Home', 'Kitchen')]
    """
    lines = text_of(path).splitlines()
    numbered = [(i, line) for i, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    nested = bool(numbered) and _NESTED.fullmatch(numbered[0][1]) is not None
    found = _nested(path, numbered) if nested else [_full(line) for _, line in numbered]
    if not found:
        raise ValueError(f"{path}: holds no category")
    return found


def _full(line: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in _NUMBER.sub("", line, count=1).split(">"))


def _nested(path: str | Path, lines: list[tuple[int, str]]) -> list[tuple[str, ...]]:
    """Numbers are set flush right within a level, so the level is where the first bar's column has been before."""
    found: list[tuple[str, ...]] = []
    columns: list[int] = []
    names: list[str] = []
    for number, line in lines:
        match = _NESTED.fullmatch(line)
        if match is None:
            raise ValueError(
                f"{path}:{number}: not 'number | [left-right] | name', as the lines above: {line.strip()!r}"
            )
        column = line.index("|")
        while columns and columns[-1] >= column:
            columns.pop()
            names.pop()
        columns.append(column)
        names.append(match["name"].strip())
        found.append(tuple(names))
    return found
