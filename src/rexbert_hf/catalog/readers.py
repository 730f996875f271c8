"""Read public formats into our records: files, folders, globs and `datasets` names, with a column mapping.

One decision worth knowing: text formats (CSV, TSV, JSON, text) give text, whatever the values look like, unless
`features` or `types` say otherwise; Parquet and Hub datasets keep their types. The lists of our records (ids of a click
log, category paths, attributes) are read in all the forms that tools write, see `nested`. Rows stream through Arrow
batches; single bad rows are skipped, counted and reported, a file that is bad as a whole is an error.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features, load_dataset
from datasets.exceptions import DataFilesNotFoundError
from datasets.table import MemoryMappedTable

from .batches import BATCH_ROWS, RowPacker
from .class_labels import class_names, named_classes, with_names
from .columns import ColumnSpec
from .dataset_errors import DATASET_ERRORS, reason_of
from .delimited import Located
from .formats import Rows, open_rows, rows_of
from .report import ReadReport, Tolerance
from .sources import COMPRESSED, FORMATS, MDS_ADVICE, FileOptions, Source, find_sources, with_home

logger = logging.getLogger(__name__)

_LEFT_SECONDS = 24 * 3_600
"""Nobody goes on with a file that has not been written to for so long."""
_HUB_NAME = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[\w.-]+))?(?:@(?P<revision>[\w./-]+))?")


def read_records(
    source: str | Path | Sequence[str | Path],
    columns: Mapping[str, ColumnSpec] | None = None,
    *,
    features: Features | None = None,
    types: Features | None = None,
    required: Sequence[str] | None = None,
    format: str | None = None,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    quotechar: str | None = None,
    header: Sequence[str] | None = None,
    split: str = "train",
    limit: int | None = None,
    errors: str = "skip",
    max_bad_share: float = 0.1,
    cache_dir: str | Path | None = None,
    report: ReadReport | None = None,
) -> Dataset:
    """Read files or a Hub dataset into one `Dataset` with our column names.

    Args:
        source: a file, folder, glob or a list of them (.csv .tsv .jsonl .json .txt .parquet; plain, .gz, .zst or in a
            .zip); or a Hub dataset as `name`, `name:config`, `name@revision`. A text file is one document a line, in
            column `text`.
        columns: `{our name: their name, list of names to join, or template}`; None keeps their columns. A list of names
            for a column that `features` declares a list becomes that list.
        features: types of our columns (as `RECORDS["products"]`); columns that it has and `columns` lacks are null.
        types: types of those of our columns that it names (as `record_types("products")`); others, and columns of the
            source that it does not name, stay as they are. In place of `features`.
        required: our columns that the source must have; others that it lacks are null. None for all.
        format: "csv", "tsv", "json", "text" or "parquet", where the name does not say it; of a folder files without a
            suffix count then too, but hidden ones and those that begin with "_".
        encoding: of text formats. A byte order mark is dropped.
        delimiter: of CSV and TSV.
        quotechar: of CSV (default the double quote) and TSV (default none); "" for none.
        header: column names of a CSV or TSV without header line.
        split: which split of a Hub dataset.
        limit: stop after so many rows.
        errors: "skip" bad rows, or "raise" at the first.
        max_bad_share: the share of a file's rows that may be bad before the file is refused.
        cache_dir: write the Arrow file there and map it, for data larger than memory; None keeps it in memory. It goes
            by its content, so reading the same rows again leaves one file, and what is computed from them is found.
        report: filled in with counts and the first reasons.

    Raises:
        FileNotFoundError: if there is no such file or Hub dataset.
        ValueError: if a column is missing, a file is empty, unreadable or has too many bad rows, or no row is left.

    Example:
        >>> path = Path(tempfile.mkdtemp()) / "shop.csv"
        >>> _ = path.write_text("id,title,note" + chr(10) + "1,Mug,blue" + chr(10) + "2,Plate," + chr(10))
        >>> read_records(path, {"product_id": "id", "text": ["title", "note"]})[:]
        {'product_id': ['1', '2'], 'text': ['Mug . blue', 'Plate']}
    """
    report = ReadReport() if report is None else report
    options = FileOptions(format, encoding, delimiter, quotechar, header)
    packer = RowPacker(columns, features, Tolerance(errors, max_bad_share), report, encoding, types, required)
    batches = _counted(_batches(source, packer, options, split), limit, report)
    first = next(batches, None)
    if first is None:
        raise ValueError(f"{_name_of(source)}: no row to read ({report}); check the file and the mapping")
    dataset = _collect(first, batches, packer.features, cache_dir)
    if report.bad:
        logger.warning("skipped bad rows: %s", report)
    return dataset


def _counted(batches: Iterator[pa.RecordBatch], limit: int | None, report: ReadReport) -> Iterator[pa.RecordBatch]:
    if limit is not None and limit < 1:
        raise ValueError(f"limit is a number of rows, at least 1, got {limit}")
    left = limit
    for batch in batches:
        batch = batch if left is None else batch.slice(0, left)
        report.rows += batch.num_rows
        yield batch
        if left is not None:
            left -= batch.num_rows
            if left == 0:
                return


def _name_of(source: str | Path | Sequence[str | Path]) -> str:
    return str(source) if isinstance(source, (str, Path)) else ", ".join(map(str, source))


def _collect(
    first: pa.RecordBatch, rest: Iterator[pa.RecordBatch], features: Features, cache_dir: str | Path | None
) -> Dataset:
    info = DatasetInfo(features=features)
    if cache_dir is None:
        return Dataset(pa.Table.from_batches([first, *rest]), info=info)
    Path(cache_dir).mkdir(parents=True, exist_ok=True)
    _remove_left(Path(cache_dir))
    descriptor, name = tempfile.mkstemp(dir=cache_dir, prefix="records-", suffix=".partial")
    try:
        with os.fdopen(descriptor, "wb") as file, pa.ipc.new_stream(file, first.schema) as writer:
            writer.write_batch(first)
            for batch in rest:
                writer.write_batch(batch)
        with open(name, "rb") as written:
            content = hashlib.file_digest(written, "sha256").hexdigest()[:32]
        kept = Path(cache_dir) / f"records-{content}.arrow"
        # Equal rows are one file; somebody may have it mapped, so it stays. A power cut may have left it short.
        if kept.exists() and kept.stat().st_size == os.path.getsize(name):
            os.unlink(name)
        else:
            os.replace(name, kept)
    except BaseException:
        os.unlink(name)
        raise
    return Dataset(MemoryMappedTable.from_file(str(kept)), info=info, fingerprint=content)


def _remove_left(folder: Path) -> None:
    """Remove what killed processes, of whatever machine, were writing, as far as it may be removed."""
    for left in folder.glob("records-*.partial"):
        with suppress(OSError):  # somebody else has just removed it, or it is somebody else's
            if time.time() - left.stat().st_mtime >= _LEFT_SECONDS:
                left.unlink()


def _batches(
    source: str | Path | Sequence[str | Path], packer: RowPacker, options: FileOptions, split: str
) -> Iterator[pa.RecordBatch]:
    """Read the sources one after the other, each opened when the one before is done."""
    if isinstance(source, str) and _is_hub_name(source):
        yield from packer.batches(source, _hub_rows(source, split, packer.needed))
        return
    sources = find_sources(source, options)
    if not sources:
        raise ValueError("the list of files is empty: name at least one")
    for file in sources:
        with _open(file, options, packer.needed) as rows:
            yield from packer.batches(file.name, rows)


@contextmanager
def _open(file: Source, options: FileOptions, needed: Sequence[str] | None) -> Iterator[Rows]:
    with ExitStack() as stack:
        try:
            rows = stack.enter_context(open_rows(file, options, needed))
        except _FILE_ERRORS as error:
            raise _file_error(file.name, error) from error
        rows.rows = _guarded(file.name, rows.rows)
        yield rows


_FILE_ERRORS = (
    *(EOFError, zlib.error, zipfile.BadZipFile, pa.ArrowException, OSError, RuntimeError, UnicodeError),
    *(OverflowError, LookupError),  # dates beyond Python's, time zones that nobody knows
)


def _file_error(name: str, error: Exception) -> ValueError:
    """One line for a file that is broken as a whole: cut off, corrupt, encrypted or not what its name says."""
    return ValueError(f"{name}: cannot be read ({type(error).__name__}: {_first_line(error)}); fetch or write it again")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "no details")


def _guarded(name: str, rows: Iterator[Located]) -> Iterator[Located]:
    try:
        yield from rows
    except _FILE_ERRORS as error:
        raise _file_error(name, error) from error


def _is_hub_name(source: str) -> bool:
    if with_home(source).exists() or source.lower().endswith((*FORMATS, *COMPRESSED, ".zip")):
        return False
    return _HUB_NAME.fullmatch(source) is not None


def _hub_rows(source: str, split: str, needed: Sequence[str] | None) -> Rows:
    match = _HUB_NAME.fullmatch(source)
    assert match is not None  # _is_hub_name said so
    try:
        dataset = load_dataset(match["name"], match["config"], revision=match["revision"], split=split)
    except DATASET_ERRORS as error:
        advice = f"; it may hold MDS shards, {MDS_ADVICE}" if isinstance(error, DataFilesNotFoundError) else ""
        raise FileNotFoundError(
            f"'{source}' is neither a file or folder here nor a readable Hub dataset with a split '{split}' "
            f"({reason_of(error)}): check the path, the name and the split{advice}"
        ) from error
    columns = list(dataset.column_names)
    dataset = dataset.select_columns([name for name in columns if needed is None or name in needed])

    features, named = named_classes(dataset.features)

    def rows() -> Iterator[Located]:
        for start, batch in enumerate(dataset.with_format("arrow").iter(batch_size=BATCH_ROWS)):
            for number, row in enumerate(rows_of(batch), start * BATCH_ROWS + 1):
                yield number, with_names(row, named)

    return Rows(columns, features.arrow_schema, "row", _guarded(source, rows()), class_names(dataset.features))
