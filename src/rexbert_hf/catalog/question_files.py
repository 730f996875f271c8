"""Questions with contexts and answer spans, from SQuAD's JSON form and from SubjQA's CSV.

An answer that does not stand where the file says is an error in SQuAD's form, which promises it. SubjQA's spans were
typed by hand over tokenised text: there the characters that the file points at are the answer if they hold the same
letters and digits, and what differs in more is left out and counted.
"""

from __future__ import annotations

import ast
import csv
import io
import operator
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .delimited import allow_long_fields
from .whole_files import json_of, text_of

NO_ANSWER = "ANSWERNOTFOUND"
"""SubjQA's word for a review that does not answer; it stands at the end of each of its reviews."""


class AnsweredQuestion(NamedTuple):
    """One question with its context.

    Attributes:
        question: the question.
        context: the text that answers it.
        answers: first character and one past the last of each answer in `context`; at least one.
        where: file and place, for messages.
    """

    question: str
    context: str
    answers: tuple[tuple[int, int], ...]
    where: str

    def texts(self) -> list[str]:
        """The answers' texts.

        Example:
            >>> AnsweredQuestion("how fast ?", "really fast disk", ((7, 11),), "a.json").texts()
            ['fast']
        """
        return [self.context[start:end] for start, end in self.answers]


def answer_places(context: str, answers: Iterable[tuple[int, str]], where: str) -> tuple[tuple[int, int], ...]:
    """First character and one past the last of each answer.

    Args:
        context: the text.
        answers: first character and text of each.
        where: file and row, for the message.

    Raises:
        ValueError: if an answer does not stand where it should, or is empty.

    Example:
        >>> answer_places("really fast disk", [(7, "fast")], "a.json")
        ((7, 11),)
        >>> answer_places("really fast disk", [(6, "fast")], "a.json question 3")
        Traceback (most recent call last):
        ...
        ValueError: a.json question 3: the answer 'fast' does not stand at 6 of its context (there: ' fas')
    """
    places = []
    for start, text in answers:
        there = context[start : start + len(text)] if start >= 0 else ""
        if there != text or not text.strip():
            shown = text if len(text) < 60 else f"{text[:57]}..."
            raise ValueError(
                f"{where}: the answer {shown!r} does not stand at {start} of its context (there: {there!r})"
            )
        places.append((start, start + len(text)))
    return tuple(places)


def read_squad(path: str | Path) -> list[AnsweredQuestion]:
    """Read a JSON file in the form of SQuAD 1.1.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it has another form, or an answer does not stand where it says, with the question's id.
    """
    content = json_of(text_of(path), str(path))
    found: list[AnsweredQuestion] = []
    where = str(path)
    try:
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                where = f"{path} after {len(found)} questions"
                for entry in paragraph["qas"]:
                    where = f"{path} question {entry.get('id', len(found))}"
                    pairs = [(_number(one["answer_start"]), one["text"]) for one in entry["answers"]]
                    found.append(_question(entry["question"], paragraph["context"], pairs, where))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: not in the form of SQuAD 1.1 ({type(error).__name__} {error})") from None
    return found


def _number(value: Any) -> int:
    try:
        return int(value)
    except (ValueError, OverflowError):
        raise TypeError(f"{value!r:.40} is no place in a text") from None


def _question(question: Any, context: Any, answers: Sequence[tuple[int, Any]], where: str) -> AnsweredQuestion:
    texts = (question, context, *(text for _, text in answers))
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{where}: question, context and answers are texts; got {texts!r:.120}")
    if not question.strip() or not context.strip():
        raise ValueError(f"{where}: the question or its context is empty")
    if not answers:
        raise ValueError(f"{where}: has no answer; SQuAD 1.1 has one or more for each question")
    return AnsweredQuestion(question, context, answer_places(context, answers, where), where)


