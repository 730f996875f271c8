"""Strict entity spans: from tags to spans, and precision, recall and F1 over whole spans.

Strict means that a span counts when its start, its end and its type are right, and that tags which break their scheme
make no span (an I without a B, a B without its E in IOBES). That is seqeval's strict mode; conlleval's repairs, which
turn broken tags into spans, would credit a model for sequences that nobody could have annotated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

Span = tuple[int, int, str]
"""First token, one past the last, type ("" where tags carry none)."""

SCHEMES = ("BIO", "IOB2", "IOBES", "BILOU")
"""BIO is another name of IOB2; BILOU says L and U where IOBES says E and S."""

_AS_IOBES = {"L": "E", "U": "S"}
_PREFIXES = {"IOB2": "BIO", "IOBES": "BIOES", "BILOU": "BIOLU"}


def spans_of_tags(tags: Sequence[str], scheme: str = "IOB2") -> list[Span]:
    """The spans of one sequence of tags, in order.

    Args:
        tags: as "B-brand", "I-brand", "O"; or bare "B", "I", "O" where there is one type.
        scheme: one of `SCHEMES`.

    Raises:
        ValueError: if a tag is none of the scheme's, with its place.

    Example:
        >>> spans_of_tags(["B", "I", "O", "I", "B"])
        [(0, 2, ''), (4, 5, '')]
        >>> spans_of_tags(["B-size", "I-size", "S-unit", "B-size", "E-size"], "IOBES")
        [(2, 3, 'unit'), (3, 5, 'size')]
    """
    parsed = _parse(tags, scheme)
    closed = scheme in ("IOBES", "BILOU")
    spans, i = [], 0
    while i < len(parsed):
        prefix, kind = parsed[i]
        start, i = i, i + 1
        if prefix == "S":
            spans.append((start, i, kind))
        if prefix != "B":
            continue
        while i < len(parsed) and parsed[i] == ("I", kind):
            i += 1
        ends = i < len(parsed) and parsed[i] == ("E", kind)
        i += ends
        if ends or not closed:
            spans.append((start, i, kind))
    return spans


def _parse(tags: Sequence[str], scheme: str) -> list[tuple[str, str]]:
    """Prefix and type of each tag, in the letters of IOBES."""
    if scheme not in SCHEMES:
        raise ValueError(f"no tagging scheme {scheme!r}: use one of {', '.join(SCHEMES)}")
    allowed = _PREFIXES["IOB2" if scheme == "BIO" else scheme]
    parsed = []
    for i, tag in enumerate(tags):
        prefix, dash, kind = tag[:1], tag[1:2], tag[2:]
        if prefix not in allowed or not prefix or dash not in ("", "-") or (dash and not kind):
            raise ValueError(f"tag {i} is {tag!r}: {scheme} has {', '.join(allowed)}, alone or as B-type")
        parsed.append((_AS_IOBES.get(prefix, prefix) if scheme == "BILOU" else prefix, kind))
    return parsed


def tags_of_spans(spans: Iterable[Span], length: int) -> list[str]:
    """IOB2 tags of a sequence with these spans.

    Args:
        spans: as `spans_of_tags` gives them; an empty type makes bare "B" and "I".
        length: tokens of the sequence.

    Raises:
        ValueError: if a span is empty, lies outside the sequence or overlaps another.

    Example:
        >>> tags_of_spans([(1, 3, "brand")], 4)
        ['O', 'B-brand', 'I-brand', 'O']
    """
    tags = ["O"] * length
    for start, end, kind in spans:
        if not 0 <= start < end <= length:
            raise ValueError(f"span {start}:{end} does not fit a sequence of {length} tokens")
        if tags[start:end] != ["O"] * (end - start):
            raise ValueError(f"span {start}:{end} overlaps another one: tags can only say one of them")
        suffix = f"-{kind}" if kind else ""
        tags[start:end] = [f"B{suffix}", *[f"I{suffix}"] * (end - start - 1)]
    return tags


def span_counts(gold: Sequence[Iterable[Span]], predicted: Sequence[Iterable[Span]]) -> np.ndarray:
    """Right, predicted and gold spans of each sequence, int64 `[n, 3]`: what F1 of any resample follows from.

    Spans may be anything hashable (`(attribute, value)` for values without places); repetitions within a sequence
    count once.

    Args:
        gold: spans of each sequence.
        predicted: the same, predicted.

    Raises:
        ValueError: if the numbers of sequences differ.

    Example:
        >>> span_counts([[(0, 2, "")], []], [[(0, 2, ""), (3, 4, "")], []]).tolist()
        [[1, 2, 1], [0, 0, 0]]
    """
    if len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} gold sequences but {len(predicted)} predicted: give one each")
    counts = np.zeros((len(gold), 3), dtype=np.int64)
    for row, (true, found) in enumerate(zip(gold, predicted, strict=True)):
        true, found = set(true), set(found)
        counts[row] = len(true & found), len(found), len(true)
    return counts


@dataclass(frozen=True)
class Rates:
    """Precision, recall and F1; scalars or arrays of one shape."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def precision_recall_f1(sums: np.ndarray) -> Rates:
    """Precision, recall and F1 from sums of right, predicted and gold; 0 where there is nothing to divide by.

    Args:
        sums: `[..., 3]`, such as `span_counts(...).sum(axis=0)`, or one row a resample.

    Example:
        >>> rates = precision_recall_f1(np.array([1, 2, 4]))
        >>> float(rates.precision), float(rates.recall), round(float(rates.f1), 6)
        (0.5, 0.25, 0.333333)
    """
    right, predicted, gold = np.moveaxis(np.asarray(sums, dtype=np.float64), -1, 0)
    return Rates(_share(right, predicted), _share(right, gold), _share(2 * right, predicted + gold))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
