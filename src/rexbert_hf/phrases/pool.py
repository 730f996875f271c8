"""The phrase pool (E-BERT, "E-commerce Phrase Pool"): scored phrases, mined, read, saved, pushed, matched.

Phrases are kept in the normal form of `words.normalise`, best first, so that the n best are a prefix.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from rexbert_hf.hub import merge_card, push_dataset, resolve
from rexbert_hf.hub.run_file import write_whole
from rexbert_hf.phrases.guides import fingerprint_of
from rexbert_hf.phrases.mining import MiningOptions, mine_phrases
from rexbert_hf.phrases.pool_card import Overlap, pool_card
from rexbert_hf.phrases.spool import Texts
from rexbert_hf.phrases.words import normalise_all

if TYPE_CHECKING:
    from rexbert_hf.phrases.matcher import PhraseMatcher

_DATA = "data/*.parquet"
_PART = re.compile(r"train-\d{5}-of-\d{5}\.parquet")
"""Names that `save` and pushed data sets give to the files of a pool."""


class PhrasePool:
    """Phrases with scores in [0, 1], best first.

    Args:
        phrases: any spelling; phrases of equal words are one, with the highest of their scores.
        scores: quality of each, in [0, 1].
        counts: occurrences in the mined text, 0 where unknown.
        categories: the category that each phrase is most typical of, or None.

    Attributes:
        phrases: normalised phrases, by falling score, then count.
        scores: float64 `[N]`.
        counts: int64 `[N]`.
        categories: one for each phrase, None where unknown; or None for a pool without categories.
        facts: what mining measured; not saved.

    Raises:
        ValueError: if there is no phrase, columns differ in length, or a score is not in [0, 1].

    Example:
        >>> pool = PhrasePool(["Stainless-Steel", "tea pot"], [0.7, 0.9])
        >>> pool.phrases, pool.match(["A stainless steel pot"])
        (['tea pot', 'stainless steel'], [[(2, 17, 0.7)]])
    """

    def __init__(
        self,
        phrases: Sequence[str],
        scores: Sequence[float] | np.ndarray,
        counts: Sequence[int] | np.ndarray | None = None,
        categories: Sequence[str | None] | None = None,
    ) -> None:
        names = normalise_all(list(phrases))
        quality = np.asarray(scores, dtype=np.float64)
        occurrences = np.zeros(len(names), dtype=np.int64) if counts is None else np.asarray(counts, dtype=np.int64)
        _check(list(phrases), names, quality, occurrences, categories)
        order = sorted(range(len(names)), key=lambda i: (-quality[i], -occurrences[i], names[i]))
        seen: set[str] = set()
        kept = [i for i in order if not (names[i] in seen or seen.add(names[i]))]  # type: ignore[func-returns-value]
        self.phrases = [names[i] for i in kept]
        self.scores, self.counts = quality[kept], occurrences[kept]
        self.categories = None if categories is None else [categories[i] for i in kept]
        self.facts: dict[str, Any] = {}
        self._matcher: PhraseMatcher | None = None

    def __len__(self) -> int:
        return len(self.phrases)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return zip(self.phrases, self.scores.tolist(), strict=True)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_matcher": None}

    def __repr__(self) -> str:
        return f"PhrasePool({len(self)} phrases, scores {self.scores[-1]:.3f} to {self.scores[0]:.3f})"

    @property
    def fingerprint(self) -> str:
        """A short text that changes with any phrase or score."""
        return fingerprint_of("pool", self.phrases, self.scores.tolist())

    # Making

    @classmethod
    def mine(
        cls, texts: Texts, positives: Iterable[str], max_words: int = 6, min_count: int = 10, **options: Any
    ) -> PhrasePool:
        """Mine the phrases of a corpus, which need not fit in memory.

        Args:
            texts: a list, a data set or its column, a generator, or a function that gives one of them; read once, in
                order. Rows may be mappings with `text` and `category`.
            positives: names that hold known phrases of this kind of text, such as the categories of a taxonomy,
                brands, titles; errors among them do little harm.
            max_words: longest phrase; phrases have two words or more.
            min_count: an n-gram that occurs less often is no candidate.
            options: see `MiningOptions`: `min_score`, `distinct_words`, `rounds`, `trees`, `sample`, `seed`, `threads`,
                `work_dir`.

        Raises:
            ValueError: if there is no text, no frequent n-gram, no known phrase among them, or none reaches
                `min_score`.

        Example:
            >>> texts = ["a red tea pot and table lamp", "tea pot, table lamp"] * 3
            >>> pool = PhrasePool.mine(texts, ["Table Lamp"], min_count=3, trees=10)
            >>> "tea pot" in pool.phrases
            True
        """
        mined = mine_phrases(texts, positives, MiningOptions(max_words=max_words, min_count=min_count, **options))
        pool = cls(mined.phrases, mined.scores, mined.counts, mined.categories)
        pool.facts = mined.facts
        return pool

    @classmethod
    def from_autophrase(cls, path: str | Path, min_score: float = 0.5) -> PhrasePool:
        """Read a score file of AutoPhrase: lines "score<TAB>phrase", plain or .gz.

        Args:
            path: the file, such as `AutoPhrase.txt`.
            min_score: phrases below are left out.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if a line is no score and phrase (file and line are named), the file is damaged or no UTF-8, or
                no phrase is left.
        """
        phrases, scores = [], []
        for number, line in _numbered_lines(path):
            score, tab, phrase = line.rstrip("\n").partition("\t")
            try:
                value = float(score) if tab else float("nan")
            except ValueError:
                value = float("nan")
            if not 0.0 <= value <= 1.0 or not phrase.strip():
                raise ValueError(f"{path}, line {number}: not a score in [0, 1], a tab and a phrase: {line!r:.80}")
            if value >= min_score:
                phrases.append(phrase)
                scores.append(value)
        kept = [index for index, name in enumerate(normalise_all(phrases)) if name]
        if not kept:
            raise ValueError(f"{path}: no phrase with a score of at least {min_score}")
        return cls([phrases[index] for index in kept], [scores[index] for index in kept])

    def filter(self, min_score: float | None = None, max_size: int | None = None) -> PhrasePool:
        """Keep the best phrases.

        Args:
            min_score: lowest score kept.
            max_size: most phrases kept.

        Raises:
            ValueError: if nothing is left.

        >>> PhrasePool(["tea pot", "red tea"], [0.9, 0.2]).filter(min_score=0.5).phrases
        ['tea pot']
        """
        size = len(self) if min_score is None else int((self.scores >= min_score).sum())
        size = size if max_size is None else min(size, max_size)
        if size < 1:
            raise ValueError(f"no phrase is left of {len(self)} with min_score {min_score} and max_size {max_size}")
        categories = None if self.categories is None else self.categories[:size]
        pool = PhrasePool(self.phrases[:size], self.scores[:size], self.counts[:size], categories)
        pool.facts = self.facts
        return pool

    def top(self, n: int) -> PhrasePool:
        """The n best phrases, or all if there are fewer.

        Args:
            n: at least 1.
        """
        return self.filter(max_size=n)

    # Matching

    def match(self, texts: Sequence[str]) -> list[list[tuple[int, int, float]]]:
        """Find phrases in texts: (first character, one past the last, score).

        Where phrases overlap, the leftmost counts, and of those that begin together the longest.

        Args:
            texts: any number.
        """
        from rexbert_hf.phrases.matcher import PhraseMatcher

        if self._matcher is None:
            self._matcher = PhraseMatcher(self.phrases, self.scores)
        return self._matcher.match(texts)

    # Storage

    def to_dataset(self) -> Dataset:
        """The pool as a data set with the columns phrase, score, count and category, best first."""
        category = self.categories if self.categories is not None else [None] * len(self)
        columns = [pa.array(self.phrases, pa.string()), self.scores, self.counts, pa.array(category, pa.string())]
        return Dataset(pa.table(columns, names=["phrase", "score", "count", "category"]))

    def save(self, directory: str | Path, overlap: Overlap | None = None, **card: Any) -> None:
        """Write the pool as Parquet, in the layout of a data set on the Hub, with its card.

        Args:
            directory: made if needed; text that somebody wrote into its README stays.
            overlap: what `noun_phrase_overlap` measured, for the card.
            card: further fields of the card such as `license`, `language` and `sources`.

        Raises:
            FileExistsError: if its folder `data` holds Parquet files that are no pool's.
        """
        folder = Path(directory)
        check_place(folder)
        (folder / "data").mkdir(parents=True, exist_ok=True)
        staged, file = folder / "data" / ".pool.partial", folder / "data" / "train-00000-of-00001.parquet"
        pq.write_table(self.to_dataset().data.table, staged, write_page_checksum=True)
        staged.replace(file)
        for old in folder.glob(_DATA):
            if old != file:
                old.unlink()
        readme = folder / "README.md"
        there = readme.read_text(encoding="utf-8") if readme.is_file() else None
        write_whole(readme, merge_card(there, pool_card(self, overlap=overlap, **card)).encode("utf-8"))

    @classmethod
    def load(cls, directory_or_repo: str | Path, revision: str | None = None) -> PhrasePool:
        """Read a pool that `save` wrote or `push_to_hub` pushed.

        Args:
            directory_or_repo: a folder, or a data set on the Hub.
            revision: of the data set.

        Raises:
            FileNotFoundError: if there is no such folder or data set, or it holds no pool.
            ValueError: if a file is damaged, a column is missing or of another kind, or a score is not in [0, 1].
        """
        folder = resolve(directory_or_repo, revision, [_DATA], repo_type="dataset")
        files = sorted(folder.glob(_DATA))
        if not files:
            raise FileNotFoundError(f"{folder} has no {_DATA}: it holds no phrase pool")
        parts, columns = [_read(file) for file in files], {}
        for name in {name for part in parts for name in part}:
            unknown = 0 if name == "count" else None
            columns[name] = [value for part in parts for value in part.get(name, [unknown] * len(part["phrase"]))]
        categories = columns.get("category")
        known = categories is not None and any(category is not None for category in categories)
        try:
            return cls(columns["phrase"], columns["score"], columns.get("count"), categories if known else None)
        except (ValueError, OverflowError, TypeError) as error:
            raise ValueError(f"{folder / 'data'} holds no phrase pool ({error}): mine it again") from None

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, revision: str | None = None, **card: Any
    ) -> str:
        """Push the pool as a data set, with a card that shows its best phrases by category.

        Args:
            repo_id: "user/name"; made when missing.
            private: whether a new repository is private.
            revision: the branch to push to.
            card: `overlap`, and further fields of the card such as `license`, `language` and `sources`.

        Returns:
            The repository's address.
        """
        text = pool_card(self, repo_id=repo_id, **card)
        message = f"Push {self!r}"
        return push_dataset(
            self.to_dataset(), repo_id, card=text, private=private, revision=revision, commit_message=message
        )


def check_place(directory: str | Path) -> None:
    """Refuse a folder whose `data` holds Parquet files that are no pool's, which saving a pool there would replace.

    A damaged file under the name of a pool's is one: mining again is the way to mend it.

    Args:
        directory: where a pool is to be saved; it may be missing.

    Raises:
        FileExistsError: with the first such file.
    """
    for path in sorted(Path(directory).glob(_DATA)):
        try:
            is_pool = {"phrase", "score"} <= set(pq.read_schema(path).names)
        except (pa.ArrowException, OSError):
            is_pool = True
        if not is_pool or not _PART.fullmatch(path.name):
            raise FileExistsError(f"{path} is no file of a phrase pool: choose another output_dir, or move it")


def _numbered_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, of a text that may be compressed."""
    opened = gzip.open if Path(path).suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig") as file:
            yield from ((number, line) for number, line in enumerate(file, start=1) if line.strip())
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is damaged ({error}): copy or make it again") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error.reason}): store it as UTF-8") from None


