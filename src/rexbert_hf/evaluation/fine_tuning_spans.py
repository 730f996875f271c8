"""Answers in a context: windows over what is longer than the model reads, and the best span over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from rexbert_hf.evaluation.fine_tuning_batches import Feature
from rexbert_hf.evaluation.fine_tuning_rows import Row

QUESTION_SHARE = 4
"""A question takes a quarter of the window at most; what is longer is cut."""
MAX_ANSWER_TOKENS = 96
"""Longest answer that is looked for; answers of review questions are whole sentences."""

Answer = tuple[int, int] | None


def span_features(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], max_length: int, options: dict[str, Any], learn: bool
) -> list[Feature]:
    """Encode questions with windows of their contexts; neighbouring windows overlap by half.

    A window that does not hold the whole answer learns to point at its first token. An answer that no window holds is
    learnt by none: it is longer than half a window.

    Args:
        tokenizer: of the model, one that tells offsets.
        rows: questions and contexts.
        max_length: of a window.
        options: of the tokenizer call.
        learn: set the targets.
    """
    questions = _cut(tokenizer, [str(row.text).strip() for row in rows], max_length // QUESTION_SHARE)
    room = max_length - max_length // QUESTION_SHARE - tokenizer.num_special_tokens_to_add(pair=True)
    found = tokenizer(
        questions,
        [row.pair or "" for row in rows],
        truncation="only_second",
        max_length=max_length,
        stride=max(1, room // 2),
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        **options,
    )
    types = found.get("token_type_ids", [None] * len(found["input_ids"]))
    features = []
    for i, (ids, kinds, offsets) in enumerate(zip(found["input_ids"], types, found["offset_mapping"], strict=True)):
        in_context = np.array([side == 1 for side in found.sequence_ids(i)])
        places = np.where(in_context[:, None], np.array(offsets), -1)
        row = found["overflow_to_sample_mapping"][i]
        target = _target(places, rows[row].label) if learn else None
        features.append(Feature(row, ids, kinds, target, places))
    return features


def _cut(tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], most: int) -> list[str]:
    found = tokenizer(
        list(questions), add_special_tokens=False, truncation=True, max_length=most, return_offsets_mapping=True
    )
    ends = [offsets[-1][1] if offsets else 0 for offsets in found["offset_mapping"]]
    return [question[:end] for question, end in zip(questions, ends, strict=True)]


def _target(places: np.ndarray, answer: Answer) -> tuple[int, int]:
    """First and last token of the answer, (0, 0) where the window does not hold all of it."""
    tokens = np.flatnonzero(places[:, 0] >= 0)
    if answer is None or not len(tokens):
        return 0, 0
    starts, ends = places[tokens, 0], places[tokens, 1]
    if answer[0] < starts[0] or answer[1] > ends[-1]:
        return 0, 0
    first = int(np.searchsorted(ends, answer[0], side="right"))
    last = int(np.searchsorted(starts, answer[1], side="left")) - 1
    return int(tokens[first]), int(tokens[max(first, last)])


def answers_of(
    logits: Sequence[np.ndarray], features: Sequence[Feature], rows: Sequence[Row], may_be_none: bool
) -> list[Answer]:
    """The best span of each row over all its windows, as characters of its context.

    Args:
        logits: start and end logits of each window, `[2, tokens]`.
        features: the windows.
        rows: that they come from.
        may_be_none: an answer must beat the first token of every window.
    """
    best: list[tuple[float, Answer]] = [(-np.inf, None)] * len(rows)
    none = np.full(len(rows), np.inf)
    for row, one in zip(logits, features, strict=True):
        none[one.row] = min(none[one.row], float(row[0, 0] + row[1, 0]))
        score, first, last = best_span(row, one.places[:, 0] >= 0)
        if score > best[one.row][0]:
            best[one.row] = (score, (int(one.places[first, 0]), int(one.places[last, 1])))
    found = []
    for row_number, (score, answer) in enumerate(best):
        answered = answer is not None and not (may_be_none and none[row_number] >= score)
        found.append(_trimmed(rows[row_number].pair or "", answer) if answered and answer else None)
    return found


def best_span(logits: np.ndarray, allowed: np.ndarray) -> tuple[float, int, int]:
    """Score, first and last token of the span with the highest sum of start and end logits.

    Args:
        logits: `[2, tokens]`.
        allowed: tokens that may be part of an answer.

    Example:
        >>> best_span(np.array([[9.0, 1.0, 2.0], [9.0, 5.0, 0.0]]), np.array([False, True, True]))
        (6.0, 1, 1)
    """
    tokens = np.flatnonzero(allowed)
    if not len(tokens):
        return -np.inf, 0, 0
    sums = logits[0, tokens][:, None] + logits[1, tokens][None, :]
    place = np.arange(len(tokens))
    distance = place[None, :] - place[:, None]
    sums = np.where((distance >= 0) & (distance < MAX_ANSWER_TOKENS), sums, -np.inf)
    first, last = np.unravel_index(int(np.argmax(sums)), sums.shape)
    return float(sums[first, last]), int(tokens[first]), int(tokens[last])


def _trimmed(context: str, answer: tuple[int, int]) -> Answer:
    """Without the spaces that tokens of byte-level BPE begin with."""
    text = context[slice(*answer)]
    start = answer[0] + len(text) - len(text.lstrip())
    return (start, start + len(text.strip())) if text.strip() else None


def overlap(said: Answer, gold: Answer) -> float:
    """F1 of the characters of two answers; 1 where there is none in either.

    Args:
        said: one.
        gold: the other.

    Example:
        >>> overlap((0, 4), (2, 6)), overlap(None, None), overlap((0, 4), None)
        (0.5, 1.0, 0.0)
    """
    if said is None or gold is None:
        return float(said is gold)
    both = max(0, min(said[1], gold[1]) - max(said[0], gold[0]))
    return 2 * both / (said[1] - said[0] + gold[1] - gold[0])
