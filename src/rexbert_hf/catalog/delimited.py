"""CSV and TSV rows with their line numbers; one stray quote costs one row, never the rest of the file.

`csv.reader` swallows everything from an unbalanced quote on. So a record that never ends, or that spans lines and has
the wrong number of fields, gives up its first line only, and reading goes on at the second. What is read in vain on the
way is bounded: a file full of stray quotes gets less patience.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any

from .sources import FileOptions, Source

MAX_RECORD_LINES, MAX_RECORD_CHARS = 10_000, 1 << 21
"""A CSV record that goes on for more lines and more characters than these has a quote that was never closed."""

_IMPATIENT = ((4, 2_000, 1 << 17), (16, 500, 1 << 15), (32, 100, 1 << 13))
"""The same, in a file of which more than so many times as much was read in vain as was read, and `_VAIN_CHARS`."""
_VAIN_CHARS = 1 << 24
_MOST_CHARS = 1 << 25
"""No record of several lines is longer: `csv` holds four bytes of memory a character."""

_MAX_FIELD = 1 << 30

Located = tuple[int, dict[str, Any] | str]
"""A row's number and the row, or the reason why there is none."""


class _Lines:
    """Physical lines for `csv.reader`: remembers those of the current record, so that they can be read again."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._again: list[str] = []
        self.number = 0  # lines handed out for good
        self.taken: list[str] = []
        self._chars = self._read = self._vain = 0
        self.most = MAX_RECORD_LINES, MAX_RECORD_CHARS
        self.ran_out = self.gave_up = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if (len(self.taken) >= self.most[0] and self._chars >= self.most[1]) or self._chars >= _MOST_CHARS:
            self.ran_out = self.gave_up = True
            raise StopIteration
        if self._again:
            line = self._again.pop()
        else:
            try:
                line = next(self._lines)
            except StopIteration:
                self.ran_out = True
                raise
            self._read += len(line)
        self.taken.append(line)
        self._chars += len(line)
        return line

    def begin(self) -> int:
        """Start a record: its line number."""
        self.number += len(self.taken)
        self.taken, self._chars = [], 0
        self.ran_out = self.gave_up = False
        self.most = MAX_RECORD_LINES, MAX_RECORD_CHARS
        for times, lines, chars in _IMPATIENT:
            if self._vain > times * self._read + _VAIN_CHARS:
                self.most = lines, chars
        return self.number + 1

    def give_back(self) -> None:
        """Give up the first line of the record and offer the others again."""
        self._vain += self._chars
        self._again.extend(reversed(self.taken[1:]))
        del self.taken[1:]


def allow_long_fields() -> None:
    """Let `csv` read fields of a gigabyte: product pages outgrow its default of 128 KiB.

    The limit is the whole process's, so one that somebody set higher stays; on Windows it is a number of 32 bits.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_FIELD))


def delimited_rows(source: Source, lines: Iterator[str], options: FileOptions) -> tuple[list[str], Iterator[Located]]:
    """Names of the columns, and the rows that follow the header.

    Raises:
        ValueError: if the header cannot be read, or two of its columns have the same name.
    """
    allow_long_fields()
    quotechar = options.quotechar if options.quotechar is not None else {"csv": '"', "tsv": ""}[source.format]
    style: dict[str, Any] = {"delimiter": options.delimiter or {"csv": ",", "tsv": "\t"}[source.format]}
    style |= {"quotechar": quotechar} if quotechar else {"quoting": csv.QUOTE_NONE}
    feed = _Lines(lines)
    records = _delimited_records(feed, style)
    names = list(options.header) if options.header is not None else _header(source.name, records, options.encoding)
    repeated = next((name for name in names if names.count(name) > 1 and name), None)
    if repeated:
        raise ValueError(f"{source.name}: column {repeated!r} stands twice in the header; pass header=[...]")
    return names, _checked_records(records, names, feed)


def _header(file: str, records: Iterator[tuple[int, list[str] | str]], encoding: str) -> list[str]:
    number, fields = next(records, (1, "is missing"))
    if isinstance(fields, str):
        raise ValueError(f"{file}:{number} {fields}; this line must name the columns, or pass header=[...]")
    try:
        "".join(fields).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{file}:{number} is not {encoding}; pass encoding=...") from None
    return [name.strip() for name in fields]


def _delimited_records(feed: _Lines, style: dict[str, Any]) -> Iterator[tuple[int, list[str] | str]]:
    reader = csv.reader(feed, **style)
    while True:
        number = feed.begin()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            feed.give_back()
            yield number, f"is not CSV ({error})"
            continue
        if feed.ran_out:  # a complete record never asks for more lines
            most = "{:,} lines and {:,}".format(*feed.most) if len(feed.taken) >= feed.most[0] else f"{_MOST_CHARS:,}"
            why = f"not closed within {most} characters" if feed.gave_up else "never closed"
            feed.give_back()
            yield number, f"opens a quote that is {why}"
        elif fields:
            yield number, fields


def _checked_records(
    records: Iterator[tuple[int, list[str] | str]], names: list[str], feed: _Lines
) -> Iterator[Located]:
    for number, fields in records:
        if isinstance(fields, str):
            yield number, fields
        elif len(fields) == len(names):
            yield number, dict(zip(names, fields, strict=True))
        else:
            feed.give_back()  # a stray quote may have swallowed good lines
            yield number, f"has {len(fields)} fields where {len(names)} are expected"
