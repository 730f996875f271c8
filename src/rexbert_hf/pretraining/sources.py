"""One source of text: where it is, what names its content, and how it is read in bounded memory.

Text on its way to the tokenizer lies in Arrow files that are mapped, in a working folder that is gone when the tokens
are written; what killed runs left of it is removed by the next one.
"""

from __future__ import annotations

import dataclasses
import errno
import glob
import hashlib
import importlib.metadata
import json
import logging
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, Features, Value
from huggingface_hub import HfApi

from rexbert_hf.catalog import PRODUCT, load_sample, read_records, split_of
from rexbert_hf.catalog.columns import ColumnMap
from rexbert_hf.catalog.escapes import listed, unescape
from rexbert_hf.catalog.report import ReadReport
from rexbert_hf.data.manifest import FORMAT_VERSION
from rexbert_hf.data.tokenise import VERSION
from rexbert_hf.hub.left_over import remove_left_over
from rexbert_hf.hub.trouble import patience, read_hub
from rexbert_hf.pretraining.curated import corpus_place, curated_key, read_curated
from rexbert_hf.pretraining.product_sources import (
    PAIR_FEATURES,
    mapped,
    pair_rows,
    product_texts,
    read_pair_products,
    rows_of,
)
from rexbert_hf.pretraining.source_settings import SourceSettings

logger = logging.getLogger(__name__)

