"""What tells a phrase from a chance neighbourhood of words: AutoPhrase's features, and how free its borders are.

Concordance (do the parts belong together), informativeness (are they more than function words), completeness (is it
whole and not a piece of something longer) and popularity are AutoPhrase's. Its part-of-speech tags are replaced by
counts that need no tagger: what stands to the left and right of a phrase, and of each of its words, over the whole
text. A noun follows "the" and stands before "is"; a verb follows "I" and "to". Its average inverse document frequency
is left out: known phrases are of middling frequency, so trees took the commonest words of a shop ("cotton", "quality")
for a bad sign.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rexbert_hf.phrases.candidates import Candidates, Level, places
from rexbert_hf.phrases.function_words import CLASSES, FUNCTION_WORDS
from rexbert_hf.phrases.spool import BRACKET, CAPITAL, HYPHEN, MARKS, QUOTE, RARE, TEXT_END, Spool

_SIDES = ("mark", *CLASSES)


@dataclass
class Contexts:
    """How n-grams of one length occur, as shares of their occurrences; arrays are `[C]`.

    Attributes:
        shares: by name: "left_mark" is the share that begins a run of words, "right_copula" that stands before "is".
    """

    shares: dict[str, np.ndarray]


def count_contexts(spool: Spool, candidates: Candidates, max_words: int) -> list[Contexts]:
    """Walk over the text once and count what stands around each n-gram of 1 to `max_words` words.

    Args:
        spool: as `count_candidates` left it.
        candidates: what it returned.
        max_words: longest n-gram.
    """
    classes = _class_table(candidates.words)
    levels = candidates.levels[:max_words]

    def count_chunk(index: int) -> list[dict[str, np.ndarray]]:
        ids, flags = spool.load("ids", index), spool.load("flags", index)
        sums = [_zero_sums(len(level)) for level in levels]
        of_position, repeats = classes[ids], _repeats(ids)  # marks index the table from behind
        for size in range(1, max_words + 1):
            _count(sums[size - 1], *places(spool, size, index), size, of_position, flags, repeats)
        return sums

    totals = [_zero_sums(len(level), np.int64) for level in levels]
    for found in spool.map(count_chunk, range(len(spool))):
        for total, sums in zip(totals, found, strict=True):
            for name, values in sums.items():
                total[name] += values
    for size, total in enumerate(totals, start=1):
        total["repeats"] = total["repeats"] / size
    return [
        Contexts({name: (values / np.maximum(level.counts, 1)).astype(np.float32) for name, values in total.items()})
        for level, total in zip(levels, totals, strict=True)
    ]


_MARK, _QUOTE, _BRACKET = (1 << (len(CLASSES) + i) for i in range(3))


def _class_table(words: list[str]) -> np.ndarray:
    """Bits of each word and each mark, uint8 `[W + MARKS]`."""
    table = np.zeros(len(words) + MARKS, dtype=np.uint8)
    rows = {word: row for row, word in enumerate(words)}
    for bit, members in enumerate(CLASSES.values()):
        table[[rows[word] for word in members if word in rows]] |= 1 << bit
    table[len(words) :] = _MARK
    table[RARE] = 0
    table[QUOTE] |= _QUOTE
    table[BRACKET] |= _BRACKET
    return table


def _repeats(ids: np.ndarray) -> np.ndarray:
    """How many further times each position's word occurs in its text, at most 3, uint8 `[P]`."""
    text = np.cumsum(ids == TEXT_END)
    keys = text.astype(np.uint64) << np.uint64(32) | (ids.astype(np.int64) + MARKS).astype(np.uint64)
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return np.minimum(counts - 1, 3).astype(np.uint8)[inverse]


def _zero_sums(rows: int, dtype: type = np.int32) -> dict[str, np.ndarray]:
    names = [f"{side}_{name}" for side in ("left", "right") for name in _SIDES]
    names += ["alone", "framed", "quoted", "bracketed", "hyphen", "capital", "title", "repeats"]
    # Each thread, and each result that waits, holds such sums of a chunk: half the width is half the memory.
    return {name: np.zeros(rows, dtype=dtype) for name in names}


