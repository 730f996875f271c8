"""Shop text against general text from sources that the classifier has never seen: leave one source out.

For each source of the kinds below, a classifier learns from all other sources, and judges the documents of the one left
out. The threshold comes from the training sources only: they are dealt into folds, each fold is scored by a classifier
of the others, and the threshold with the best macro F1 on those is taken. Documents are texts as published; short ones
of a source are joined to pages of at least 100 words, as a listing or a page of questions has them.

    python benchmarks/curate_sources.py [--quick] [--out FILE.md]

Kinds such as novels, captions, scripts and requests only train, among them the generated recipes of the
built-in sample: without them no general source is about food, and every recipe looks like groceries.
Sources count the same, and so do both sides. Text is ../shared/data, without which there is nothing to do.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import report
from curation_text import TextSource, read_sources
from rexbert_hf.corpus.distil import balance_weights
from rexbert_hf.corpus.fasttext_model import FastTextClassifier
from rexbert_hf.corpus.fasttext_train import FastTextOptions
from rexbert_hf.corpus.thresholds import GRID

EVALUATED = ("titles", "descriptions", "reviews", "questions", "news", "talks", "recipes", "wikipedia", "addresses")
"""Kinds whose sources are left out in turn; the others only train."""

PAGE_WORDS, MOST_WORDS, ITEM_WORDS = 100, 300, 60
FOLDS = 3
GOAL = 0.93
OPTIONS = FastTextOptions()


@dataclass(frozen=True)
class Pages:
    """Documents of a source: pages, and beside them for training its single texts, cut."""

    source: TextSource
    pages: list[str]
    items: list[str]


def prepare(source: TextSource, count: int) -> Pages:
    """Join and cut the texts of a source."""
    pages: list[str] = []
    words: list[str] = []
    for text in source.texts:
        words += text.split()
        if len(words) >= PAGE_WORDS:
            pages.append(" ".join(words[:MOST_WORDS]))
            words = []
    items = [" ".join(text.split()[:ITEM_WORDS]) for text in source.texts[:count]]
    return Pages(source, pages[:count], items)


def train(sources: Sequence[Pages]) -> FastTextClassifier:
    """A classifier to which every source of a side means the same."""
    texts = [text for one in sources for text in (*one.pages, *one.items)]
    groups = [
        (one.source.shop, f"{one.source.name} {kind}")
        for one in sources
        for kind in ("pages", "items")
        for _ in getattr(one, kind)
    ]
    labels = ["shop" if shop else "general" for shop, _ in groups]
    return FastTextClassifier.train(texts, labels, ["shop"], options=OPTIONS, weights=balance_weights(groups, 100.0))


def macro_f1(kept: dict[str, float], sides: dict[str, bool]) -> float:
    """Mean F1 of the two sides, from the share of each source's documents that is taken for shop text."""
    recall = float(np.mean([share for name, share in kept.items() if sides[name]]))
    false = float(np.mean([share for name, share in kept.items() if not sides[name]]))
    shop = 2 * recall / (recall + false + 1)
    general = 2 * (1 - false) / (1 - false + 1 - recall + 1)
    return (shop + general) / 2


def threshold_of(sources: Sequence[Pages]) -> float:
    """The threshold with the best macro F1 on sources that its classifier has not seen."""
    scores: dict[str, np.ndarray] = {}
    for fold in range(FOLDS):
        chosen = [
            one
            for side in (True, False)
            for i, one in enumerate(one for one in sources if one.source.shop == side)
            if i % FOLDS == fold
        ]
        names = {one.source.name for one in chosen}
        classifier = train([one for one in sources if one.source.name not in names])
        scores |= {one.source.name: classifier.scores(one.pages) for one in chosen}
    sides = {one.source.name: one.source.shop for one in sources}
    found = [macro_f1({name: float((s >= t).mean()) for name, s in scores.items()}, sides) for t in GRID]
    best = np.flatnonzero(np.array(found) >= max(found) - 1e-9)
    return float(GRID[best[len(best) // 2]])


@dataclass(frozen=True)
class Outcome:
    """What became of a source that was left out."""

    source: TextSource
    threshold: float
    documents: int
    kept: float
    items_kept: float

    @property
    def right(self) -> float:
        """Share of its documents that were judged right."""
        return self.kept if self.source.shop else 1 - self.kept


def leave_out(sources: Sequence[Pages], left: Pages) -> Outcome:
    """Judge one source by all others."""
    others = [one for one in sources if one is not left]
    threshold, classifier = threshold_of(others), train(others)
    kept, items = (float((classifier.scores(texts) >= threshold).mean()) for texts in (left.pages, left.items))
    return Outcome(left.source, threshold, len(left.pages), kept, items)


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Confusion by source, Markdown."""
    rows = [
        "| source | kind | side | documents | taken for shop | right | threshold | single texts right |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in sorted(outcomes, key=lambda one: (not one.source.shop, one.right)):
        items = one.items_kept if one.source.shop else 1 - one.items_kept
        rows.append(
            f"| {one.source.name} | {one.source.kind} | {'shop' if one.source.shop else 'general'} | {one.documents} "
            f"| {round(one.kept * one.documents)} | {one.right:.3f} | {one.threshold:.2f} | {items:.3f} |"
        )
    return rows


def main() -> None:
    """Measure and print; the last line is the readings as JSON."""
    parser = report.parser(__doc__, "a quarter of the documents, a third of the sources left out")
    parser.add_argument("--out", type=Path, help="write the confusion by source there")
    args = parser.parse_args()
    sources = [prepare(one, 50 if args.quick else 200) for one in read_sources(2_000)]
    report.header("curate_sources", f"{len(sources)} sources of shared/data", ("numpy", "scikit-learn"))
    if not sources:
        print("../shared/data is not there: nothing to measure")
        report.finish([])
        return
    left = [one for one in sources if one.source.kind in EVALUATED]
    outcomes = [leave_out(sources, one) for one in (left[::3] if args.quick else left)]
    sides = {one.source.name: one.source.shop for one in outcomes}
    reached = macro_f1({one.source.name: one.kept for one in outcomes}, sides)
    items = macro_f1({one.source.name: one.items_kept for one in outcomes}, sides)
    worst = min(outcomes, key=lambda one: one.right)
    lines = [*table(outcomes), "", f"Macro F1 {reached:.4f} of documents, {items:.4f} of single texts."]
    lines.append(f"The worst source is {worst.source.name}: {worst.right:.3f} of its documents are judged right.")
    print("\n" + "\n".join(lines))
    if args.out is not None:
        title = f"# Leave one source out, {datetime.date.today():%Y-%m-%d}"
        args.out.write_text("\n".join([title, "", report.hardware(), "", *lines]) + "\n", encoding="utf-8")
    report.finish(
        [
            report.Reading("curate_sources/macro_f1", reached, None, GOAL, "macro F1", judged="ours"),
            report.Reading("curate_sources/single_texts", items, None, None, "macro F1", judged="ours"),
            report.Reading("curate_sources/worst_source", worst.right, None, None, f"right, {worst.source.name}"),
        ]
    )


if __name__ == "__main__":
    main()
