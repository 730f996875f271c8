"""Which documents of a corpus repeat an earlier one: exactly, or nearly.

Signatures lie on disk in shards, in document order; this pass reads them one column at a time. The first document of a
group wins, and a near duplicate is only removed for the sake of a document that stays in its pass: similarity is not
handed on along a chain of documents that drift apart.

One decision worth knowing: groups are made by key over the whole corpus, so the result depends neither on shards nor on
workers. Memory is 1 byte a document plus about 40 for each document of the part of a column that is looked at, of which
there are some `part_size`: 0.7 GB. Larger corpora are read once a part and column.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..catalog.split import text_digests
from ..hub.left_over import temporary_folder
from .near_duplicates import NearDuplicateSettings, Signatures, minhash, similarity

KEPT, EXACT, NEAR = 0, 1, 2
PART_SIZE = 1 << 24
_ROUNDS = 8
"""In a group of unlike documents so many are tried as the one that others repeat."""
_PAIRS = 1 << 16


@dataclass(frozen=True)
class ShardSignatures:
    """Signatures of one shard's documents.

    Attributes:
        digests: uint64 `[N, 2]`, of the normalised text.
        near: MinHash, or None if near duplicates are not looked for.
    """

    digests: np.ndarray
    near: Signatures | None

    def save(self, folder: Path) -> None:
        """Write one array a file: columns are read back one by one."""
        folder.mkdir(parents=True, exist_ok=True)
        columns = [self.digests.T]
        if self.near is not None:
            columns.append(self.near.keys)
            _save(folder / "values.npy", self.near.values)
        _save(folder / "keys.npy", np.concatenate(columns))


def _save(path: Path, array: np.ndarray) -> None:
    """As `np.save`, which hides the reason when the disk is full."""
    content = io.BytesIO()
    np.save(content, np.ascontiguousarray(array))
    path.write_bytes(content.getbuffer())


def sign(texts: Sequence[str], exact: bool, settings: NearDuplicateSettings) -> ShardSignatures:
    """Sign the documents of a shard.

    Args:
        texts: the documents.
        exact: look for equal texts.
        settings: of near duplicates.
    """
    digests = text_digests(texts) if exact else np.zeros((len(texts), 2), dtype=np.uint64)
    return ShardSignatures(digests, minhash(texts, settings) if settings.enabled else None)


def find_duplicates(
    folders: Sequence[Path], exact: bool, settings: NearDuplicateSettings, part_size: int = PART_SIZE
) -> list[np.ndarray]:
    """Tell the documents that repeat an earlier one.

    Args:
        folders: of saved signatures, in document order.
        exact: whether equal texts (but for case and spaces) count.
        settings: of near duplicates.
        part_size: documents whose keys are compared at a time; bounds memory, does not change the result.

    Returns:
        KEPT, EXACT or NEAR for each document, uint8, one array a shard.
    """
    counts = [np.load(folder / "keys.npy", mmap_mode="r").shape[1] for folder in folders]
    corpus = _Corpus(list(folders), np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
    if exact:
        corpus.pass_over(0, part_size, EXACT, settings.threshold)
    if settings.enabled:
        for band in range(settings.bands):
            corpus.pass_over(2 + band, part_size, NEAR, settings.threshold)
    return np.split(corpus.verdicts, corpus.starts[1:-1])


def duplicates_of(
    texts: Sequence[str], exact: bool = True, settings: NearDuplicateSettings | None = None
) -> np.ndarray:
    """Tell the duplicates among texts that fit in memory.

    Args:
        texts: in order; the first of a group stays.
        exact: whether equal texts count.
        settings: of near duplicates.

    Returns:
        KEPT, EXACT or NEAR for each, uint8 `[N]`.

    Example:
        >>> duplicates_of(["A red mug", "a  red mug", "A blue mug", "A red mug 2"]).tolist()
        [0, 1, 0, 0]
    """
    settings = settings or NearDuplicateSettings()
    with temporary_folder() as folder:
        sign(texts, exact, settings).save(Path(folder))
        return find_duplicates([Path(folder)], exact, settings)[0]


@dataclass
class _Corpus:
    """Shards on disk seen as one list of documents."""

    folders: list[Path]
    starts: np.ndarray

    def __post_init__(self) -> None:
        self.verdicts = np.zeros(int(self.starts[-1]), dtype=np.uint8)

    def pass_over(self, column: int, part_size: int, verdict: int, threshold: float) -> None:
        """Compare the documents that share a key of this column."""
        parts = max(1, -(-len(self.verdicts) // part_size))
        for part in range(parts):
            documents, keys = self._part(column, part, parts)
            order = np.argsort(keys, kind="stable")  # documents of a group stay in their order
            documents, keys = documents[order], keys[order]
            group = np.cumsum(np.diff(keys, prepend=keys[:1]) != 0)
            self._groups(documents, group, verdict, threshold)

    def _part(self, column: int, part: int, parts: int) -> tuple[np.ndarray, np.ndarray]:
        """Documents that stand so far, and their keys, whose keys fall into one part of all keys."""
        found = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.uint64)]
        for start, end, folder in zip(self.starts[:-1], self.starts[1:], self.folders, strict=True):
            keys = np.array(np.load(folder / "keys.npy", mmap_mode="r")[column])
            chosen = self.verdicts[start:end] == KEPT
            if parts > 1:
                chosen &= keys % np.uint64(parts) == part
            found[0].append(start + np.flatnonzero(chosen))
            found[1].append(keys[chosen])
        return np.concatenate(found[0]), np.concatenate(found[1])

    def _groups(self, documents: np.ndarray, group: np.ndarray, verdict: int, threshold: float) -> None:
        """Remove what repeats the first of its group; then try the first of what is left, and so on."""
        for _ in range(_ROUNDS):
            sizes = np.bincount(group) if len(group) else np.zeros(1, dtype=np.int64)
            several = sizes[group] > 1
            documents, group = documents[several], group[several]
            if not len(documents):
                return
            first = np.diff(group, prepend=-1) > 0
            leaders = documents[np.flatnonzero(first)][np.cumsum(first) - 1]
            members, leaders = documents[~first], leaders[~first]
            same = self._same(members, leaders, verdict, threshold)
            self.verdicts[members[same]] = verdict
            documents, group = members[~same], group[~first][~same]

    def _same(self, members: np.ndarray, leaders: np.ndarray, verdict: int, threshold: float) -> np.ndarray:
        """Whether each pair of documents is a pair of duplicates, by all that is known of them."""
        result = np.zeros(len(members), dtype=bool)
        for i in range(0, len(members), _PAIRS):
            pair = slice(i, i + _PAIRS)
            if verdict == EXACT:
                result[pair] = self._second_halves(members[pair]) == self._second_halves(leaders[pair])
            else:
                result[pair] = similarity(self._values(members[pair]), self._values(leaders[pair])) >= threshold
        return result

    def _second_halves(self, documents: np.ndarray) -> np.ndarray:
        return self._gather(documents, lambda folder: np.load(folder / "keys.npy", mmap_mode="r")[1])

    def _values(self, documents: np.ndarray) -> np.ndarray:
        return self._gather(documents, lambda folder: np.load(folder / "values.npy", mmap_mode="r"))

    def _gather(self, documents: np.ndarray, opened: Callable[[Path], np.ndarray]) -> np.ndarray:
        shards = np.searchsorted(self.starts, documents, side="right") - 1
        order = np.argsort(shards, kind="stable")
        parts = []
        edges = np.flatnonzero(np.diff(shards[order], prepend=-1))
        for rows in np.split(order, edges[1:]):
            shard = shards[rows[0]]
            parts.append(opened(self.folders[shard])[documents[rows] - self.starts[shard]])
        joined = np.concatenate(parts)
        result = np.empty_like(joined)
        result[order] = joined
        return result
