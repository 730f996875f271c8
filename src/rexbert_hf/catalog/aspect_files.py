"""Aspects of reviews: tagged sentences and (sentence, term, polarity), in the JSON form that SemEval 2014 is shared in.

Both files are one JSON object, id -> entry. Nothing is repaired: a sentence with too few tags, a tag or polarity that
is outside its set, or a term that its sentence lacks is an error that names the entry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .records import SENTIMENTS
from .whole_files import json_of, text_of

ASPECT_TAGS = ("B", "I", "O")
"""First word of an aspect, a further one, none."""


class TaggedSentence(NamedTuple):
    """Words with one tag each."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    where: str


class AspectSentiment(NamedTuple):
    """What a sentence says of one of its aspects."""

    sentence: str
    term: str
    polarity: str
    where: str


def tagged_sentence(words: Sequence[str], tags: Sequence[str], where: str) -> TaggedSentence:
    """Check a sentence and its tags.

    Args:
        words: of the sentence.
        tags: one each, of `ASPECT_TAGS`.
        where: file and row, for messages.

    Raises:
        ValueError: if there is no word, a tag is missing or unknown, an I follows no B or I, or a word is empty.

    Example:
        >>> tagged_sentence(["Nice", "keys"], ["O", "A"], "row 3")
        Traceback (most recent call last):
        ...
        ValueError: row 3: word 1 has the tag 'A', which is outside B, I, O
    """
    if not _are_texts(words) or not _are_texts(tags):
        raise ValueError(f"{where}: words and tags are lists of texts; got {words!r:.60} and {tags!r:.60}")
    if len(words) != len(tags) or not words:
        raise ValueError(f"{where}: {len(words)} words but {len(tags)} tags: give each word one")
    for number, (word, tag) in enumerate(zip(words, tags, strict=True)):
        if tag not in ASPECT_TAGS:
            raise ValueError(f"{where}: word {number} has the tag {tag!r}, which is outside {', '.join(ASPECT_TAGS)}")
        if tag == "I" and (not number or tags[number - 1] == "O"):  # another scheme, whose aspects would be lost
            raise ValueError(f"{where}: word {number} has the tag 'I' after no B or I: an aspect begins with B")
        if not word.strip():
            raise ValueError(f"{where}: word {number} is empty")
    return TaggedSentence(tuple(words), tuple(tags), where)


def aspect_sentiment(sentence: str, term: str, polarity: str, where: str) -> AspectSentiment:
    """Check a term and its polarity.

    Args:
        sentence: that holds the term.
        term: the aspect.
        polarity: one of `SENTIMENTS`.
        where: file and row, for messages.

    Raises:
        ValueError: if the polarity is unknown or the sentence lacks the term.

    Example:
        >>> aspect_sentiment("Nice keys.", "screen", "positive", "row 3")
        Traceback (most recent call last):
        ...
        ValueError: row 3: the sentence does not hold the term 'screen'
    """
    if not _are_texts([sentence, term, polarity]):
        raise ValueError(f"{where}: sentence, term and polarity are texts; got {[sentence, term, polarity]!r:.120}")
    if polarity not in SENTIMENTS:
        raise ValueError(f"{where}: the polarity {polarity!r} is outside {', '.join(SENTIMENTS)}")
    if not term.strip() or term.lower() not in sentence.lower():
        raise ValueError(f"{where}: the sentence does not hold the term {term!r}")
    return AspectSentiment(sentence, term, polarity, where)


def _are_texts(values: Any) -> bool:
    return isinstance(values, list | tuple) and all(isinstance(value, str) for value in values)


def read_tagged_sentences(path: str | Path) -> list[TaggedSentence]:
    """Read aspect extraction: entries `{"sentence": [words], "label": [tags]}`.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it has another form, or an entry is wrong, with its id.
    """
    entries = _entries(path, ("sentence", "label"))
    return [tagged_sentence(entry["sentence"], entry["label"], where) for where, entry in entries]


def read_aspect_sentiments(path: str | Path) -> list[AspectSentiment]:
    """Read aspect sentiment: entries `{"sentence": text, "term": text, "polarity": text}`.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it has another form, or an entry is wrong, with its id.
    """
    entries = _entries(path, ("sentence", "term", "polarity"))
    return [aspect_sentiment(entry["sentence"], entry["term"], entry["polarity"], where) for where, entry in entries]


def _entries(path: str | Path, fields: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    content = json_of(text_of(path), str(path))
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: holds a {type(content).__name__}, not an object of entries by id")
    for name, entry in content.items():
        missing = [field for field in fields if not isinstance(entry, Mapping) or field not in entry]
        if missing:
            raise ValueError(f"{path} entry {name}: no {', '.join(missing)}")
        yield f"{path} entry {name}", entry
