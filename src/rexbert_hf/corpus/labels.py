"""What labellers say about documents, and the labels' file.

One decision worth knowing: a document ends as a `Label` or as a `Failure` with a reason, never as both and never as
neither, and in the order in which documents came. So the file is a function of documents and answers, not of timing.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .documents import Document

logger = logging.getLogger(__name__)

_LOG_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Label:
    """The answer for one document.

    Attributes:
        id: of the document.
        label: one of the vertical's.
        confidence: in [0, 1], as the labeller says; not calibrated.
        reason: a sentence, or the keywords that decided.
        labeller: who said it.
    """

    id: str
    label: str
    confidence: float
    reason: str
    labeller: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a document has no label.

    Attributes:
        id: of the document.
        reason: a short name, for counting.
        message: what happened, for reading.
    """

    id: str
    reason: str
    message: str


class Labeller(Protocol):
    """Anything that labels documents."""

    name: str
    max_failed_share: float  # of documents; with more the labels are of no use

    @property
    def key(self) -> Any:
        """All that decides the answers, for `stage_key`."""
        ...

    @property
    def trouble(self) -> str | None:
        """Why labelling stopped before its end, or None: the work is not finished then, and can be taken up again."""
        ...

    def label(self, documents: Iterable[Document]) -> Iterator[Label | Failure]:
        """One outcome a document, in order."""
        ...

    def figures(self) -> dict[str, Any]:
        """Requests, tokens, cost and the like, for the report."""
        ...


def with_progress(labeller: Labeller, documents: Iterable[Document], total: int) -> Iterator[Label | Failure]:
    """Outcomes of a labeller; where it stands, and what it has cost, is logged every few seconds and at the end.

    Args:
        labeller: who labels.
        documents: what is labelled.
        total: how many documents there are.
    """
    done = failed = 0
    due = time.monotonic() + _LOG_SECONDS
    for outcome in labeller.label(documents):
        done, failed = done + 1, failed + isinstance(outcome, Failure)
        yield outcome
        if time.monotonic() >= due:
            logger.info("%s: %s", labeller.name, _standing(labeller, done, total, failed))
            due = time.monotonic() + _LOG_SECONDS
    logger.info("%s: %s", labeller.name, _standing(labeller, done, total, failed))


def _standing(labeller: Labeller, done: int, total: int, failed: int) -> str:
    text = f"{done:,} of {total:,} documents, {failed:,} without a label"
    figures = labeller.figures()
    bill = figures.get("paid_in_this_run")
    if bill is None:
        return text
    tokens = bill["prompt_tokens"] + bill["completion_tokens"]
    return f"{text}; paid for {bill['answers']:,} answers, {tokens:,} tokens, {bill['cost']:.2f} {figures['currency']}"


def read_labels(path: str | Path) -> Iterator[Label]:
    """Labels of a `labels.jsonl`.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if a line is not a label.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no labels there; run the stage `label` first")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                label = _label_of(line)
            except (ValueError, TypeError, RecursionError) as error:
                raise ValueError(f"{path}:{number}: not a label ({error}); run the stage `label` again") from error
            yield label


def _label_of(line: bytes) -> Label:
    label = Label(**json.loads(line.decode("utf-8")))
    for field in dataclasses.fields(label):
        value, kind = getattr(label, field.name), (int, float) if field.name == "confidence" else str
        if not isinstance(value, kind) or isinstance(value, bool):
            raise TypeError(f"{field.name} is {type(value).__name__}, not a {field.type}")
    return label


def json_line(outcome: Label | Failure) -> str:
    r"""One line of `labels.jsonl` or `failed.jsonl`.

    Example:
        >>> json_line(Failure("d1", "refusal", "I cannot"))
        '{"id": "d1", "reason": "refusal", "message": "I cannot"}\n'
    """
    return json.dumps(dataclasses.asdict(outcome), ensure_ascii=False) + "\n"