_FORMAT = 3
"""Goes up when prepared sources of an older version must not be used. What is prepared anew and did not change keeps
its fingerprint, so its runs go on. Since 3: no padding in rows of pairs, short decimals, NaN as an empty field."""
_HUB_PATH = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?P<config>:[\w.-]+)?(?:@(?P<revision>[\w./-]+))?")
_ROWS = 1_000
PRODUCT_ID = "product_id"
"""Column of a source that names the product of each document."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def read_source(
    source: SourceSettings,
    data_dir: str | None = None,
    report: ReadReport | None = None,
    work_dir: Path | None = None,
    held_out: float = 0.0,
) -> Dataset:
    """Read a source into a data set with a `text` column, and `product_id` and `language` where its columns name them.

    Pairs have `query`, `product_id`, `split` and `pair` beside it; their text tells repeated pairs apart.

    Args:
        source: where it is.
        data_dir: relative paths start here.
        report: filled with counts of bad rows.
        work_dir: text is written there and mapped; None keeps it in memory.
        held_out: share of texts that must not stand within a joined document, by their hash; others are split later.

    Raises:
        FileNotFoundError: if a path does not exist.
        ValueError: if the text column is missing, or nothing is left.
    """
    dataset = _read_rows(source, data_dir, report, work_dir)
    if source.max_documents is not None and len(dataset) > source.max_documents:
        dataset = dataset.select(range(source.max_documents))
    if source.pairs is not None:
        return _read_pairs(source, dataset, data_dir, report, work_dir)
    if source.products is not None:
        return product_texts(dataset, source.products, work_dir)
    if "text" not in dataset.column_names:
        raise ValueError(
            f"{source.path or source.sample}: no column 'text' among {listed(dataset.column_names)}:"
            " set the source's columns.text"
        )
    if source.unescape:
        rows = ({**row, "text": unescape(row["text"] or "")} for row in rows_of(dataset))
        dataset = mapped(rows, dataset.features, work_dir, "unescaped")
    if source.join_words is not None:
        if PRODUCT_ID in (source.columns or {}):
            raise ValueError("join_words makes one document of several products: drop it, or columns.product_id")
        if "language" in (source.columns or {}):
            raise ValueError("join_words makes one document of several languages: drop it, or columns.language")
        return _joined(dataset.select_columns(["text"]), source.join_words, work_dir, held_out)
    kept = ["text", PRODUCT_ID] + (["language"] if "language" in (source.columns or {}) else [])
    return dataset.select_columns([name for name in kept if name in dataset.column_names])


def _read_rows(
    source: SourceSettings, data_dir: str | None, report: ReadReport | None, work_dir: Path | None
) -> Dataset:
    """The rows of a source under our column names."""
    if source.corpus is not None:
        return read_curated(source, data_dir, work_dir)
    if source.sample is not None:
        dataset = load_sample(source.sample, size=source.sample_size)
        if source.columns is None:
            return dataset
        columns = ColumnMap(source.columns)
        return Dataset.from_list([columns.apply(row) for row in dataset])
    features = None
    if source.columns is not None and (source.products is not None or source.pairs is not None):
        features = Features({name: PRODUCT.get(name, Value("string")) for name in source.columns})
    paths = _paths(source.path, data_dir)

    def read() -> tuple[Dataset, ReadReport]:
        found = ReadReport()  # what a Hub in trouble broke off is read anew, and does not count
        dataset = read_records(
            paths,
            source.columns,
            features=features,
            format=source.format,
            encoding=source.encoding,
            max_bad_share=source.max_bad_share,
            split=source.split,
            limit=source.max_documents,
            cache_dir=work_dir,
            report=found,
        )
        return dataset, found

    dataset, found = read_hub(read, str(source.path))
    if report is not None:
        report.add(found)
    return dataset


def _read_pairs(
    source: SourceSettings, pairs: Dataset, data_dir: str | None, report: ReadReport | None, work_dir: Path | None
) -> Dataset:
    assert source.pairs is not None
    place = source.pairs.products
    products = None
    if place is not None or source.sample is not None:
        paths = None if place is None else _paths(place, data_dir)
        products = read_pair_products(source.pairs, paths, source.sample_size, work_dir)
    rows = pair_rows(pairs, source.pairs, products, report)
    dataset = mapped(rows, PAIR_FEATURES, work_dir, "pairs")
    if not len(dataset):
        raise ValueError(
            f"{source.path or source.sample}: no pair is left: check columns, pairs.products and pairs.min_relevance"
        )
    return dataset


def texts_of(dataset: Dataset, column: str = "text") -> Iterator[str]:
    """The texts of a data set one after the other, read in batches.

    Example:
        >>> list(texts_of(Dataset.from_dict({"text": ["a", "b"]})))
        ['a', 'b']
    """
    for batch in dataset.select_columns([column]).with_format("arrow").iter(batch_size=_ROWS):
        yield from batch[column].to_pylist()


def _joined(dataset: Dataset, words: int, work_dir: Path | None, held_out: float) -> Dataset:
    """Neighbouring documents joined by line breaks until they have `words` words; the last one may be shorter.

    What is held out goes afterwards, so that the documents which another source joins alike and holds out go too.
    """

    def neighbours() -> Iterator[list[str]]:
        held: list[str] = []
        count = 0
        for text in texts_of(dataset):
            held.append(text)
            count += text.count(" ") + 1
            if count >= words:
                yield held
                held, count = [], 0
        if held:
            yield held

    def documents() -> Iterator[str]:
        for texts in neighbours():
            if held_out:
                whole = split_of("\n".join(texts), held_out) == "train"
                texts = [text for text in texts if whole and split_of(text, held_out) == "train"]
            if texts:
                yield "\n".join(texts)

    schema = pa.schema([("text", pa.large_string())])
    batches = (pa.record_batch([pa.array([text], pa.large_string())], schema=schema) for text in documents())
    if work_dir is None:
        return Dataset(pa.Table.from_batches(batches, schema=schema))
    path = work_dir / "joined.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return Dataset.from_file(str(path))


def _paths(paths: str | list[str] | None, data_dir: str | None) -> Any:
    def place(path: str) -> str:
        inside = os.path.join(data_dir, path) if data_dir else path
        return inside if data_dir and (os.path.exists(inside) or glob.glob(inside) or not _may_be_hub(path)) else path

    return [place(path) for path in paths] if isinstance(paths, list) else place(str(paths))


def _may_be_hub(path: str) -> bool:
    return path.count("/") <= 1 and not any(mark in path for mark in "*?") and not Path(path).suffix


def pinned(source: SourceSettings, data_dir: str | None) -> tuple[SourceSettings, dict[str, str]]:
    """A Hub source held to the commit that its revision means now, and `repo_id` and `revision` for the record.

    Files and samples come back as they are. Without an answer from the Hub the source is read as it is (the cache of
    `datasets` may have it) and the record says nothing.

    Args:
        source: any source.
        data_dir: relative paths start here.
    """
    path = _paths(source.path, data_dir) if source.path is not None else None
    if source.corpus is not None:
        path = corpus_place(source, data_dir)
    found = _HUB_PATH.fullmatch(path) if isinstance(path, str) and not os.path.exists(path) else None
    if found is None or not _may_be_hub(found["name"]):
        return source, {}
    try:
        with patience():
            commit = HfApi().dataset_info(found["name"], revision=found["revision"]).sha
    except Exception as error:  # reading says what is wrong, if anything is
        logger.warning("the revision of the data set %s is unknown (%s): not recorded", path, type(error).__name__)
        return source, {"repo_id": found["name"]}
    held = f"{found['name']}{found['config'] or ''}@{commit}"
    record = {"repo_id": found["name"], "revision": str(commit)}
    if source.corpus is not None:
        return dataclasses.replace(source, corpus=held), record
    return dataclasses.replace(source, path=held), record


def source_key(source: SourceSettings, data_dir: str | None, *parts: Any) -> str:
    """Name of a source's content as far as it can be told without reading it: settings, file sizes and times.

    The versions of what is made of it count too, so that a later version of the package prepares it anew.

    Args:
        source: any source.
        data_dir: relative paths start here.
        parts: what else decides the result.
    """
    identity: list[Any] = [_FORMAT, FORMAT_VERSION, VERSION, dataclasses.asdict(source), parts]
    if source.pairs is not None:
        identity.append("split of their own")  # older versions did not read it
    if source.sample is not None:
        identity.append(importlib.metadata.version("rexbert-hf"))
    if source.corpus is not None:
        identity.append(curated_key(source, data_dir))
    for place in (source.path, source.pairs.products if source.pairs is not None else None):
        paths = _paths(place, data_dir) if place is not None else []
        for path in sorted(paths if isinstance(paths, list) else [paths]):
            path = os.path.expanduser(path)
            found = sorted(glob.glob(path, recursive=True)) or [path]
            files = [f for p in found for f in (sorted(map(str, Path(p).rglob("*"))) if os.path.isdir(p) else [p])]
            identity += [(f, os.stat(f).st_size, os.stat(f).st_mtime_ns) for f in files if os.path.isfile(f)]
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:16]


@contextmanager
def room(said: str, folder: Path) -> Iterator[None]:
    """Say where room is missing when the disk is full.

    Args:
        said: the beginning of the message: what there is no room for.
        folder: where it should have gone.

    Raises:
        OSError: in place of the error of a full disk; `tokenizers` and `safetensors` have one of their own.
    """
    try:
        yield
    except Exception as error:
        text = str(error)
        full = [code for code in _NO_ROOM if getattr(error, "errno", None) == code or f"(os error {code})" in text]
        if not full:
            raise
        raise OSError(
            f"{said} in {folder} ({os.strerror(full[0])}): make room or set cache_dir to another disk, then start again"
        ) from error


@contextmanager
def working_folder(parent: Path) -> Iterator[Path]:
    """A folder of this process below `parent`, removed at the end; those of dead processes are removed at once.

    Args:
        parent: made if needed.
    """
    prefix = f".reading-{socket.gethostname()}-"
    remove_left_over(parent, prefix)
    folder = parent / f"{prefix}{os.getpid()}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
