"""The mined text as word ids on disk: written once, then walked over as often as counting needs it.

A pass over the ids costs a small part of a pass over the text, and memory holds one chunk at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TypeVar

import numpy as np

from rexbert_hf.hub.left_over import temporary_folder
from rexbert_hf.phrases.seen_runs import SeenRuns
from rexbert_hf.phrases.words import KIND_BREAK, KIND_WORD, Words, split_chunks, split_words

RUN_END, TEXT_END, RARE, QUOTE, BRACKET = -1, -2, -3, -4, -5
"""Ids that are no words: punctuation, a text's end, a word below the support, quotation marks, brackets."""
MARKS = 5
CAPITAL, HYPHEN = 1, 2
"""Flags of a word: written with a capital; joined to the word before by a hyphen."""

CHUNK_POSITIONS = 1_000_000
_BATCH_CHARACTERS = 1 << 20
_INNER_SYMBOLS = "&"
"""Symbols that are words of a phrase: "black & decker". All others end a run of words."""

Row = str | Mapping[str, Any]
Texts = Iterable[Row] | Callable[[], Iterable[Row]]
"""Texts to mine, read once: a list, a data set or its column, a generator, or a function that gives one of them.

A row is a text, or a mapping with `text` and, where known, `category`."""

_Result = TypeVar("_Result")


def make_work_dir(folder: str | Path) -> None:
    """Make the folder of the temporary files where it is missing.

    Args:
        folder: the setting `work_dir`.

    Raises:
        OSError: if it cannot be made or written.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"work_dir {folder} cannot be written ({error.strerror}): set another one") from error


class Vocabulary:
    """Ids of words by their 64-bit hashes, in order of first sight, with counts and spellings.

    Attributes:
        spellings: normalised word of each id.
    """

    def __init__(self) -> None:
        self.spellings: list[str] = []
        self._hashes = np.zeros(0, dtype=np.uint64)  # sorted
        self._ids = np.zeros(0, dtype=np.int32)
        self._counts = np.zeros(1024, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.spellings)

    @property
    def counts(self) -> np.ndarray:
        """Occurrences of each id, int64 `[V]`."""
        return self._counts[: len(self)]

    def add(self, words: Words, units: np.ndarray) -> np.ndarray:
        """Count some units and return their ids, int32 `[N]`; words not seen before get the next ids.

        Args:
            words: split texts.
            units: indexes of the units that count, `[N]`.
        """
        hashes, first, inverse, counts = np.unique(
            words.hashes[units], return_index=True, return_inverse=True, return_counts=True
        )
        places = np.searchsorted(self._hashes, hashes)
        known = places < len(self._hashes)
        known[known] = self._hashes[places[known]] == hashes[known]
        ids = np.empty(len(hashes), dtype=np.int32)
        ids[known] = self._ids[places[known]]
        new = np.flatnonzero(~known)
        if len(new):
            ids[new] = len(self) + np.arange(len(new), dtype=np.int32)
            self.spellings += [words.text(unit) for unit in units[first[new]].tolist()]
            self._hashes = np.insert(self._hashes, places[new], hashes[new])
            self._ids = np.insert(self._ids, places[new], ids[new])
            if len(self) > len(self._counts):
                self._counts = np.concatenate([self._counts, np.zeros(len(self), dtype=np.int64)])
        self._counts[ids] += counts
        return ids[inverse]


class Spool:
    """Chunks of word ids in a folder of its own, which `close` removes.

    A chunk has "ids", int32 `[P]`, with the marks above between runs of words, "flags", uint8 `[P]`, and "categories",
    one code a text, in order; whoever counts adds arrays of its own.

    Args:
        folder: where the folder is made, by default $TMPDIR; about 2.5 times the size of the text is needed.
        threads: that split text and walk over chunks.
        distinct_words: a run of at least so many words that came before is left out; 0 keeps all.

    Attributes:
        vocabulary: of all that was written.
        categories: names by code, in order of first sight.
        num_texts: texts written.
        num_words: words written.
        num_repeated: words left out in repeated runs.
        num_characters: characters written.

    >>> with Spool() as spool:
    ...     spool.write(["red lamp, red", "lamp"])
    ...     [spool.load("ids", index).tolist() for index in range(len(spool))]
    [[-2, 0, 1, -1, 0, -2, 1, -2]]
    """

    def __init__(self, folder: str | Path | None = None, threads: int = 1, distinct_words: int = 0) -> None:
        if folder is not None:
            make_work_dir(folder)
        self._folder = temporary_folder(folder)
        self._threads = ThreadPoolExecutor(threads) if threads > 1 else None
        self.path = Path(self._folder.name)
        self.vocabulary = Vocabulary()
        self.categories: dict[str, int] = {}
        self._seen = SeenRuns(distinct_words) if distinct_words else None
        self.num_texts = self.num_words = self.num_characters = self.num_repeated = 0
        self._length = 0
        self._waiting: list[tuple[np.ndarray, ...]] = []

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the threads and remove the folder."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        self._folder.cleanup()

    def __len__(self) -> int:
        return self._length

    def map(self, function: Callable[[Any], _Result], items: Iterable[Any]) -> Iterator[_Result]:
        """Apply a function to items, in order, with the spool's threads; a few results wait at most.

        Args:
            function: of one item; numpy leaves the interpreter to other threads.
            items: such as the indexes of chunks.
        """
        if self._threads is None:
            yield from map(function, items)
            return
        waiting = []
        for item in items:
            waiting.append(self._threads.submit(function, item))
            if len(waiting) > self._threads._max_workers:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()

    def save(self, name: str, index: int, values: np.ndarray) -> None:
        """Keep an array that belongs to a chunk."""
        np.save(self.path / f"{name}-{index}.npy", values, allow_pickle=False)

    def load(self, name: str, index: int) -> np.ndarray:
        """Read such an array."""
        values: np.ndarray = np.load(self.path / f"{name}-{index}.npy", allow_pickle=False)
        return values

    def write(self, texts: Texts) -> None:
        """Append texts, a few at a time in memory. A line break ends a run of words.

        Args:
            texts: see `Texts`.
        """
        for batch, chunks in self.map(_split, _batches(texts)):
            for words in chunks:
                self._waiting.append(self._encode(words))
            codes = [
                -1 if name is None else self.categories.setdefault(name, len(self.categories)) for _, name in batch
            ]
            self._waiting.append((np.zeros(0, np.int32), np.zeros(0, np.uint8), np.array(codes, dtype=np.int32)))
            self.num_texts += len(batch)
            self.num_characters += sum(len(text) for text, _ in batch)
            if sum(len(parts[0]) for parts in self._waiting) >= CHUNK_POSITIONS:
                self._flush()
        self._flush()

    def _encode(self, words: Words) -> tuple[np.ndarray, ...]:
        quotes, brackets, inner = _symbols()
        ids = np.full(len(words), RUN_END, dtype=np.int32)
        ids[words.kind == KIND_BREAK] = TEXT_END
        others = np.flatnonzero(words.kind != KIND_WORD)
        ids[others[np.isin(words.hashes[others], quotes)]] = QUOTE
        ids[others[np.isin(words.hashes[others], brackets)]] = BRACKET
        is_word = words.kind == KIND_WORD
        is_word[others[np.isin(words.hashes[others], inner)]] = True
        repeated = (
            np.zeros(len(words), dtype=bool) if self._seen is None else self._seen.repeated(words.hashes, is_word)
        )
        units = np.flatnonzero(is_word & ~repeated)
        ids[units] = self.vocabulary.add(words, units)
        self.num_words += len(units)
        flags = CAPITAL * words.capital.astype(np.uint8) | HYPHEN * words.hyphen.astype(np.uint8)
        self.num_repeated += int(repeated.sum())
        return ids[~repeated], flags[~repeated], np.zeros(0, dtype=np.int32)

    def _flush(self) -> None:
        if not self._waiting:
            return
        ids, flags, categories = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
        # A text's end before the first text too: whoever looks to the left of a word finds a mark.
        self.save("ids", len(self), np.concatenate([np.array([TEXT_END], dtype=np.int32), ids]))
        self.save("flags", len(self), np.concatenate([np.zeros(1, dtype=np.uint8), flags]))
        self.save("categories", len(self), categories)
        self._waiting = []
        self._length += 1

    def map_ids(self, table: np.ndarray) -> None:
        """Replace each word id by its value in a table, for good; marks stay.

        Args:
            table: new id of each old one, `[V]`.
        """
        table = np.concatenate([table, np.arange(-MARKS, 0)]).astype(np.int32)  # marks index it from behind
        for index in range(len(self)):
            self.save("ids", index, table[self.load("ids", index)])


@cache
def _symbols() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashes of quotation marks, of brackets, and of the symbols that are words."""
    sets = ("\" ' \u201c \u201d \u2018 \u00ab \u00bb", "( ) [ ] { }", " ".join(_INNER_SYMBOLS))
    quotes, brackets, inner = (words.hashes[words.kind != KIND_BREAK] for words in (split_words([s]) for s in sets))
    return quotes, brackets, inner


