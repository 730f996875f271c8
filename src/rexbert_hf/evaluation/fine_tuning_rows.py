"""Rows that a fine-tuned head reads, and what is wrong with them, said before anything is trained.

One row type for all heads keeps readers of public formats short; which field means what is the head's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

HeadName = Literal["sequence", "match", "regression", "multi_label", "token", "span"]
"""What is predicted: a class, whether it is the second of two, a number, a set of classes, a tag for each word, an
answer in a context."""


class Row(NamedTuple):
    """One example.

    Attributes:
        text: the text; its words for the head "token"; the question for "span".
        pair: a second text; the context for "span".
        label: the class name ("sequence", "match"), the number ("regression"), the class names ("multi_label"), a tag
            for each word ("token"), the first character of the answer in `pair` and one past its last, or None where
            the context does not answer ("span"). Prediction does not read it.
        where: file and line, for messages.
    """

    text: str | Sequence[str]
    pair: str | None = None
    label: Any = None
    where: str | None = None


def check_rows(
    head: HeadName,
    rows: Sequence[Row],
    labels: Sequence[str],
    name: str,
    several: bool = True,
    source: str | None = None,
) -> Sequence[Row]:
    """Return the rows if a head can be trained or tested on them.

    Args:
        head: which one.
        rows: of one split.
        labels: classes or tags that exist.
        name: of the split, for messages.
        several: more than one class must occur: the figures of a one-class test set mean nothing.
        source: file, folder or data set that the rows come from, for messages.

    Raises:
        ValueError: if there is no row, a label is outside the set, or a row does not fit its label.

    Example:
        >>> check_rows("sequence", [Row("red mug", label="mug"), Row("oak desk", label="sofa")], ["mug", "desk"], "dev")
        Traceback (most recent call last):
        ...
        ValueError: dev row 1: the label 'sofa' is outside the set (mug, desk)
    """
    if head not in get_args(HeadName):
        raise ValueError(f"no head '{head}': choose one of {', '.join(get_args(HeadName))}")
    place = "" if source is None else f"{source}: "
    if not len(rows):
        raise ValueError(f"{place}the {name} split is empty: give it rows")
    known, check = set(labels), _CHECKS[head]
    for number, row in enumerate(rows):
        problem = check(row, known, labels)
        if problem:
            raise ValueError(f"{row.where or f'{place}{name} row {number}'}: {problem}")
    if several and head != "span":
        _check_several(head, rows, name, place)
    return rows


def _check_several(head: HeadName, rows: Sequence[Row], name: str, place: str) -> None:
    seen = {tuple(sorted(row.label)) if head == "multi_label" else row.label for row in rows if head != "token"}
    seen |= {tag for row in rows if head == "token" for tag in row.label}
    if len(seen) < 2:
        raise ValueError(
            f"{place}all {len(rows)} rows of the {name} split have the label {next(iter(seen))!r}: give it others"
        )


def _outside(label: Any, known: set[str], labels: Sequence[str]) -> str | None:
    if label in known:
        return None
    shown = ", ".join([*labels[:8], *(["..."] if len(labels) > 8 else [])])
    return f"the label {label!r} is outside the set ({shown})"


def _check_class(row: Row, known: set[str], labels: Sequence[str]) -> str | None:
    return _check_text(row) or _outside(row.label, known, labels)


def _check_number(row: Row, known: set[str], labels: Sequence[str]) -> str | None:
    is_number = isinstance(row.label, int | float | np.number) and np.isfinite(row.label)
    return _check_text(row) or (None if is_number else f"the label {row.label!r} is no finite number")


def _check_set(row: Row, known: set[str], labels: Sequence[str]) -> str | None:
    if isinstance(row.label, str) or not isinstance(row.label, Collection):
        return f"the label {row.label!r} is no collection of classes"
    return _check_text(row) or next(filter(None, (_outside(one, known, labels) for one in row.label)), None)


def _check_text(row: Row) -> str | None:
    fits = isinstance(row.text, str) and isinstance(row.pair, str | None)
    return None if fits else "text and pair must be strings"


def _check_tags(row: Row, known: set[str], labels: Sequence[str]) -> str | None:
    if isinstance(row.text, str) or row.label is None or len(row.text) != len(row.label):
        count = "one text" if isinstance(row.text, str) else f"{len(row.text)} words"
        return f"{count} but {0 if row.label is None else len(row.label)} tags: give each word one"
    if not all(isinstance(word, str) and word.strip() for word in row.text):
        return "a word is empty"
    return next(filter(None, (_outside(tag, known, labels) for tag in row.label)), None)


def _check_answer(row: Row, known: set[str], labels: Sequence[str]) -> str | None:
    if not isinstance(row.text, str) or not isinstance(row.pair, str):
        return "a question and its context must be strings"
    if row.label is None:
        return None
    start, end = row.label
    if not 0 <= start < end <= len(row.pair):
        return f"the answer {start}..{end} does not lie in the context of {len(row.pair)} characters"
    return None


_CHECKS: dict[str, Callable[[Row, set[str], Sequence[str]], str | None]] = {
    "sequence": _check_class,
    "match": _check_class,
    "regression": _check_number,
    "multi_label": _check_set,
    "token": _check_tags,
    "span": _check_answer,
}


def labels_of(head: HeadName, rows: Sequence[Row]) -> list[str]:
    """Classes or tags that occur, sorted; none for numbers and answers.

    Args:
        head: which one.
        rows: training rows.

    Example:
        >>> labels_of("multi_label", [Row("a", label=["x", "y"]), Row("b", label=["x"])])
        ['x', 'y']
    """
    if head in ("regression", "span"):
        return []
    if head in ("sequence", "match"):
        return sorted({row.label for row in rows if row.label is not None})
    return sorted({one for row in rows for one in (row.label or ())})
