"""Texts whose n-grams are known, and a plain way to count them."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

WORDS = ["red", "tea", "pot", "the", "lamp", "steel", "for", "table", "café", "3.5"]


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Texts of a few words, with punctuation, brackets, line breaks, hyphens and empty ones among them."""
    rng = np.random.default_rng(seed)
    between = [" ", " ", " ", " ", "-", ", ", ". ", " (", ") ", "\n", ' "', " & "]
    texts = []
    for _ in range(count):
        size = int(rng.integers(0, 12))
        text = "".join(
            str(WORDS[rng.integers(len(WORDS))]).capitalize() + between[rng.integers(len(between))] for _ in range(size)
        )
        texts.append(text)
    return texts


def plain_runs(text: str) -> list[list[str]]:
    """Runs of words between punctuation; "&" is a word, a hyphen between words is a space."""
    text = re.sub(r"(?<=\w)-(?=\w)", " ", text.lower())
    return [run.split() for run in re.split(r"[^\w\s&.]|\n|\.(?!\d)", text) if run.split()]


def plain_counts(texts: list[str], size: int) -> Counter[str]:
    """How often each n-gram occurs within runs."""
    counts: Counter[str] = Counter()
    for text in texts:
        for run in plain_runs(text):
            counts.update(" ".join(run[i : i + size]) for i in range(len(run) - size + 1))
    return counts


def shop_texts(copies: int = 12) -> list[str]:
    """Sentences in which "tea pot", "table lamp" and "stainless steel bottle" are phrases."""
    fill = [f"w{i}" for i in range(40)]
    texts = []
    for i in range(copies):
        a, b = fill[i % 40], fill[(i * 7 + 3) % 40]
        texts += [
            f"The tea pot is {a}. I like the table lamp, and {b} too.",
            f"This stainless steel bottle is {a}; my tea pot was {b}",
            f"Stainless-steel bottle. You can see the {a} for the {b}.",
            f"I can see it is {b} and the {a} is a table lamp",
            "stainless steel bottle, tea pot, table lamp, desk lamp",
        ]
    return texts
