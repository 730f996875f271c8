"""The matcher against a plain one that compares lists of words, and what bad pools and texts get."""

from __future__ import annotations

import logging
import pickle
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from word_cases import TEXTS, plain_units, plain_words

from rexbert_hf.phrases import word_ids, words
from rexbert_hf.phrases.hashing import EMPTY, SlotTable
from rexbert_hf.phrases.matcher import PhraseMatcher
from rexbert_hf.phrases.words import KIND_BREAK

# Few words, so that phrases begin alike, hold each other and occur.
PIECES = st.sampled_from(
    ["red", "Red", "lamp", "a", "\u0130b", "ib", "x-y", "3.5", "&", ".", ", ", " ", "-", "\n", "'s"]
)
POOL_TEXTS = st.lists(PIECES, min_size=1, max_size=5).map(" ".join) | st.lists(PIECES, min_size=1, max_size=4).map(
    "".join
)
POOLS = st.lists(st.tuples(POOL_TEXTS | TEXTS, st.integers(0, 100).map(lambda n: n / 100)), min_size=1, max_size=12)
LONG_TEXTS = st.lists(st.lists(PIECES, max_size=12).map(" ".join) | TEXTS, max_size=5)


def plain_match(pool, text, overlaps="longest", lower=True):
    """Compare every phrase with every place; quadratic and obvious."""
    best: dict[tuple[str, ...], float] = {}
    for phrase, score in pool:
        key = tuple(plain_words(phrase, lower))
        if any(char.isalnum() or is_mark(char) for word in key for char in word):
            best[key] = max(score, best.get(key, 0.0))
    units = plain_units(text, lower)
    found = []
    for first in range(len(units)):
        for end in range(first + 1, len(units) + 1):
            key = tuple(unit for _, _, unit in units[first:end])
            if key in best:
                found.append((units[first][0], units[end - 1][1], best[key]))
    if overlaps == "all":
        return found
    chosen: list[tuple[int, int, float]] = []
    for span in sorted(found, key=lambda span: (span[0], -span[1])):
        if not chosen or span[0] >= chosen[-1][1]:
            chosen.append(span)
    return chosen


def is_mark(char):
    return unicodedata.category(char) in ("Mn", "Mc", "Me") and not 0xFE00 <= ord(char) < 0xFE10


def has_word(pool):
    return any(char.isalnum() or is_mark(char) for phrase, _ in pool for unit in plain_words(phrase) for char in unit)


def matcher_of(pool, **options):
    return PhraseMatcher([phrase for phrase, _ in pool], np.array([score for _, score in pool]), **options)


@settings(max_examples=300, deadline=None)
@given(POOLS.filter(has_word), LONG_TEXTS, st.sampled_from(["longest", "all"]), st.booleans())
def test_matches_are_those_of_the_plain_matcher(pool, texts, overlaps, exact):
    matcher = matcher_of(pool, overlaps=overlaps, case_sensitive=exact)
    expected = [plain_match(pool, text, overlaps, not exact) for text in texts]
    assert matcher.match(texts) == expected
    assert pickle.loads(pickle.dumps(matcher)).match(texts) == expected


@settings(max_examples=50, deadline=None)
@given(POOLS.filter(has_word), LONG_TEXTS)
def test_columns_are_the_lists(pool, texts):
    matcher = matcher_of(pool)
    found = matcher.match_flat(texts)
    lists: list[list[tuple[int, int, float]]] = [[] for _ in texts]
    for text, start, end, phrase in zip(*(column.tolist() for column in found), strict=True):
        lists[text].append((start, end, float(matcher.scores[phrase])))
        assert plain_words(texts[text][start:end]) == plain_words(pool[phrase][0])
    assert lists == matcher.match(texts)


