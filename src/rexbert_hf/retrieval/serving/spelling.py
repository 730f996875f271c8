"""Words of a query that the catalogue does not have, in the catalogue's own spelling.

One query in five on a shop's site holds a word that no product has and some product almost has (Home Depot: 397 of
2,209), most of them slips: "barreir", "rainbird" for "Rain Bird". The catalogue says how its words are written, so no
dictionary is needed, and a brand that it sells is never taken for a slip of an English word. A small catalogue lacks
many good words too: with a few thousand products, measure before it is switched on.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_WORD = re.compile(r"\w+")
_FILE = "words.json"

SHORTEST = 4
"""Letters of a word that is corrected; shorter ones have too many neighbours."""

LONGEST = 40
"""Longer ones are no words, and splitting them would take long."""

LONG = 6
"""Letters from which two edits are allowed instead of one."""

LEAST_PRODUCTS = 2
"""Products that must hold a word before another is replaced by it: a single one's may be a slip itself."""

LEAST_PART = 5
"""Products that must hold each half of a word that is split."""

_UNSPACED = "\u0e00"  # from here on most scripts put no spaces between words, so a run of letters is no word
_KEPT = 65_536


def load_rapidfuzz() -> Any:
    """The scan and the distance of rapidfuzz, or an error that says how to get it.

    Raises:
        ImportError: if it is not installed.
    """
    try:
        from rapidfuzz import process
        from rapidfuzz.distance import OSA
    except ImportError:
        raise ImportError("spelling=True needs rapidfuzz: pip install rexbert-hf[search]") from None
    return process.extract, OSA.distance


class Speller:
    """Replaces words that no product has by near words that some have.

    A word of four to 40 letters and no digit, in a script with spaces, is replaced by the word that takes fewest
    edits (a letter put in, left out, changed, or swapped with its neighbour; one edit, from six letters on two), and
    of several the one that most products hold, at least two. A missing space is one edit. Words without a near one
    stay, and so do words that any product has.

    Args:
        counts: products that hold each word, in lower case; words of letters, without digits.

    Example:
        >>> speller = Speller.of_texts(["Rain Bird sprinkler"] * 5 + ["Glacier Bay barrier"] * 2)
        >>> speller.correct("rainbird sprinkelr 5mm"), speller.correct("Barreir tape")
        ('rain bird sprinkler 5mm', 'barrier tape')
    """

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._extract, self._distance = load_rapidfuzz()
        self.counts = dict(counts)
        self._by_length: dict[int, list[str]] = defaultdict(list)
        for word, count in self.counts.items():
            if count >= LEAST_PRODUCTS:
                self._by_length[len(word)].append(word)
        self._known: dict[str, str] = {}

    @classmethod
    def of_texts(cls, texts: Iterable[str]) -> Speller:
        """A speller of a catalogue.

        Args:
            texts: of its products.
        """
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update({word for word in _WORD.findall(text.lower()) if _is_word(word)})
        return cls(counts)

    def correct(self, text: str) -> str:
        """The text; if a word of it is replaced, all of it in lower case.

        Args:
            text: a query.
        """
        lower = text.lower()
        corrected = _WORD.sub(lambda found: self.word(found[0]), lower)
        return text if corrected == lower else corrected

    def word(self, word: str) -> str:
        """The spelling of one word.

        Args:
            word: in lower case.
        """
        if word in self.counts or len(word) < SHORTEST or not _is_word(word):
            return word
        found = self._known.get(word)  # other threads may empty it at any moment
        if found is None:
            found = self._nearest(word)
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[word] = found
        return found

    def _nearest(self, word: str) -> str:
        most = 2 if len(word) >= LONG else 1
        found = [(edits, -count, parts) for edits, count, parts in self._splits(word)]
        for length in range(len(word) - most, len(word) + most + 1):
            near = self._extract(
                word,
                self._by_length.get(length, ()),
                scorer=self._distance,
                score_cutoff=most,
                limit=None,
                processor=None,
            )
            found += [(edits, -self.counts[other], other) for other, edits, _ in near]
        return min(found)[2] if found else word

    def _splits(self, word: str) -> Iterable[tuple[int, int, str]]:
        for place in range(2, len(word) - 1):
            count = min(self.counts.get(word[:place], 0), self.counts.get(word[place:], 0))
            if count >= LEAST_PART:
                yield 1, count, f"{word[:place]} {word[place:]}"

    def save(self, folder: Path) -> None:
        """Write `words.json`.

        Args:
            folder: one that is there.
        """
        (folder / _FILE).write_text(json.dumps(self.counts, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Speller | None:
        """Read what `save` wrote; None where nothing was.

        Args:
            folder: its folder.

        Raises:
            ValueError: if it is no map of words to numbers.
        """
        path = folder / _FILE
        if not path.is_file():
            return None
        counts = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(counts, dict) or not all(isinstance(count, int) for count in counts.values()):
            raise ValueError(f"{path} is no map of words to numbers")
        return cls(counts)


def _is_word(word: str) -> bool:
    return len(word) <= LONGEST and word.isalpha() and max(word) < _UNSPACED