_Batch = list[tuple[str, str | None]]


def _split(batch: _Batch) -> tuple[_Batch, list[Words]]:
    texts = [text.replace("\n", " | ") if "\n" in text else text for text, _ in batch]
    return batch, [words for _, words in split_chunks(texts)]


def _batches(texts: Texts) -> Iterator[_Batch]:
    batch: _Batch = []
    size = 0
    for row in read_rows(texts):
        batch.append(row)
        size += len(row[0]) + 1
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def read_rows(texts: Texts) -> Iterator[tuple[str, str | None]]:
    """Walk over texts and their categories, whatever holds them.

    Args:
        texts: see `Texts`.

    Raises:
        ValueError: for one string, which is one text and not a list of them, and for a row that is no text.

    >>> list(read_rows(lambda: ["red lamp", {"text": "blue lamp", "category": "Home"}]))
    [('red lamp', None), ('blue lamp', 'Home')]
    """
    if isinstance(texts, str):
        raise ValueError("texts is one string: give a list of texts")
    for number, row in enumerate(texts() if callable(texts) else texts):
        text, category = (row.get("text"), row.get("category")) if isinstance(row, Mapping) else (row, None)
        if not isinstance(text, str):
            raise ValueError(f"text {number} is {type(text).__name__}, not a string: leave such rows out")
        if category is not None and not isinstance(category, str):
            raise ValueError(f"the category of text {number} is {type(category).__name__}, not a string or None")
        yield text, category