def question_of_row(row: Mapping[str, Any], where: str) -> AnsweredQuestion:
    """A row of a `datasets` dataset: SQuAD's columns, or our `QUESTION` record.

    Args:
        row: with `question`, `context` and `answers`; these are `{"text": [...], "answer_start": [...]}` or a list of
            `{"start", "text"}`.
        where: file and row, for messages.

    Raises:
        ValueError: if a column is missing, or an answer does not stand where it says.

    Example:
        >>> row = {"question": "how fast ?", "context": "fast disk", "answers": {"text": ["fast"], "answer_start": [0]}}
        >>> question_of_row(row, "row 0").answers
        ((0, 4),)
    """
    missing = [name for name in ("question", "context", "answers") if row.get(name) is None]
    if missing:
        raise ValueError(f"{where}: no {' and no '.join(missing)}; the columns are question, context, answers")
    answers = row["answers"]
    try:
        if isinstance(answers, Mapping):
            starts, texts = answers["answer_start"], answers["text"]
            if len(starts) != len(texts):
                raise TypeError(f"{len(starts)} places for {len(texts)} texts")
            pairs = [(_number(start), text) for start, text in zip(starts, texts, strict=True)]
        else:
            pairs = [(_number(one["start"]), one["text"]) for one in answers]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{where}: answers are texts with their places ({type(error).__name__} {error})") from None
    return _question(row["question"], row["context"], pairs, where)


@dataclass
class SubjQA:
    """What a file of SubjQA held.

    Attributes:
        questions: those with an answer, one for each question and review.
        unanswered: questions that no annotator found an answer to in the review.
        unmatched: annotated spans whose letters are not those that the file points at.
    """

    questions: list[AnsweredQuestion] = field(default_factory=list)
    unanswered: int = 0
    unmatched: int = 0


_NO_LETTER = re.compile(r"[\W_]+")


def read_subjqa(path: str | Path) -> SubjQA:
    """Read a CSV of SubjQA: annotations of one question and review become one question with several answers.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if a column is missing, a place is no pair of numbers, or it is no CSV in UTF-8, with its line.
    """
    allow_long_fields()
    groups: dict[tuple[str, str], list[tuple[int, int]]] = {}
    first: dict[tuple[str, str], tuple[str, int]] = {}
    found = SubjQA()
    reader = csv.DictReader(io.StringIO(text_of(path), newline=""))
    for row in _rows_of(reader, str(path)):
        where = f"{path}:{reader.line_num}"
        key, review = _subjqa_key(row, where)
        first.setdefault(key, (review, reader.line_num))
        place = _subjqa_answer(row, review, where)
        found.unmatched += place == ()
        groups.setdefault(key, []).extend([place] if place else [])
    for (question, review_id), places in groups.items():
        review, line = first[(question, review_id)]
        if places:
            found.questions.append(AnsweredQuestion(question, review, tuple(dict.fromkeys(places)), f"{path}:{line}"))
    found.unanswered = len(groups) - len(found.questions)
    return found


def _rows_of(reader: csv.DictReader[str], path: str) -> Iterator[Mapping[str, str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: no CSV ({error}); fetch it again") from None


def _subjqa_key(row: Mapping[str, str], where: str) -> tuple[tuple[str, str], str]:
    try:
        review = row["review"].removesuffix(NO_ANSWER).rstrip()
        row["human_ans_spans"].strip()
        return (row["question"].strip(), row["review_id"]), review
    except (KeyError, AttributeError):
        raise ValueError(f"{where}: not a row of SubjQA: it has question, review_id, review, human_ans_spans") from None


def _subjqa_answer(row: Mapping[str, str], review: str, where: str) -> Any:
    """The place of an annotation, None for "no answer", () for one that is not what stands there."""
    text = row["human_ans_spans"].strip()
    if not text or text == NO_ANSWER:
        return None
    try:
        start, end = map(operator.index, ast.literal_eval(row["human_ans_indices"]))
    except (KeyError, ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise ValueError(
            f"{where}: human_ans_indices {row.get('human_ans_indices')!r:.60} is no pair of numbers"
        ) from None
    if text.endswith(NO_ANSWER):  # marked along with the end of the review
        text, end = text.removesuffix(NO_ANSWER), min(end, len(review))
    there = review[start:end]
    if not 0 <= start < end <= len(review) or _letters(there) != _letters(text):
        return ()
    start += len(there) - len(there.lstrip())
    return start, start + len(there.strip())


def _letters(text: str) -> str:
    return _NO_LETTER.sub("", text).lower()
