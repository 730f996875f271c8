"""What is decided about a document by itself: classifier, language, quality, and which of its lines stay.

The same object filters here, through `datasets` and in datatrove:

    dataset.filter(judge.keeps, batched=True, input_columns=["text"])
    dataset.map(judge.annotate, batched=True)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..settings.ranges import check_least
from .fasttext_model import FastTextClassifier
from .language import LanguageSettings, language_reasons
from .near_duplicates import NearDuplicateSettings
from .quality import QualitySettings, quality_reasons


@dataclass(frozen=True)
class FilterSettings:
    """What of a crawl is kept.

    Attributes:
        threshold: probability that a document must have; that of the classifier if None.
        level: "document" keeps or rejects whole documents; "line" keeps the lines that are in the domain, and
            documents that have any; "both" first the one, then the other.
        line_threshold: probability that a line must have; `threshold` if None.
        min_line_words: shorter lines go with the longer line before them, or after where there is none before.
        language: languages that are kept.
        quality: limits of a document.
        exact_duplicates: drop documents whose text is an earlier one's but for case and spaces.
        near_duplicates: what repeats an earlier document nearly.
        rows_per_shard: documents that are worked on, written and done again as one.

    Raises:
        ValueError: for a threshold outside [0, 1] or a shard without rows.
    """

    threshold: float | None = None
    level: Literal["document", "line", "both"] = "document"
    line_threshold: float | None = None
    min_line_words: int = 8
    language: LanguageSettings = field(default_factory=LanguageSettings)
    quality: QualitySettings = field(default_factory=QualitySettings)
    exact_duplicates: bool = True
    near_duplicates: NearDuplicateSettings = field(default_factory=NearDuplicateSettings)
    rows_per_shard: int = 5_000

    def __post_init__(self) -> None:
        for name in ("threshold", "line_threshold"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} is a probability in [0, 1], got {value}")
        if self.rows_per_shard < 1:
            raise ValueError(f"rows_per_shard is at least 1, got {self.rows_per_shard}")
        check_least(self, min_line_words=0)


@dataclass(frozen=True)
class Verdicts:
    """About N documents.

    Attributes:
        reasons: why each is rejected; "" for those that stay.
        scores: of the classifier, float32 `[N]`; NaN without one.
        texts: what stays of each: the text as it was, or its lines in the domain.
        lines: lines that stayed and lines that went, of the documents whose lines were looked at.
    """

    reasons: list[str]
    scores: np.ndarray
    texts: list[str]
    lines: tuple[int, int] = (0, 0)


class Judge:
    """Applies the settings to documents, a batch at a time.

    Args:
        settings: what is kept.
        classifier: of the domain, or the folder it is in; None judges language and quality alone.

    Example:
        >>> judge = Judge(FilterSettings(), None)
        >>> judge(["A steel mug that holds half a litre.", "a b"]).reasons
        ['', 'short']
    """

    def __init__(self, settings: FilterSettings, classifier: FastTextClassifier | str | Path | None) -> None:
        if classifier is not None and not isinstance(classifier, FastTextClassifier):
            classifier = FastTextClassifier.load(classifier)
        self.settings, self.classifier = settings, classifier
        default = classifier.threshold if classifier is not None else 0.0
        self.threshold = default if settings.threshold is None else settings.threshold
        self.line_threshold = self.threshold if settings.line_threshold is None else settings.line_threshold

    def __call__(self, texts: Sequence[str]) -> Verdicts:
        """Judge documents.

        The classifier comes first, as it is the cheapest rule and leaves the fewest; a document's first reason counts.
        """
        kept = list(texts)
        reasons = [""] * len(kept)
        scores = np.full(len(kept), np.nan, dtype=np.float32)
        if self.classifier is not None:
            scores = self.classifier.scores(kept)
            if self.settings.level != "line":
                low = (scores < np.float32(self.threshold)).tolist()
                reasons = ["not_in_domain" if out else "" for out in low]
        for rule in (self._language, self._quality):
            open_ = [i for i, reason in enumerate(reasons) if not reason]
            for i, reason in zip(open_, rule([kept[i] for i in open_]), strict=True):
                reasons[i] = reason
        lines = (0, 0)
        if self.settings.level != "document" and self.classifier is not None:
            lines = self._lines(kept, reasons)
        return Verdicts(reasons, scores, kept, lines)

    def keeps(self, texts: Sequence[str]) -> list[bool]:
        """Whether each document stays, for `datasets.filter`."""
        return [not reason for reason in self(texts).reasons]

    def annotate(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """`text`, `reason` and `score` of a batch, for `datasets.map`."""
        verdicts = self(batch["text"])
        return {"text": verdicts.texts, "reason": verdicts.reasons, "score": verdicts.scores.tolist()}

    def _language(self, texts: list[str]) -> list[str]:
        return language_reasons(texts, self.settings.language)

    def _quality(self, texts: list[str]) -> list[str]:
        return quality_reasons(texts, self.settings.quality)

    def _lines(self, texts: list[str], reasons: list[str]) -> tuple[int, int]:
        """Cut documents to their lines in the domain, in place."""
        chosen = [i for i, reason in enumerate(reasons) if not reason]
        parts, stayed, went = [texts[i].split("\n") for i in chosen], 0, 0
        assert self.classifier is not None
        flat, least = [line for lines in parts for line in lines], self.settings.min_line_words
        scores = np.full(len(flat), np.nan, dtype=np.float32)
        scored = [i for i, line in enumerate(flat) if len(line.split(None, least)) >= least]
        scores[scored] = self.classifier.scores([flat[i] for i in scored])
        at = 0
        for i, lines in zip(chosen, parts, strict=True):
            own = lent(scores[at : at + len(lines)])
            at += len(lines)
            if np.isnan(own).all():  # no line is long enough to tell: the document speaks for its lines
                own = np.full(len(lines), self.classifier.scores([texts[i]])[0])
            keep = own >= np.float32(self.line_threshold)
            filled = np.array([bool(line.strip()) for line in lines])
            stayed, went = stayed + int((keep & filled).sum()), went + int((~keep & filled).sum())
            if not (keep & filled).any():
                reasons[i] = "no_line_in_domain"
            elif not keep.all():
                texts[i] = "\n".join(line for line, stays in zip(lines, keep, strict=True) if stays).strip("\n")
        return stayed, went


def lent(scores: np.ndarray) -> np.ndarray:
    """Give each line without a score that of the line before, or of the first one with a score.

    Args:
        scores: NaN where a line has none.

    Example:
        >>> lent(np.array([np.nan, 0.2, np.nan, 0.9])).tolist()
        [0.2, 0.2, 0.2, 0.9]
    """
    known = np.flatnonzero(~np.isnan(scores))
    if not len(known):
        return scores
    place = np.searchsorted(known, np.arange(len(scores)), side="right") - 1
    return scores[known[np.maximum(place, 0)]]
