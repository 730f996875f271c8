"""What a guide is: a callable that marks spans of a text worth predicting, once, at tokenise time.

Guided MLM is this project's own definition (RexBERT names it but its definition is not public): spans with scores
raise the masking probability of their tokens. A guide sees text only; whoever tokenises maps characters to tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

Span: TypeAlias = tuple[int, int, float, str]
"""(first character, one past the last character, score in [0, 1], kind: a name from `data.rows.SPAN_KINDS`)."""


@runtime_checkable
class Guide(Protocol):
    """Marks spans in texts. Regular expressions, lexicons and a phrase pool all have this shape.

    A guide is picklable (tokenising runs in worker processes) and pure: equal fingerprints mean equal spans for equal
    texts, so that a tokenised data set can be found again by its guides' fingerprints.
    """

    @property
    def fingerprint(self) -> str:
        """A short text that changes whenever the guide would mark anything differently."""
        ...

    def __call__(self, texts: Sequence[str]) -> list[list[Span]]:
        """Mark each text; spans sorted by start, then end."""
        ...


def fingerprint_of(*parts: object) -> str:
    """Hash what decides a guide's behaviour.

    >>> fingerprint_of("regex", 1) == fingerprint_of("regex", 1), len(fingerprint_of("x"))
    (True, 16)
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(part).encode("utf-8"))
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def resolve_overlaps(spans: Iterable[Span], priority: Sequence[str]) -> list[Span]:
    """Keep spans that do not overlap: kinds earlier in `priority` win; within a kind the first, then the longest.

    Args:
        spans: any order.
        priority: kinds, strongest first; every span's kind must be listed.

    >>> spans = [(0, 14, 1.0, "dimension"), (10, 14, 1.0, "size"), (20, 24, 1.0, "size")]
    >>> resolve_overlaps(spans, ["dimension", "size"])
    [(0, 14, 1.0, 'dimension'), (20, 24, 1.0, 'size')]
    """
    kept: list[Span] = []
    by_kind: dict[str, list[Span]] = {}
    for span in spans:
        by_kind.setdefault(span[3], []).append(span)
    for kind in sorted(by_kind, key=list(priority).index):
        kept = _merge_in(kept, sorted(by_kind[kind], key=lambda span: (span[0], -span[1])))
    return kept


def _merge_in(kept: list[Span], new: list[Span]) -> list[Span]:
    """Add sorted spans to sorted disjoint ones where they fit; linear in both."""
    merged: list[Span] = []
    position = 0
    for span in new:
        while position < len(kept) and kept[position][0] < span[1]:
            merged.append(kept[position])
            position += 1
        if not merged or merged[-1][1] <= span[0]:
            merged.append(span)
    return merged + kept[position:]


class GuideSet:
    """Several guides as one; their spans may overlap each other, as rows allow.

    >>> class Whole:
    ...     fingerprint = "whole"
    ...     def __call__(self, texts):
    ...         return [[(0, len(text), 1.0, "phrase")] for text in texts]
    >>> GuideSet([Whole(), Whole()])(["lamp"])
    [[(0, 4, 1.0, 'phrase'), (0, 4, 1.0, 'phrase')]]
    """

    def __init__(self, guides: Sequence[Guide]) -> None:
        self.guides = tuple(guides)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all guides, in order."""
        return fingerprint_of("set", *(guide.fingerprint for guide in self.guides))

    def __call__(self, texts: Sequence[str]) -> list[list[Span]]:
        """Mark each text with every guide; spans sorted by start, then end."""
        spans: list[list[Span]] = [[] for _ in texts]
        for guide in self.guides:
            for mine, more in zip(spans, guide(texts), strict=True):
                mine.extend(more)
        return [sorted(found, key=lambda span: span[:2]) for found in spans]
