"""Distil labels into a fastText classifier: split, balance, train, choose the threshold, measure.

One decision worth knowing: the three parts are those of the catalog's split, by the SHA-1 of the normalised text. So
texts that differ in case or spaces are never on two sides, and a document stays where it is when others are labelled.
Documents for choosing and measuring that nearly repeat a training document are left out.
The threshold is chosen on the development part; the figures of the card are those of the test part, read once.
RexBERT, "fastText distillation"; the paper's settings are not public, these are ours.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..catalog.split import text_digests
from ..settings.ranges import check_above_zero, check_least
from .classifier_hub import classifier_card
from .document_files import read_parquet
from .documents import Document
from .fasttext_model import METADATA, FastTextClassifier
from .fasttext_train import FastTextOptions
from .labels import Label, read_labels
from .leaks import near_copies
from .normalise import Normaliser, normalise_texts
from .stages import REPORT, StageReport, begin, files_key, stage_key, write_json
from .threshold_plot import draw_sweep
from .thresholds import Sweep, choose, sweep
from .vertical import Vertical

logger = logging.getLogger(__name__)

SWEEP, PLOT, MISTAKES = "sweep.json", "thresholds.png", "mistakes.jsonl"
PARTS = ("train", "dev", "test")
_SHOWN_MISTAKES, _SHOWN_CHARS = 100, 500


@dataclass(frozen=True)
class DistilSettings:
    """How labels become a classifier.

    Attributes:
        word_ngrams: 1 for words alone, which serves sources best that nobody labelled; 2 for pairs of words too.
        buckets: rows for pairs of words.
        min_count: words of fewer documents are known by their pairs only.
        strength: inverse of the penalty on weights: higher follows the labels more closely.
        digits: "keep", or "shape" to make every digit 0 for the classifier.
        max_words: of longer documents the classifier sees the first so many words.
        dev_share: of the documents, for choosing the threshold.
        test_share: of the documents, for measuring.
        balance: "classes" gives both sides the same weight, "domains" the domains of a side too, "none" weighs every
            document the same.
        max_weight: of a document, as a multiple of the lightest one's.
        threshold_rule: "f1" for the best F1, "precision" for the lowest threshold that reaches `target_precision`.
        target_precision: for that rule.
        min_confidence: labels of lower confidence are left out.
        min_documents: so many on either side are needed, in each part one at least.
        seed: of the bootstrap intervals.

    Raises:
        ValueError: for a share, count or confidence out of range.
    """

    word_ngrams: int = 1
    buckets: int = 200_000
    min_count: int = 2
    strength: float = 300.0
    digits: Literal["keep", "shape"] = "keep"
    max_words: int = 1000
    dev_share: float = 0.15
    test_share: float = 0.15
    balance: Literal["none", "classes", "domains"] = "classes"
    max_weight: float = 20.0
    threshold_rule: Literal["f1", "precision"] = "f1"
    target_precision: float = 0.9
    min_confidence: float = 0.0
    min_documents: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.dev_share, self.test_share) <= 0 or self.dev_share + self.test_share >= 1:
            raise ValueError(
                f"dev_share and test_share are above 0 and below 1 in sum: {self.dev_share}, {self.test_share}"
            )
        for name in ("word_ngrams", "buckets", "min_count", "max_weight", "min_documents"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, got {getattr(self, name)}")
        if self.strength <= 0:
            raise ValueError(f"strength is above 0, got {self.strength}")
        if not 0 < self.target_precision <= 1 or not 0 <= self.min_confidence <= 1:
            raise ValueError("target_precision and min_confidence are shares in [0, 1]")
        check_least(self, max_words=1)
        check_above_zero(self, "strength")

    @property
    def options(self) -> FastTextOptions:
        """How the model is trained."""
        names = ("word_ngrams", "buckets", "min_count", "strength")
        return FastTextOptions(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class _Labelled:
    """Documents with their side, domain and part; columns of equal length."""

    ids: list[str]
    texts: list[str]
    domains: list[str]
    inside: np.ndarray
    parts: np.ndarray
    labellers: list[str]

    def part(self, name: str) -> np.ndarray:
        return np.flatnonzero(self.parts == PARTS.index(name))


def distil(
    settings: DistilSettings,
    vertical: Vertical,
    documents_path: str | Path,
    labels_path: str | Path,
    output: str | Path,
) -> StageReport:
    """Train a classifier on labelled documents; `FastTextClassifier.load(output)` reads it.

    Beside the classifier the folder gets `sweep.json`, a plot, the mistakes on the test part and `report.json`, whose
    `details` hold the figures.

    Args:
        settings: how.
        vertical: which labels count as in-domain.
        documents_path: Parquet of the labelled documents.
        labels_path: `labels.jsonl`.
        output: the stage's folder. A finished one made from the same input is not made again.

    Raises:
        ImportError: without fastText.
        FileNotFoundError: if an input is missing.
        ValueError: if labels are on one side only, documents are too few, or no threshold reaches the target.
    """
    output, started = Path(output), time.monotonic()
    key = stage_key("distil", settings, vertical, files_key([Path(documents_path), Path(labels_path)]))
    if (done := begin(output, key)) is not None and _loads(output):
        return done
    report = StageReport("distil", key)
    data = _labelled(settings, vertical, Path(documents_path), Path(labels_path), report)
    _check(data, settings, vertical)
    rows = data.part("train")
    groups = [(bool(data.inside[i]), data.domains[i] if settings.balance == "domains" else "") for i in rows]
    classifier = FastTextClassifier.train(
        [data.texts[i] for i in rows],
        ["in" if data.inside[i] else "out" for i in rows],
        ["in"],
        Normaliser(settings.digits, settings.max_words),
        settings.options,
        None if settings.balance == "none" else balance_weights(groups, settings.max_weight),
    )
    found = {part: _sweep(classifier, data, part) for part in ("dev", "test")}
    index = choose(found["dev"], settings.threshold_rule, settings.target_precision)
    classifier.threshold = float(found["dev"].thresholds[index])
    figures = {part: found[part].at(index, settings.seed) for part in ("dev", "test")}
    classifier.facts.update(_facts(settings, vertical, data, figures))
    report.written = len(data.texts)
    report.details.update(figures, threshold=classifier.threshold, documents=classifier.facts["documents"])
    model = _write(classifier, data, found, output)
    report.seconds = time.monotonic() - started
    report.save(output, [METADATA, model.name, SWEEP, MISTAKES])
    logger.info("classifier: F1 %.3f on test, threshold %.2f", figures["test"]["f1"], classifier.threshold)
    return report


def _labelled(
    settings: DistilSettings, vertical: Vertical, documents: Path, labels: Path, report: StageReport
) -> _Labelled:
    by_id = {document.id: document for document in read_parquet(documents)}
    found: list[tuple[Label, Document]] = []
    seen: set[str] = set()
    for label in read_labels(labels):
        report.read += 1
        document = by_id.get(label.id)
        if document is None:
            report.drop("no_document")
        elif label.id in seen:
            report.drop("repeated_id")
        elif label.label not in vertical.labels:
            report.drop("unknown_label")
        elif label.confidence < settings.min_confidence:
            report.drop("low_confidence")
        else:
            seen.add(label.id)
            found.append((label, document))
    texts = [document.text for _, document in found]
    digests = text_digests(texts)
    wordless = np.array([not line.strip() for line in normalise_texts(texts)], dtype=bool)
    _, first = np.unique(digests, axis=0, return_index=True)
    kept = np.zeros(len(texts), dtype=bool)
    kept[first] = True
    report.drop("repeated_text", int((~kept).sum()))
    report.drop("no_words", int((kept & wordless).sum()))
    for reason in ("repeated_text", "no_words"):
        if not report.reasons[reason]:
            del report.reasons[reason]
    rows = np.flatnonzero(kept & ~wordless)
    position = (digests[rows, 0] >> np.uint64(11)) / float(1 << 53)
    parts = np.zeros(len(rows), dtype=np.int8)
    parts[position >= 1.0 - settings.dev_share] = 1
    parts[position < settings.test_share] = 2
    held = np.flatnonzero(parts)
    leaked = held[near_copies([texts[i] for i in rows[held]], [[texts[i] for i in rows[parts == 0]]])]
    if len(leaked):
        report.drop("near_copy_of_training", len(leaked))
        rows, parts = np.delete(rows, leaked), np.delete(parts, leaked)
    chosen = [found[i] for i in rows]
    return _Labelled(
        [label.id for label, _ in chosen],
        [document.text for _, document in chosen],
        [document.domain for _, document in chosen],
        np.array([vertical.is_in_domain(label.label) for label, _ in chosen], dtype=bool),
        parts,
        sorted({label.labeller for label, _ in found}),
    )


def _check(data: _Labelled, settings: DistilSettings, vertical: Vertical) -> None:
    """Both sides, enough of each, in every part."""
    counts = int(data.inside.sum()), int((~data.inside).sum())
    names = f"in domain ({', '.join(vertical.in_domain)})", "out of it"
    for count, name in zip(counts, names, strict=True):
        if count < settings.min_documents:
            raise ValueError(
                f"{count} of {sum(counts)} labelled documents are {name}, at least {settings.min_documents} are "
                f"needed: label more, or sample where they are"
            )
    for part in PARTS:
        rows = data.part(part)
        for side, name in zip((True, False), names, strict=True):
            if not (data.inside[rows] == side).any():
                raise ValueError(f"no document {name} fell into the {part} part: label more than {sum(counts)}")


def balance_weights(groups: Sequence[tuple[bool, str]], most: float = 20.0) -> np.ndarray:
    """Weights by which both sides count the same, and so do the groups of a side.

    Args:
        groups: side and group (a domain, a source) of each document.
        most: the heaviest document weighs at most so many times the lightest.

    Example:
        >>> balance_weights([(True, "a"), (False, "a"), (False, "a"), (False, "b")]).tolist()
        [4.0, 1.0, 1.0, 2.0]
    """
    sizes = Counter(groups)
    sides = Counter(side for side, _ in sizes)
    weights = np.array([1.0 / (sizes[group] * sides[group[0]]) for group in groups])
    return np.minimum(weights / weights.min(), most)


def _sweep(classifier: FastTextClassifier, data: _Labelled, part: str) -> Sweep:
    rows = data.part(part)
    return sweep(classifier.scores([data.texts[i] for i in rows]), data.inside[rows])


def _facts(settings: DistilSettings, vertical: Vertical, data: _Labelled, figures: dict[str, Any]) -> dict[str, Any]:
    told = "best F1" if settings.threshold_rule == "f1" else f"precision of {settings.target_precision}"
    return {
        "vertical": vertical.name,
        "description": vertical.description,
        "documents": {part: len(data.part(part)) for part in PARTS},
        "labellers": data.labellers,
        "chosen": told,
        **figures,
    }


def _loads(folder: Path) -> bool:
    """Whether the classifier of a finished stage can still be used; if not, the stage is not finished."""
    try:
        FastTextClassifier.load(folder)
    except (ValueError, FileNotFoundError) as error:
        logger.warning("%s: the stage 'distil' makes it again", error)
        (folder / REPORT).unlink()
        return False
    return True


def _write(classifier: FastTextClassifier, data: _Labelled, found: dict[str, Sweep], output: Path) -> Path:
    """Write all but the report; the model's file."""
    output.mkdir(parents=True, exist_ok=True)
    plot = draw_sweep(found["test"], output / PLOT, classifier.threshold, "Test documents by threshold")
    write_json(output / SWEEP, {part: one.rows() for part, one in found.items()})
    rows = data.part("test")
    scores = classifier.scores([data.texts[i] for i in rows])
    wrong = np.flatnonzero((scores >= classifier.threshold) != data.inside[rows])
    worst = sorted(wrong, key=lambda i: -abs(float(scores[i]) - classifier.threshold))[:_SHOWN_MISTAKES]
    with (output / MISTAKES).open("w", encoding="utf-8") as file:
        for i in worst:
            row = rows[i]
            line = {"id": data.ids[row], "in_domain": bool(data.inside[row]), "score": round(float(scores[i]), 4)}
            file.write(json.dumps({**line, "text": data.texts[row][:_SHOWN_CHARS]}, ensure_ascii=False) + "\n")
    return classifier.save(output, classifier_card(classifier, plot=plot.name if plot else None))
