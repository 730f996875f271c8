"""Texts as words with tags: splitting, places of values, and back to values.

Words are runs of letters and digits, and single other characters, so that every value of the public data sets begins
and ends at a word ("Loafer,Burgundy,10 D US" has the words Loafer , Burgundy , 10 D US).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from rexbert_hf.evaluation.task_splits import Example

_WORD = re.compile(r"\w+|[^\w\s]")

Place = tuple[int, int]


def split_words(text: str) -> tuple[list[str], list[Place]]:
    """Words of a text, and first character and one past the last of each.

    Args:
        text: any.

    Example:
        >>> split_words("16GB, (new)")
        (['16GB', ',', '(', 'new', ')'], [(0, 4), (4, 5), (6, 7), (7, 10), (10, 11)])
    """
    places = [match.span() for match in _WORD.finditer(text)]
    return [text[start:end] for start, end in places], places


def words_of_place(places: Sequence[Place], start: int, end: int) -> Place | None:
    """First word and one past the last of characters start..end; None where a border lies within a word.

    Args:
        places: of the words.
        start: first character.
        end: one past the last.

    Example:
        >>> words_of_place([(0, 4), (5, 9)], 5, 9), words_of_place([(0, 4), (5, 9)], 5, 8)
        ((1, 2), None)
    """
    first = next((i for i, place in enumerate(places) if place[0] == start), None)
    last = next((i for i, place in enumerate(places) if place[1] == end), None)
    return None if first is None or last is None else (first, last + 1)


def place_values(
    text: str, values: Sequence[tuple[str, str]], places: Sequence[Place]
) -> tuple[list[tuple[int, int, str]], list[tuple[str, str]]]:
    """Where values stand in a text: the first free place of each, longer values first.

    Args:
        text: that says them.
        values: (attribute, value).
        places: of the words.

    Returns:
        Spans of words (first, one past the last, attribute) in order, and the values that have no place of their own:
        those within a word, or within another value.

    Example:
        >>> text = "Oak desk, oak"
        >>> place_values(text, [("type", "desk"), ("wood", "oak"), ("size", "de")], split_words(text)[1])
        ([(1, 2, 'type'), (3, 4, 'wood')], [('size', 'de')])
    """
    spans: list[tuple[int, int, str]] = []
    lost = []
    for name, value in sorted(values, key=lambda one: -len(one[1])):
        starts = (match.start() for match in re.finditer(f"(?={re.escape(value)})", text))
        found = (words_of_place(places, start, start + len(value)) for start in starts)
        free = (one for one in found if one and all(one[1] <= span[0] or one[0] >= span[1] for span in spans))
        place = next(free, None)
        if place is None:
            lost.append((name, value))
        else:
            spans.append((*place, name))
    return sorted(spans), lost


def borrowed_tags(examples: Sequence[Example], train: Sequence[Example], rng: np.random.Generator) -> list[list[str]]:
    """Tags of drawn training texts, cut or filled with "O" to the length of each example: what chance gives.

    Args:
        examples: to guess for, their texts split into words.
        train: to borrow from.
        rng: draws.
    """
    found: list[list[str]] = []
    for example in examples:
        tags: Any = train[int(rng.integers(len(train)))].row.label
        tags = tags[: len(example.row.text)]
        found.append([*tags, *["O"] * (len(example.row.text) - len(tags))])
    return found