@pytest.mark.parametrize(
    ("phrase", "text", "expected"),
    [
        ("stainless steel", "STAINLESS-Steel, stainless  steel; stainless, steel", [(0, 15), (17, 33)]),
        ("steel", "steels stainless_steel unsteel steel's", [(17, 22)]),
        ("black & decker", "Black&Decker black decker BLACK  &  DECKER", [(0, 12), (26, 42)]),
        ("levi's", "Levi\u2019s levis levi s", [(0, 6)]),
        ("istanbul", "\u0130STANBUL I\u0307stanbul istanbul", [(0, 8), (9, 18), (19, 27)]),
        ("\u0130stanbul", "istanbul", [(0, 8)]),
        ("\u65e0\u7ebf", "\u6211\u7684\u65e0\u7ebf\u8033\u673a", [(2, 4)]),
        ("soft ware", "soft\u200bware soft\u00adware", [(0, 9)]),
        ("caf\u00e9 latte", "CAF\u00c9-LATTE cafe latte", [(0, 10)]),
        ("u.s. army", "the U.S. Army, us army", [(4, 13)]),
    ],
)
def test_word_borders(phrase, text, expected):
    found = PhraseMatcher([phrase], [0.5]).match([text])[0]
    assert [(start, end) for start, end, _ in found] == expected
    assert all(score == 0.5 for _, _, score in found)


def test_leftmost_wins_then_longest():
    matcher = PhraseMatcher(["a b", "b c d e", "a b c", "d"], [0.1, 0.2, 0.3, 0.4])
    assert matcher.match(["a b c d e"]) == [[(0, 5, 0.3), (6, 7, 0.4)]]
    everything = PhraseMatcher(["a b", "b c d e", "a b c", "d"], [0.1, 0.2, 0.3, 0.4], overlaps="all")
    assert everything.match(["a b c d e"]) == [[(0, 3, 0.1), (0, 5, 0.3), (2, 9, 0.2), (6, 7, 0.4)]]


def test_phrases_do_not_run_from_text_to_text():
    assert PhraseMatcher(["red lamp"], [1.0]).match(["red", "lamp", "red lamp"]) == [[], [], [(0, 8, 1.0)]]


def test_case_counts_when_asked():
    matcher = PhraseMatcher(["US army", "Levi\u2019s"], [1.0, 1.0], case_sensitive=True)
    assert matcher.match(["us army US  army", "Levi's levi's"]) == [[(8, 16, 1.0)], [(0, 6, 1.0)]]


def test_equal_phrases_take_the_best_score():
    matcher = PhraseMatcher(["T-shirt", "t shirt", "T shirt"], [0.3, 0.9, 0.9])
    assert matcher.match(["t-shirt"]) == [[(0, 7, 0.9)]]
    assert matcher.match_flat(["t-shirt"]).phrase.tolist() == [1]


def test_big_pool_is_found_whole():
    rng = np.random.default_rng(0)
    codes = np.unique(rng.integers(0, 300, (20_000, 4)), axis=0)
    pool = [" ".join(f"w{code}" for code in row[: 2 + index % 3]) for index, row in enumerate(codes)]
    scores = rng.random(len(pool))
    best: dict[str, float] = {}
    for phrase, score in zip(pool, scores.tolist(), strict=True):
        best[phrase] = max(score, best.get(phrase, 0.0))
    matcher = PhraseMatcher(pool, scores)
    found = matcher.match([f"{phrase}." for phrase in pool])
    assert found == [[(0, len(phrase), best[phrase])] for phrase in pool]
    assert matcher.nbytes < 150 * len(pool)


def test_long_phrase():
    phrase = " ".join(f"w{i}" for i in range(500))
    assert PhraseMatcher([phrase, "w1"], [1.0, 0.5]).match([phrase.upper()]) == [[(0, len(phrase), 1.0)]]


@pytest.mark.parametrize(
    ("phrases", "scores", "message"),
    [
        ([], [], "pool is empty"),
        (["a", "b"], [0.5], "2 phrases need as many scores"),
        (["a", "red lamp"], [0.5, 1.5], r"phrase 1 \('red lamp'\) has 1.5"),
        (["a"], [-0.1], "outside"),
        (["a"], [float("nan")], "outside"),
        (["!!", " "], [0.5, 0.5], "none of the 2 phrases"),
    ],
)
def test_bad_pools(phrases, scores, message):
    with pytest.raises(ValueError, match=message):
        PhraseMatcher(phrases, scores)


