"""Labellers that need no model: keywords, and labels that are there already.

Keywords are a first guess that gets a pipeline going, not a judgement: they see words and not what a page is about.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from datasets import Dataset, Features, Value

from ..catalog import load_sample, read_records
from ..catalog.columns import as_text
from ..catalog.escapes import listed
from ..settings.ranges import check_least
from .documents import Document, text_id
from .labels import Failure, Label
from .stages import stage_key
from .vertical import Vertical

_USUAL_WORDS = 50
_MOST_COUNTED = 3
_WORD = re.compile(r"\w+")


class KeywordLabeller:
    """Labels by weighted keywords.

    A keyword counts up to three times. The score of a side is the sum of weights, divided by the square root of the
    length in units of fifty words (short texts are not scaled up). In-domain labels win together if their score
    reaches that of the others and the threshold. The label with the largest score of the side that wins is given, and
    `fallback` where neither side reaches the threshold.

    Args:
        vertical: with keywords.

    Raises:
        ValueError: if it has no keywords, or a regular expression among them is wrong.

    Example:
        >>> from rexbert_hf.corpus.ecommerce import ECOMMERCE
        >>> pages = [Document("a", "Steel mug, $9.00. In stock. Add to basket."), Document("b", "It rained all day.")]
        >>> [label.label for label in KeywordLabeller(ECOMMERCE).label(pages)]
        ['shop', 'general']
    """

    name = "keywords"
    trouble: str | None = None
    max_failed_share = 1.0

    def __init__(self, vertical: Vertical) -> None:
        if not any(vertical.keywords.get(label) for label in vertical.in_domain):
            raise ValueError(
                f"vertical '{vertical.name}' has no keywords for {', '.join(vertical.in_domain)}: add some, or choose "
                "another labeller"
            )
        self.vertical = vertical
        self._patterns = {label: _compiled(label, words) for label, words in vertical.keywords.items()}

    @property
    def key(self) -> Any:
        """The vertical decides."""
        return (self.name, self.vertical)

    def figures(self) -> dict[str, Any]:
        """Nothing to report."""
        return {}

    def label(self, documents: Iterable[Document]) -> Iterator[Label]:
        """One label a document, in order."""
        for document in documents:
            yield self._label(document)

    def _label(self, document: Document) -> Label:
        vertical, text = self.vertical, document.text.lower()
        scale = math.sqrt(max(1.0, sum(1 for _ in _WORD.finditer(text)) / _USUAL_WORDS))
        scores: dict[str, float] = {}
        found: dict[str, list[str]] = {}
        for label, patterns in self._patterns.items():
            counts = [(keyword, keyword.count(text)) for keyword in patterns]
            found[label] = [keyword.word for keyword, count in counts if count]
            scores[label] = sum(keyword.weight * min(count, _MOST_COUNTED) for keyword, count in counts) / scale
        side = {label: score for label, score in scores.items() if vertical.is_in_domain(label)}
        others = {label: score for label, score in scores.items() if not vertical.is_in_domain(label)}
        wanted, against = sum(side.values()), max(sum(others.values()), vertical.threshold)
        if wanted < against:
            side = others if sum(others.values()) >= vertical.threshold else {vertical.fallback: 0.0}
        best = max(side, key=lambda label: side[label])
        confidence = 1 / (1 + math.exp(-2 * abs(wanted - against)))
        words = ", ".join(found.get(best, [])[:5])
        return Label(document.id, best, round(confidence, 4), words or "no keyword", self.name)


@dataclass(frozen=True, slots=True)
class _Keyword:
    """A keyword, ready to be counted in lower-cased text."""

    word: str
    weight: float
    literal: str  # "" for a regular expression
    pattern: re.Pattern[str]

    def count(self, text: str) -> int:
        if self.literal and self.literal not in text:  # most are not, and this is ten times as fast
            return 0
        return sum(1 for _ in self.pattern.finditer(text))


def _compiled(label: str, words: Mapping[str, float]) -> list[_Keyword]:
    compiled = []
    for word, weight in words.items():
        literal = "" if word.startswith("re:") else word.lower()
        expression = rf"(?<!\w){re.escape(literal)}(?!\w)" if literal else word[3:]
        try:
            compiled.append(_Keyword(word, weight, literal, re.compile(expression)))
        except re.error as error:
            raise ValueError(f"keywords.{label}: '{word}' is not a regular expression ({error})") from None
    return compiled


@dataclass(frozen=True)
class ReadySettings:
    """Where ready labels stand.

    Attributes:
        path: CSV, TSV, JSON lines or Parquet; a file, a folder or a pattern.
        sample: a kind of sample data with labels, as "crawl", instead of a path.
        sample_size: products of the sample shop; 0 for the usual number.
        id_field: the document's identifier; of a row that has none, the SHA-1 of the text is taken.
        text_field: the text, for rows without identifiers.
        label_field: the label.
        labels: their label (of a class its name, or its number where no name is given) -> ours, where they differ;
            labels that are not named stay as they are.
    """

    path: str = ""
    sample: str = ""
    sample_size: int = 0
    id_field: str = "id"
    text_field: str = "text"
    label_field: str = "label"
    labels: dict[str, str] | None = None

    def __post_init__(self) -> None:
        check_least(self, sample_size=0)

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.path or f"sample {self.sample}"


class ReadyLabels:
    """Labels from a file: a person's, another project's, or a label column of the source itself.

    Args:
        settings: where they stand.
        vertical: whose labels they must be.

    Raises:
        FileNotFoundError: if the file is not there.
        ValueError: if it lacks a field or holds no label of the vertical.
    """

    name = "ready"
    trouble: str | None = None
    max_failed_share = 1.0

    def __init__(self, settings: ReadySettings, vertical: Vertical) -> None:
        if bool(settings.path) == bool(settings.sample):
            raise ValueError("ready labels need ready.path, the file that holds them, or ready.sample")
        self.settings, self.vertical = settings, vertical
        self._labels = dict(self._read())
        if not any(label in vertical.labels for label in self._labels.values()):
            seen = ", ".join(sorted(set(self._labels.values()))[:10])
            raise ValueError(
                f"{settings.name}: field '{settings.label_field}' holds {seen or 'nothing'}, none of the labels "
                f"{', '.join(vertical.labels)}: name them in ready.labels"
            )

    def _read(self) -> Iterator[tuple[str, str]]:
        settings, ours = self.settings, self.settings.labels or {}
        if settings.sample:
            rows = load_sample(settings.sample, size=settings.sample_size or None)
            if settings.label_field not in rows.column_names:
                names = listed(rows.column_names)
                raise ValueError(f"{settings.name}: no field '{settings.label_field}'; it has {names}")
            wanted = dict.fromkeys((settings.id_field, settings.text_field, settings.label_field))
            rows = rows.select_columns([name for name in wanted if name in rows.column_names])
        else:
            rows = self._read_file()
        if not any(as_text(row.get(settings.id_field)) or as_text(row.get(settings.text_field)) for row in rows):
            raise ValueError(
                f"{settings.name}: no row has a field '{settings.id_field}' or '{settings.text_field}': "
                "set ready.id_field or ready.text_field"
            )
        for row in rows:
            label = as_text(row[settings.label_field]).strip()
            if label:
                text = as_text(row.get(settings.text_field))
                identifier = as_text(row.get(settings.id_field)) or (text and text_id(text))
                yield identifier, ours.get(label, label)

    def _read_file(self) -> Dataset:
        """Rows of the files, of which some may lack labels; classes as numbers, where the settings name only these."""
        settings, name = self.settings, self.settings.label_field
        # Named by themselves: a file may hold columns that Python cannot, and names that look like templates.
        fields = {field: field for field in (settings.id_field, settings.text_field, name)}
        rows = read_records(settings.path, fields, required=[], errors="skip")
        found = {as_text(label).strip() for label in rows[name]} - {""}
        if not found:  # says which fields there are
            read_records(settings.path, {name: name}, errors="skip")
        if settings.labels and found.isdisjoint(settings.labels):
            with suppress(ValueError):  # they are no classes
                types = Features({name: Value("int64")})
                numbered = read_records(settings.path, fields, types=types, required=[], errors="skip")
                if not settings.labels.keys().isdisjoint(map(as_text, numbered[name])):
                    return numbered
        return rows

    @property
    def key(self) -> Any:
        """The labels, wherever they were read from: a folder or pattern may name the same files with other content."""
        return (self.name, asdict(self.settings), stage_key(self._labels))

    def figures(self) -> dict[str, Any]:
        """How many labels there were."""
        return {"ready_labels": len(self._labels)}

    def label(self, documents: Iterable[Document]) -> Iterator[Label | Failure]:
        """The document's label, or a failure if there is none."""
        for document in documents:
            label = self._labels.get(document.id)
            if label is None:
                yield Failure(document.id, "no_label", f"no label in {self.settings.name}")
            elif label not in self.vertical.labels:
                yield Failure(document.id, "unknown_label", f"'{label}' is not a label of {self.vertical.name}")
            else:
                yield Label(document.id, label, 1.0, "", self.name)
