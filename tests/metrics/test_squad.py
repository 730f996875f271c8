"""SQuAD's figures against the official definition, written out here step by step."""

from __future__ import annotations

import re
import string

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rexbert_hf.metrics.squad import answer_overlap, harmonic_f1, normalize_answer, squad_scores


def reference_normal(text: str) -> str:
    """Lower case, then punctuation away, then articles to a blank, then single blanks: this order."""
    text = "".join(letter for letter in text.lower() if letter not in set(string.punctuation))
    text = re.sub(r"\b(a|an|the)\b", " ", text)
    return " ".join(text.split())


def reference_question(predicted: str, truths: list[str]) -> tuple[float, float]:
    """Exact match and F1, each the best over the gold answers; words are counted down one by one."""
    best_exact, best_f1 = 0.0, 0.0
    for truth in truths:
        best_exact = max(best_exact, float(reference_normal(predicted) == reference_normal(truth)))
        words, left = reference_normal(predicted).split(), reference_normal(truth).split()
        size, shared = len(left), 0
        for word in words:
            if word in left:
                left.remove(word)
                shared += 1
        if shared:
            precision, recall = 1.0 * shared / len(words), 1.0 * shared / size
            best_f1 = max(best_f1, 2 * precision * recall / (precision + recall))
    return best_exact, best_f1


PIECES = st.sampled_from(
    ["the", "a", "an", "A.", "The", "screen", "Screen,", "it's", "--", "wi-fi", "wifi", "$99", "  ", "\t", "caf\u00e9",
     "\u00bd", "\u2019s", "thea", "U.S.", "'the'", "\u00a0"]
)  # fmt: skip
ANSWERS = st.lists(PIECES, max_size=6).map(" ".join)


@given(ANSWERS, st.lists(ANSWERS, min_size=1, max_size=3))
@example("", [""])
@example("the", ["a"])  # both normalise to nothing: exact, and F1 0
@example("screen screen", ["screen"])
def test_equal_to_the_reference(predicted, truths):
    exact, f1, _, _ = squad_scores([predicted], [truths])[0]
    assert (exact, f1) == pytest.approx(reference_question(predicted, truths), abs=1e-9)


@given(ANSWERS)
def test_normal_form_is_final(text):
    assert normalize_answer(text) == reference_normal(text)
    assert normalize_answer(normalize_answer(text)) == normalize_answer(text)


@given(ANSWERS, ANSWERS)
def test_precision_and_recall_change_places(first, second):
    f1, precision, recall = answer_overlap(first, second)
    assert answer_overlap(second, first) == (pytest.approx(f1), recall, precision)
    assert min(precision, recall) - 1e-12 <= f1 <= max(precision, recall) + 1e-12


def test_known_answers():
    scores = squad_scores(
        ["The battery, lasts 5 hours!", "fast", "no"],
        [["battery lasts 5 hours", "5 hours"], ["really fast", "fast and quiet"], ["yes"]],
    )
    assert scores[0].tolist() == [1, 1, 1, 1]
    assert scores[1].tolist() == pytest.approx([0, 2 / 3, 1, 1 / 2])  # the first answer is the better one
    assert scores[2].tolist() == [0, 0, 0, 0]


def test_two_kinds_of_f1():
    """The paper's rows hold the harmonic mean of mean precision and mean recall; the official figure is another."""
    scores = squad_scores(["red", "red blue green lime"], [["red mug with lid"], ["red"]])
    assert scores[:, 1].mean() == pytest.approx(0.4)
    assert harmonic_f1(scores) == pytest.approx(0.625)
    assert harmonic_f1(np.zeros((2, 4))) == 0.0
    # BERT-Raw in table 2 of E-BERT: precision 58.91, recall 62.58, F1 60.69
    assert harmonic_f1(np.array([[0, 0, 58.91, 62.58]])) == pytest.approx(60.69, abs=0.005)


def test_bad_input():
    with pytest.raises(ValueError, match="2 answers to 1 questions"):
        squad_scores(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match="question 1 has no list of gold answers"):
        squad_scores(["a", "b"], [["a"], []])
    with pytest.raises(ValueError, match="question 0 has no list of gold answers"):
        squad_scores(["a"], ["a"])