def test_unknown_mode_and_wrong_types():
    with pytest.raises(ValueError, match="overlaps"):
        PhraseMatcher(["a"], [1.0], overlaps="some")
    with pytest.raises(TypeError, match="text 1 is NoneType"):
        PhraseMatcher(["a", None], [1.0, 1.0])
    with pytest.raises(TypeError, match="text 2 is bytes"):
        PhraseMatcher(["a"], [1.0]).match(["a", "b", b"c"])


def test_phrases_without_words_are_left_out_and_counted(caplog):
    with caplog.at_level(logging.WARNING):
        matcher = PhraseMatcher(["...", "red", ""], [0.5, 0.6, 0.7])
    assert matcher.left_out == 2
    assert "left out 2 phrases" in caplog.text
    assert matcher.match(["... red ."]) == [[(4, 7, 0.6)]]


def test_fingerprint_tells_pools_apart():
    def of(phrases=("a b", "c"), scores=(0.5, 0.6), **options):
        return PhraseMatcher(phrases, scores, **options).fingerprint

    assert of() == of()
    others = [of(("a b", "d")), of(("a", "b c")), of(scores=(0.5, 0.61)), of(overlaps="all"), of(case_sensitive=True)]
    assert len({of(), *others}) == 6


def weak_hashes(bits):
    """Hashes of a few bits: collisions are the rule."""
    strong = words.unit_hashes

    def weak(*args):
        return (strong(*args) >> np.uint64(64 - bits)) + np.uint64(1)

    return weak


def test_colliding_hashes_give_no_wrong_match(monkeypatch):
    pool = [("red lamp", 0.5), ("red", 0.4), ("blue lamp shade", 0.7)]
    rng = np.random.default_rng(0)
    vocabulary = ["red", "lamp", "blue", "shade", *(f"w{i}" for i in range(300))]
    texts = [" ".join(rng.choice(vocabulary, 30)) for _ in range(30)]
    expected = [plain_match(pool, text) for text in texts]
    monkeypatch.setattr(words, "unit_hashes", weak_hashes(6))
    matcher = matcher_of(pool)
    assert matcher.match(texts) == expected
    monkeypatch.setattr(word_ids.WordIds, "differing", lambda self, words, units, ids: units[:0])
    assert matcher.match(texts) != expected, "this test needs collisions"


def test_colliding_words_of_a_pool_are_an_error(monkeypatch):
    monkeypatch.setattr(words, "unit_hashes", weak_hashes(3))
    with pytest.raises(ValueError, match="have the same hash"):
        PhraseMatcher([f"w{i}" for i in range(20)], np.ones(20))


def test_collisions_are_seen_across_chunks(monkeypatch):
    monkeypatch.setattr(words, "unit_hashes", weak_hashes(1))
    chunks = [words.split_words([word]) for word in ("a", "b", "c")]
    with pytest.raises(ValueError, match="have the same hash"):
        word_ids.WordIds(chunks)


@settings(max_examples=100, deadline=None)
@given(st.sets(st.integers(0, 2**64 - 2), max_size=60), st.sets(st.integers(0, 2**64 - 2), max_size=20))
def test_slot_table_finds_its_keys_alone(held, others):
    table = SlotTable(len(held))
    keys = np.array(sorted(held), dtype=np.uint64)
    slots = table.insert(keys)
    assert len(set(slots.tolist())) == len(keys)
    np.testing.assert_array_equal(table.keys[slots], keys)
    asked = sorted(held | others)
    found = table.find(np.array(asked, dtype=np.uint64))
    assert [slot >= 0 for slot in found] == [key in held for key in asked]
    np.testing.assert_array_equal(table.keys[found[found >= 0]], keys)
    assert (table.keys != EMPTY).sum() == len(keys)


def test_breaks_are_no_words():
    split = words.split_words(["red", ""])
    assert (PhraseMatcher(["red"], [1.0])._words.find(split.hashes) >= 0).tolist() == [True, False, False]
    assert split.kind[1:].tolist() == [KIND_BREAK, KIND_BREAK]
