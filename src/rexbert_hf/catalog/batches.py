"""From located rows to Arrow batches: map the columns, convert the values, count what does not fit.

The types are settled by the first source and hold for all that follow: `features` where the caller gave them, else what
Parquet and Hub datasets say, else text.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from itertools import chain
from typing import Any

import pyarrow as pa
from datasets import Features, Value
from datasets.features.features import generate_from_arrow_type

from .columns import ColumnMap, ColumnSpec, converter_to, is_nothing
from .delimited import Located
from .formats import Rows
from .nested import attribute_records, path_levels, product_ids
from .records import PRODUCT, SEARCH_EVENT, labels_by_number
from .report import ReadReport, Tally, Tolerance

logger = logging.getLogger(__name__)

BATCH_ROWS = 1_000
_COLUMNS_SEEN_BY = 10_000
"""A column that no object of a JSON file had by this row is missing."""
_LISTS = {
    "category_path": (PRODUCT["category_path"], path_levels),
    "attributes": (PRODUCT["attributes"], attribute_records),
}
_LISTS |= {name: (SEARCH_EVENT[name], product_ids) for name in ("shown", "clicked", "bought")}
"""Columns of records that tools write in several forms: their type, and how they are read."""


class RowPacker:
    """Turns the rows of one source after the other into Arrow batches of one schema.

    Args:
        columns: the mapping; None takes the columns of the first source as they are.
        features: types of our columns; None takes them from the first source.
        tolerance: what happens to bad rows.
        report: filled in.
        encoding: named when a row does not decode.
        types: types of those of our columns that it names; without `features`.
        required: our columns that a source must have; None for all of them.

    Raises:
        ValueError: if the mapping names a column that `features` lacks.
    """

    def __init__(
        self,
        columns: Mapping[str, ColumnSpec] | None,
        features: Features | None,
        tolerance: Tolerance,
        report: ReadReport,
        encoding: str = "utf-8",
        types: Features | None = None,
        required: Sequence[str] | None = None,
    ) -> None:
        self.report = report
        self._types, self._required = types or {}, required
        self._tolerance, self._encoding = tolerance, encoding
        if columns is None and features is not None:
            columns = {name: name for name in features}
        self._columns = None if columns is None else ColumnMap(columns)
        self._mapped = columns is not None
        self._rare: set[str] = set()  # keys that some objects of a JSON file have: the next file may have none of them
        self._numbers: dict[str, dict[str, int]] = {}  # of classes, by our column, of the source that is read
        self._told: set[str] = set()  # columns that only later files have, and that a warning has named
        self._features: Features | None = None
        self._keeps_null = features is not None
        if features is not None and self._columns is not None:
            unknown = next((name for name in self._columns.ours if name not in features), None)
            if unknown:
                raise ValueError(f"column '{unknown}' is not one of the record's: {', '.join(features)}")
            self._settle(features)

    @property
    def needed(self) -> tuple[str, ...] | None:
        """Their columns that matter; None while that is not known, hence all."""
        return None if self._columns is None else self._columns.needed

    @property
    def features(self) -> Features:
        """Types of the batches, known once the first has come out.

        Raises:
            ValueError: before that.
        """
        if self._features is None:
            raise ValueError("the features are known when the first batch is")
        return self._features

    def batches(self, name: str, rows: Rows) -> Iterator[pa.RecordBatch]:
        """Map, convert and check the rows of one source.

        Raises:
            ValueError: if a mapped column is missing or too many rows are bad.
        """
        self.report.files.append(name)
        located = self._open(name, rows)
        tally = Tally(name, rows.unit, self._tolerance, self.report)
        records: list[dict[str, Any]] = []
        numbers: list[int] = []
        for number, row in located:
            tally.rows += 1
            record = self._record(row)
            if isinstance(record, str):
                tally.bad(number, record, record.startswith(_undecodable(self._encoding)))
            elif record is None:
                tally.rows -= 1
                self.report.empty += 1
            else:
                records.append(record)
                numbers.append(number)
                if tally.undecodable and not all(
                    value.isascii() for value in record.values() if isinstance(value, str)
                ):
                    tally.decoded()
            if len(records) == BATCH_ROWS:
                yield self._pack(records, numbers, tally)
                records, numbers = [], []
        if records:
            yield self._pack(records, numbers, tally)
        tally.judge()

    def _open(self, name: str, rows: Rows) -> Iterator[Located]:
        """Check the columns of a source, and settle mapping and types if it is the first."""
        located, columns = rows.rows, rows.columns
        if columns is None:
            if self._columns is None:
                located, columns, self._rare = _with_first_keys(name, located, self._told)
            else:
                located = _watch_columns(name, located, set(self._needed_of(self._columns)))
                if not self._mapped:
                    located = _told_of_other_keys(name, located, set(self._columns.needed), self._told)
        elif self._columns is not None and not self._mapped:
            _tell(name, "file", set(columns) - set(self._columns.needed), self._told)
        if self._columns is None:
            self._columns = ColumnMap({column: column for column in columns or ()})
        if columns is not None:
            _require(name, [column for column in self._needed_of(self._columns) if column not in columns], columns)
        if self._features is None:
            if zero := next((column for column in self._columns.ours if "\0" in column), None):
                raise ValueError(f"{name}: a column's name holds a zero byte ({zero!r:.40}): it is no text file")
            self._settle(_features_of(self._columns, rows.schema, self._mapped, self._types))
        self._numbers = self._class_numbers(name, rows.classes)
        return located

    def _class_numbers(self, name: str, classes: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
        """Of our columns of numbers, and labels by number, that classes are mapped to: their numbers by their names."""
        assert self._columns is not None
        found = {}
        judged = {"query", "product_id"} <= {*self._columns.ours}
        for ours, theirs in self._columns.direct.items():
            if theirs not in classes:
                continue
            if _is_number(self._schema.field(ours).type):
                wants = not all(map(_names_a_number, classes[theirs]))  # stars from "1" to "5" are numbers as they are
            else:
                wants = judged and ours == "label" and labels_by_number(classes[theirs])
            if wants:
                found[ours] = {known: number for number, known in enumerate(classes[theirs])}
                if theirs not in self._told:
                    self._told.add(theirs)
                    listed = ", ".join(map(repr, classes[theirs][:10]))
                    text = "%s: column '%s' has classes (%s) and '%s' wants numbers: it gets those of the classes"
                    logger.warning(text, name, theirs, listed, ours)
        return found

    def _needed_of(self, columns: ColumnMap) -> tuple[str, ...]:
        """Their columns that must be there."""
        needed = columns.needed if self._required is None else columns.needed_for(self._required)
        return tuple(name for name in needed if name not in self._rare)

    def _settle(self, features: Features) -> None:
        assert self._columns is not None
        self._features, self._schema = features, features.arrow_schema
        kinds = {name: self._schema.field(name).type for name in features}
        self._columns.keep_lists(name for name, kind in kinds.items() if pa.types.is_list(kind))
        self._texts = [name for name, kind in features.items() if kind == Value("string")]
        lists = {name: _unless_empty(read) for name, (kind, read) in _LISTS.items() if features.get(name) == kind}
        self._converters = {ours: lists.get(ours) or converter_to(kinds[ours]) for ours in self._columns.ours}

    def _record(self, row: dict[str, Any] | str) -> dict[str, Any] | str | None:
        """The record of a row; or the reason why there is none; or None if the row is empty."""
        if isinstance(row, str):
            return row
        assert self._columns is not None
        if all(_is_empty(row.get(name)) for name in self._columns.needed):
            return None
        mapped = self._columns.apply(row)
        for ours, numbers in self._numbers.items():
            mapped[ours] = numbers.get(mapped[ours])
        record: dict[str, Any] = {}
        for ours, convert in self._converters.items():
            try:
                value = convert(mapped[ours])
            except (ValueError, RecursionError) as error:
                return f"does not fit column '{ours}' ({error})"
            if isinstance(value, str):
                flaw = _flaw_of(value, self._encoding)
                if flaw:
                    return flaw
            record[ours] = value
        return record

    def _pack(self, records: list[dict[str, Any]], numbers: list[int], tally: Tally) -> pa.RecordBatch:
        if not self._keeps_null:
            for record in records:
                for name in self._texts:
                    if record[name] is None:
                        record[name] = ""
        try:
            return pa.RecordBatch.from_pylist(records, schema=self._schema)
        except _MISFITS:
            return self._pack_the_fitting(records, numbers, tally)

    def _pack_the_fitting(self, records: list[dict[str, Any]], numbers: list[int], tally: Tally) -> pa.RecordBatch:
        fitting = []
        for number, record in zip(numbers, records, strict=True):
            try:
                pa.RecordBatch.from_pylist([record], schema=self._schema)
            except _MISFITS as error:
                tally.bad(number, f"does not fit the columns' types ({error})")
            else:
                fitting.append(record)
        return pa.RecordBatch.from_pylist(fitting, schema=self._schema)


_MISFITS = (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _names_a_number(name: str) -> bool:
    try:
        return math.isfinite(float(name))
    except ValueError:
        return False


def _features_of(columns: ColumnMap, schema: pa.Schema | None, mapped: bool, given: Mapping[str, Any]) -> Features:
    """Types of mapped columns: those given, or of the source where it has any and one column becomes one, or text."""
    types = {}
    for ours in columns.ours:
        theirs = columns.direct.get(ours)
        kind = pa.string() if schema is None or theirs not in schema.names else schema.field(theirs).type
        types[ours] = given[ours] if ours in given else _feature_of(kind, mapped)
    return Features(types)


def _feature_of(kind: pa.DataType, mapped: bool) -> Any:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if mapped and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        return Value("string")  # writers that know no text store it so; a column that nobody named may hold pictures
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_null(kind):
        return Value("string")
    try:
        return generate_from_arrow_type(kind)
    except ValueError:  # `datasets` knows no maps, and no intervals: as_text makes JSON or text of them
        return Value("string")


def _require(name: str, missing: list[str], columns: list[str]) -> None:
    if missing:
        listed = ", ".join(" ".join(column.split()) for column in columns[:40]) + (", ..." if len(columns) > 40 else "")
        raise ValueError(f"{name}: no column '{missing[0]}'; it has {listed}: correct the column mapping")


def _with_first_keys(
    name: str, located: Iterator[Located], told: set[str]
) -> tuple[Iterator[Located], list[str], set[str]]:
    """The columns of JSON rows that nobody mapped, of the first `BATCH_ROWS` objects together, and which some lack."""
    passed: list[Located] = []
    columns: dict[str, int] = {}
    objects = 0
    for number, row in located:
        passed.append((number, row))
        if isinstance(row, dict):
            objects += 1
            columns.update((key, columns.get(key, 0) + 1) for key in row)
        if objects == BATCH_ROWS or (not objects and number >= _COLUMNS_SEEN_BY):
            break
    if objects:
        rows = chain(passed, _told_of_other_keys(name, located, set(columns), told))
        return rows, list(columns), {key for key, count in columns.items() if count < objects}
    reason = f"; row {passed[0][0]} {passed[0][1]}" if passed else ""
    raise ValueError(f"{name}: holds no JSON objects, one a line or in one array{reason}")


def _told_of_other_keys(name: str, located: Iterator[Located], known: set[str], told: set[str]) -> Iterator[Located]:
    """Warns of the first row of a file with a key that comes up after the columns have been settled."""
    known = known | told
    for number, row in located:
        yield number, row
        if isinstance(row, dict) and not row.keys() <= known:
            _tell(f"{name} row {number}", "row", row.keys() - known, told)
            break
    yield from located


def _tell(where: str, unit: str, more: Set[str], told: set[str]) -> None:
    """Warn of columns that are left out, of each once: a thousand files may have it."""
    if new := more - told:
        names = ", ".join(sorted(map(repr, new)))
        logger.warning("%s: no earlier %s has %s, which is left out; name the columns to keep", where, unit, names)
        told.update(new)


def _watch_columns(name: str, located: Iterator[Located], missing: set[str]) -> Iterator[Located]:
    """Objects may lack a key here and there; a key that none of them has is an error."""
    keys: dict[str, None] = {}
    count = 0
    for count, (number, row) in enumerate(located, 1):
        if isinstance(row, dict) and missing:
            missing.difference_update(row)
            keys.update(dict.fromkeys(row))
            if count >= _COLUMNS_SEEN_BY:
                _require(name, sorted(missing), list(keys))
        yield number, row
    if keys:  # without any object the bad rows are the better message
        _require(name, sorted(missing), list(keys))


def _unless_empty(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A reader of lists, for which what is missing stays so."""
    return lambda value: None if is_nothing(value) or (isinstance(value, str) and not value.strip()) else read(value)


def _is_empty(value: Any) -> bool:
    if isinstance(value, (str, list)):
        return not value or (isinstance(value, str) and value.isspace())
    return is_nothing(value)


def _undecodable(encoding: str) -> str:
    return f"is not {encoding} (byte"


def _flaw_of(text: str, encoding: str) -> str | None:
    """What makes a text unfit to be stored: bytes that do not decode (see `formats`), or NUL."""
    if "\0" in text:
        return "holds a NUL byte"
    if text.isascii():
        return None
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        if 0xDC80 <= code <= 0xDCFF:  # what `surrogateescape` makes of a byte
            return f"{_undecodable(encoding)} {code & 0xFF:#04x} at character {error.start + 1})"
        return f"holds half a surrogate pair at character {error.start + 1}"
    return None