def _count(
    sums: dict[str, np.ndarray],
    at: np.ndarray,
    rows: np.ndarray,
    size: int,
    classes: np.ndarray,
    flags: np.ndarray,
    repeats: np.ndarray,
) -> None:
    if not len(at):
        return
    left, right = classes[at - 1], classes[at + size]

    def add(name: str, holds: np.ndarray) -> None:
        sums[name] += np.bincount(rows[holds], minlength=len(sums[name])).astype(np.int32)

    for bit, name in enumerate(CLASSES):
        add(f"left_{name}", (left & (1 << bit)) > 0)
        add(f"right_{name}", (right & (1 << bit)) > 0)
    left_mark, right_mark = (left & _MARK) > 0, (right & _MARK) > 0
    add("left_mark", left_mark)
    add("right_mark", right_mark)
    add("alone", left_mark & right_mark)
    add("framed", (left > 0) & (right > 0))
    add("quoted", (left & right & _QUOTE) > 0)
    add("bracketed", (left & right & _BRACKET) > 0)
    inner = [flags[at + offset] for offset in range(size)]
    add("hyphen", np.bitwise_or.reduce(inner[1:] or [np.zeros_like(inner[0])]) & HYPHEN > 0)
    add("capital", ((inner[0] & CAPITAL) > 0) & ~left_mark)
    add("title", (np.bitwise_and.reduce(inner) & CAPITAL) > 0)
    total = sum(repeats[at + offset].astype(np.int32) for offset in range(size))
    sums["repeats"] += np.bincount(rows, weights=total, minlength=len(sums["repeats"])).astype(np.int32)


def make_features(
    candidates: Candidates,
    contexts: list[Contexts],
    size: int,
    counts: list[np.ndarray],
) -> dict[str, np.ndarray]:
    """Features of all n-grams of one length, by name, `[C]` each.

    Args:
        candidates: the n-grams.
        contexts: from `count_contexts`.
        size: words of an n-gram, 2 or more.
        counts: occurrences of all n-grams by length: raw ones, or those that segmentation left.
    """
    level = candidates.levels[size - 1]
    features = _concordance(candidates, size, counts)
    features |= _completeness(candidates, size)
    features |= _informativeness(candidates, contexts, size)
    features |= {f"own_{name}": values for name, values in contexts[size - 1].shares.items()}
    features["rectified"] = counts[size - 1] / level.counts
    features["size"] = np.full(len(level), float(size))
    return features


def _concordance(candidates: Candidates, size: int, counts: list[np.ndarray]) -> dict[str, np.ndarray]:
    """How much more often the parts stand together than apart, at the split that makes apart likeliest."""
    total = float(candidates.num_words)
    best = np.zeros(len(candidates.levels[size - 1]))
    for left in range(1, size):
        head, tail = _part(candidates.levels, size, left, True), _part(candidates.levels, size, size - left, False)
        apart = (counts[left - 1][head] + 1.0) * (counts[size - left - 1][tail] + 1.0)
        best = np.maximum(best, apart)
    count = counts[size - 1] + 1.0
    pmi = np.log(count * total / best)
    return {"pmi": pmi, "together": count / np.sqrt(best), "count_pmi": np.sign(pmi) * np.log1p(count * np.abs(pmi))}


def _part(levels: list[Level], size: int, words: int, head: bool) -> np.ndarray:
    """Row of the first (or last) `words` words of each n-gram."""
    rows = np.arange(len(levels[size - 1]))
    for level in range(size, words, -1):
        rows = (levels[level - 1].prefix if head else levels[level - 1].suffix)[rows]
    return rows


def _completeness(candidates: Candidates, size: int) -> dict[str, np.ndarray]:
    level, above = candidates.levels[size - 1], candidates.levels[size]
    raw = np.maximum(level.counts, 1)
    below = candidates.levels[size - 2].counts
    longer_right, longer_left = np.zeros(len(level)), np.zeros(len(level))
    np.maximum.at(longer_right, above.prefix, above.counts)
    np.maximum.at(longer_left, above.suffix, above.counts)
    return {
        "of_shorter": raw / np.maximum(np.maximum(below[level.prefix], below[level.suffix]), 1),
        "of_first": raw / np.maximum(below[level.prefix], 1),
        "of_last": raw / np.maximum(below[level.suffix], 1),
        "longer_left": longer_left / raw,
        "longer_right": longer_right / raw,
        "longer": np.maximum(longer_left, longer_right) / raw,
    }


def _informativeness(candidates: Candidates, contexts: list[Contexts], size: int) -> dict[str, np.ndarray]:
    rows = candidates.word_rows(size)
    function = np.fromiter((word in FUNCTION_WORDS for word in candidates.words), dtype=float)
    digits = np.fromiter((any(c.isdigit() for c in word) for word in candidates.words), dtype=float)
    features = {
        "function_first": function[rows[:, 0]],
        "function_last": function[rows[:, -1]],
        "function": function[rows].mean(axis=1),
        "digits": digits[rows].mean(axis=1),
    }
    # What kind of word the first and the last one are, by their neighbours in the whole text.
    for name, shares in contexts[0].shares.items():
        features[f"first_{name}"] = shares[rows[:, 0]]
        features[f"last_{name}"] = shares[rows[:, -1]]
    return features
