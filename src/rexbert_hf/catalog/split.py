"""The one held-out split: a document's place follows from the sha1 of its normalised text, and from nothing else.

So the same text falls on the same side in every file, order, casing and run, and whatever trains never sees what
another recipe evaluates on. Test takes the low end of the hash range and validation the high end: a larger share only
adds documents to both, none ever moves from one to the other.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable

import numpy as np
from datasets import Dataset, DatasetDict

from rexbert_hf.catalog.escapes import listed

HELD_OUT = 0.01
"""Default share of documents that training never sees: half of it validation, half test."""

SPLITS = ("train", "validation", "test")


def normalize_text(text: str) -> str:
    r"""Bring text to the form that split and deduplication see: NFKC, case folded, runs of whitespace made one space.

    Example:
        >>> normalize_text("  Caf\u00e9\tTABLE\u00a0set ") == "caf\u00e9 table set"
        True
    """
    if text.isascii():  # lower() is casefold() there, and NFKC changes nothing
        return " ".join(text.lower().split())
    # Folding can leave a decomposed form behind, hence NFKC on both sides.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def text_digests(texts: Iterable[str]) -> np.ndarray:
    """First 16 bytes of the sha1 of each normalised text, as two big-endian integers.

    Returns:
        uint64 `[D, 2]`; the first column decides the split, both together tell texts apart.
    """
    digests = b"".join(
        hashlib.sha1(normalize_text(text).encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()[:16]
        for text in texts
    )
    return np.frombuffer(digests, dtype=">u8").reshape(-1, 2).astype(np.uint64)


def _split_codes(digests: np.ndarray, held_out: float) -> np.ndarray:
    """Index into `SPLITS` of each document, int8 `[D]`."""
    if not 0.0 <= held_out < 1.0:
        raise ValueError(f"held_out is a share in [0, 1), got {held_out}")
    # The top 53 bits are exact in a double, so the borders are the same on every machine.
    position = (digests[:, 0] >> np.uint64(11)) / float(1 << 53)
    codes = np.zeros(len(digests), dtype=np.int8)
    codes[position >= 1.0 - held_out / 2] = 1
    codes[position < held_out / 2] = 2
    return codes


def split_of(text: str, held_out: float = HELD_OUT) -> str:
    """Name the split that a text belongs to: "train", "validation" or "test".

    Args:
        text: one document.
        held_out: share of documents outside train, half validation and half test.

    Raises:
        ValueError: if `held_out` is not in [0, 1).

    Example:
        >>> split_of("Steel Kettle") == split_of(" steel  kettle")
        True
    """
    return SPLITS[_split_codes(text_digests([text]), held_out)[0]]


def split_dataset(dataset: Dataset, column: str = "text", held_out: float = HELD_OUT) -> DatasetDict:
    """Divide a dataset into train, validation and test by the hash of one text column.

    Args:
        dataset: any map-style dataset.
        column: the text that decides; rows with equal text stay together.
        held_out: share of rows outside train, half validation and half test.

    Raises:
        ValueError: if the column is missing, holds something else than text, or `held_out` is not in [0, 1).

    Example:
        >>> parts = split_dataset(Dataset.from_dict({"text": ["a", "b", "c", "d"]}), held_out=0.5)
        >>> {name: len(part) for name, part in parts.items()}
        {'train': 2, 'validation': 1, 'test': 1}
    """
    codes = _split_codes(_column_digests(dataset, column), held_out)
    return DatasetDict({name: dataset.select(np.flatnonzero(codes == i)) for i, name in enumerate(SPLITS)})


def split_queries(dataset: Dataset, held_out: float = HELD_OUT) -> DatasetDict:
    """Divide query-product pairs by their own `split` where they have one, else by the hash of their query.

    A query is in one split: that which holds out most of those that its pairs name.

    Args:
        dataset: rows with `query`, and where known `split` (a name of `SPLITS`, or null).
        held_out: share of the queries without a split of their own that are outside train.

    Raises:
        ValueError: for a split of another name, with its row.

    Example:
        >>> rows = {"query": ["mug", "Mug", "pot"], "split": ["train", "test", "train"]}
        >>> parts = split_queries(Dataset.from_dict(rows))
        >>> {name: part["query"][:] for name, part in parts.items()}
        {'train': ['pot'], 'validation': [], 'test': ['mug', 'Mug']}
    """
    digests, names = _column_digests(dataset, "query"), [None] * len(dataset)
    if "split" in dataset.column_names:
        names = dataset.with_format("arrow")["split"][:].to_pylist()
    for row, name in enumerate(names):
        if name is not None and name not in SPLITS:
            raise ValueError(f"row {row}: split {name!r} is none of {', '.join(SPLITS)}: rename it, or leave it empty")
    given = np.array([-1 if name is None else SPLITS.index(name) for name in names], dtype=np.int8)
    codes = np.where(given >= 0, given, _split_codes(digests, held_out))
    _, query = np.unique(digests[:, 0], return_inverse=True)
    most = np.zeros(int(query.max(initial=-1)) + 1, dtype=np.int8)
    np.maximum.at(most, query, codes)
    return DatasetDict({name: dataset.select(np.flatnonzero(most[query] == i)) for i, name in enumerate(SPLITS)})


def deduplicate(dataset: Dataset, column: str = "text") -> tuple[Dataset, int]:
    """Drop rows whose text was seen before (equal after `normalize_text`); the first one stays, order is kept.

    Costs 16 bytes a document, whatever its length.

    Args:
        dataset: any map-style dataset.
        column: the text to compare.

    Returns:
        The dataset without repetitions, and how many rows were dropped.

    Raises:
        ValueError: if the column is missing or holds something else than text.

    Example:
        >>> unique, dropped = deduplicate(Dataset.from_dict({"text": ["Mug", "plate", " mug "]}))
        >>> unique["text"][:], dropped
        (['Mug', 'plate'], 1)
    """
    digests = _column_digests(dataset, column)
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: equal texts stay in row order
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = (digests[order[1:]] != digests[order[:-1]]).any(axis=1)
    kept = np.sort(order[is_first])
    return dataset.select(kept), len(dataset) - len(kept)


def _column_digests(dataset: Dataset, column: str) -> np.ndarray:
    if column not in dataset.column_names:
        raise ValueError(f"no column '{column}' to hash: the dataset has {listed(dataset.column_names)}")
    digests, seen = [np.zeros((0, 2), dtype=np.uint64)], 0
    for batch in dataset.select_columns([column]).with_format("arrow").iter(batch_size=10_000):
        texts = batch[column].to_pylist()
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(f"row {seen + i}: column '{column}' holds {text!r}, not text: drop or fill such rows")
        digests.append(text_digests(texts))
        seen += len(texts)
    return np.concatenate(digests)