_COLUMNS: dict[str, Callable[[pa.DataType], bool]] = {
    "phrase": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
    "score": lambda kind: pa.types.is_floating(kind) or pa.types.is_integer(kind),
    "count": pa.types.is_integer,
    "category": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind),
}


def _read(path: Path) -> dict[str, list[Any]]:
    """The columns of a pool that a file holds, each of its kind."""
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        names = [name for name in table.column_names if name in _COLUMNS]
        columns = {name: table.column(table.column_names.index(name)) for name in names}
        values = {name: column.to_pylist() for name, column in columns.items()}
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is damaged ({reason:.120}): mine the pool again, or copy it again") from None
    if missing := {"phrase", "score"} - set(names):
        raise ValueError(f"{path} has no column {', '.join(sorted(missing))}: it is no phrase pool")
    for name, column in columns.items():
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if not _COLUMNS[name](kind):
            raise ValueError(f"{path}: the column '{name}' is of type {kind!s:.60}: it is no phrase pool's")
        if name != "category" and column.null_count:
            raise ValueError(f"{path}: the column '{name}' has {column.null_count} empty rows: give each a value")
    return values


def _check(
    given: list[str], names: list[str], scores: np.ndarray, counts: np.ndarray, categories: Sequence[str | None] | None
) -> None:
    if not names:
        raise ValueError("the phrase pool is empty: give at least one phrase")
    lengths = {"scores": len(scores), "counts": len(counts)}
    lengths |= {} if categories is None else {"categories": len(categories)}
    for what, length in lengths.items():
        if length != len(names):
            raise ValueError(f"{len(names)} phrases with {length} {what}: one for each is needed")
    if "" in names:
        bad = names.index("")
        raise ValueError(f"phrase {bad} is {given[bad]!r}: it has no word")
    wrong = np.flatnonzero(~((scores >= 0.0) & (scores <= 1.0)))  # NaN is neither
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(f"the score of phrase {row} ({given[row]!r}) is {scores[row]}: scores are in [0, 1]")
