"""Perturbations: deterministic, one kind of change each, and nothing else."""

from __future__ import annotations

from collections import Counter

import pytest

from rexbert_hf.catalog import load_sample
from rexbert_hf.evaluation.robustness import ALIGNED, KINDS, names_rare_brand, perturb, perturb_words

TEXTS = ["Milwaukee cordless drill 18 volt", "16GB memory card", "led", "", "5 gal. bucket  lid", "a a a", "3/4in pipe"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_changes_alike_wherever_it_stands(kind):
    assert perturb(TEXTS, kind, 3) == perturb(TEXTS, kind, 3)
    alone = [perturb([text], kind, 3)[0] for text in TEXTS]
    assert alone == perturb(TEXTS, kind, 3)
    assert (
        perturb(["one two three four five six seven"] * 2, "word_order", 3)[0]
        != perturb(["one two three four five six seven"], "word_order", 4)[0]
    )


@pytest.mark.parametrize("kind", ["typos", "casing", "word_order"])
def test_most_real_texts_change(kind):
    titles = load_sample("products", size=100)["title"][:]
    changed = perturb(titles, kind)
    assert sum(a != b for a, b in zip(titles, changed, strict=True)) >= 95


def test_casing_changes_nothing_but_case():
    for before, after in zip(TEXTS, perturb(TEXTS, "casing"), strict=True):
        assert before.lower() == after.lower()
        assert before != after or not before


def test_word_order_keeps_the_words():
    for before, after in zip(TEXTS, perturb(TEXTS, "word_order"), strict=True):
        assert Counter(before.split()) == Counter(after.split())
    assert perturb(["led", "a a a"], "word_order") == ["led", "a a a"]


def edits(first: str, second: str) -> int:
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        last, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    return row[-1]


def test_a_typo_is_a_slip_inside_a_word():
    words = [*load_sample("products", size=60)["title"][0].split(), "Milwaukee", "toilets"]
    for seed in range(30):
        for before, after in zip(words, perturb(words, "typos", seed), strict=True):
            assert edits(before, after) <= 2
            assert before[:1] == after[:1] or not before[:1].isalpha() or len(before) < 4
    assert perturb(["led", "", "12 v"], "typos") == ["led", "", "12 v"]


def test_units_are_written_the_other_way():
    texts = [
        "16 GB",
        "16gb",
        "3/4 in. pipe",
        "12-volt drill",
        "100w led",
        "5 stars",
        "iphone 6s",
        "1.5 l",
        "24in x 36 in",
    ]
    assert perturb(texts, "units") == [
        *("16GB", "16 gb", "3/4in. pipe", "12volt drill", "100 w led", "5 stars", "iphone 6s", "1.5l", "24 in x 36in"),
    ]


@pytest.mark.parametrize("kind", ALIGNED)
def test_aligned_kinds_keep_words_in_place(kind):
    words = ["The", "battery", "life", ",", "i.e.", "hours", "!"]
    for seed in range(20):
        changed = perturb_words(words, kind, seed)
        assert len(changed) == len(words)
        assert all(changed)
        assert (changed[3], changed[6]) == (",", "!")
    with pytest.raises(ValueError, match="places"):
        perturb_words(words, "word_order")


def test_rare_brands():
    titles = (
        ["Delta faucet"] * 6 + ["Moen faucet"] * 2 + ["Kohler sink"] * 2 + ["Solo thing", "steel Delta", "steel rod"]
    )
    # Steel begins two titles and stands inside none, so it counts; Solo begins one.
    texts = ["moen sink", "delta sink", "solo", "KOHLER tap"]
    assert names_rare_brand(texts, titles, 0.5) == [True, False, False, True]
    assert names_rare_brand(["anything"], [], 0.5) == [False]


def test_other_kinds_are_refused():
    with pytest.raises(ValueError, match="typos, casing, word_order, units"):
        perturb(["a"], "emoji")
