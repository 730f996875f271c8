from __future__ import annotations

import random

import numpy as np
import pytest
from filter_cases import text_of
from hypothesis import given, settings
from hypothesis import strategies as st

from rexbert_hf.corpus.duplicates import EXACT, KEPT, NEAR, duplicates_of, find_duplicates, sign
from rexbert_hf.corpus.near_duplicates import NearDuplicateSettings, minhash, similarity
from rexbert_hf.corpus.normalise import Normaliser, normalise_texts

WORDS = [f"w{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(400)]


def edited(text: str, changes: int, rng: random.Random) -> str:
    words = text.split()
    for place in rng.sample(range(len(words)), changes):
        words[place] = rng.choice(WORDS)
    return " ".join(words)


def long_text(rng: random.Random, words: int = 200) -> str:
    return " ".join(rng.choices(WORDS, k=words))


def shingle_sets(texts: list[str], settings: NearDuplicateSettings) -> list[set[str]]:
    """The shingles themselves: what `minhash` hashes."""
    sets = []
    for line in normalise_texts(texts, Normaliser("keep", 1 << 20)):
        words, size = line.split(), settings.shingle_words
        last = max(1, len(words) - size + 1) if words else 0
        sets.append({" ".join(words[i : i + size]) for i in range(last)})
    return sets


def jaccard(first: set[str], second: set[str]) -> float:
    return len(first & second) / len(first | second)


def test_estimates_are_those_of_comparing_the_shingles():
    """Each value agrees with probability J, so the mean of 120 has a deviation of at most 0.046; 5 of them."""
    rng = random.Random(0)
    settings_ = NearDuplicateSettings()
    texts = [long_text(rng) for _ in range(60)]
    others = [edited(text, i, rng) for i, text in enumerate(texts)]
    estimated = similarity(minhash(texts).values, minhash(others).values)
    sets = shingle_sets(texts, settings_), shingle_sets(others, settings_)
    exact = np.array([jaccard(a, b) for a, b in zip(*sets, strict=True)])
    assert np.abs(estimated - exact).max() < 5 * 0.046
    assert abs((estimated - exact).mean()) < 5 * 0.046 / np.sqrt(60)
    assert exact.min() < 0.3


def brute_force(texts: list[str], settings_: NearDuplicateSettings) -> list[int]:
    """What the rule says, pair by pair in plain Python."""
    seen: dict[str, int] = {}
    kept: list[int] = []
    verdicts = []
    sets = shingle_sets(texts, settings_)
    numbers = [{word for word in text.lower().split() if any(map(str.isdigit, word))} for text in texts]
    for i, text in enumerate(texts):
        normal = " ".join(text.lower().split())
        if normal in seen:
            verdicts.append(EXACT)
            continue
        seen[normal] = i
        same = any(numbers[i] == numbers[j] and jaccard(sets[i], sets[j]) >= settings_.threshold for j in kept)
        verdicts.append(NEAR if same else KEPT)
        if not same:
            kept.append(i)
    return verdicts


def corpus_of_families(seed: int) -> list[str]:
    """Originals with copies whose overlap is far from the threshold on either side, shuffled."""
    rng = random.Random(seed)
    texts = []
    for _ in range(40):
        text = long_text(rng)
        texts.append(text)
        texts += [edited(text, 1, rng) for _ in range(rng.randint(0, 2))]  # overlap 0.95, of two copies 0.9
        texts += [edited(text, 60, rng) for _ in range(rng.randint(0, 1))]  # overlap 0.15 or so
        texts += [f"{text} model {rng.randint(10, 99)}" for _ in range(rng.randint(0, 2))]
        texts += [text.upper()] * rng.randint(0, 1)
    rng.shuffle(texts)
    return texts


@pytest.mark.parametrize("seed", range(5))
def test_duplicates_are_those_of_comparing_every_pair(seed):
    texts = corpus_of_families(seed)
    verdicts = duplicates_of(texts)
    assert verdicts.tolist() == brute_force(texts, NearDuplicateSettings())
    assert set(verdicts.tolist()) == {KEPT, EXACT, NEAR}


def test_products_that_differ_in_a_number_are_different_documents():
    rng = random.Random(1)
    page = long_text(rng, 300)
    texts = [f"iphone 12 case {page}", f"iphone 13 case {page}", f"iphone 12 case {page} new"]
    assert duplicates_of(texts).tolist() == [KEPT, KEPT, NEAR]
    loose = NearDuplicateSettings(numbers="shingles")
    assert duplicates_of(texts, settings=loose).tolist() == [KEPT, NEAR, NEAR]
    assert duplicates_of(["iphone 12 case", "iphone 13 case", "iPhone  12 case"]).tolist() == [KEPT, KEPT, EXACT]


def test_numbers_are_a_set_in_any_order():
    rng = random.Random(2)
    page = long_text(rng, 300)
    assert duplicates_of([f"4 mugs 30 cm {page}", f"30 cm 4 mugs {page}"]).tolist() == [KEPT, NEAR]
    assert duplicates_of([f"4 mugs {page} 4", f"4 mugs {page}"]).tolist() == [KEPT, NEAR]


@pytest.mark.parametrize("cuts", [[], [1], [7, 8], [50, 51, 90]])
@pytest.mark.parametrize("part_size", [1 << 20, 40, 7])
def test_neither_shards_nor_parts_change_the_result(tmp_path, cuts, part_size):
    texts, near = corpus_of_families(3), NearDuplicateSettings()
    folders = []
    for i, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(texts)], strict=True)):
        folders.append(tmp_path / str(i))
        sign(texts[start:end], True, near).save(folders[-1])
    found = find_duplicates(folders, True, near, part_size)
    assert [len(part) for part in found] == [len(texts[s:e]) for s, e in zip([0, *cuts], [*cuts, None], strict=True)]
    assert np.concatenate(found).tolist() == brute_force(texts, near)


def test_drifting_copies_do_not_chain_to_the_first():
    """Each is near its neighbour, the last far from the first: some of them must stay."""
    rng = random.Random(4)
    texts = [long_text(rng, 300)]
    for _ in range(20):
        texts.append(edited(texts[-1], 4, rng))
    kept = np.flatnonzero(duplicates_of(texts) == KEPT)
    assert 3 <= len(kept) <= 15
    sets = shingle_sets([texts[i] for i in kept], NearDuplicateSettings())
    overlaps = [jaccard(a, b) for i, a in enumerate(sets) for b in sets[:i]]
    assert max(overlaps) < 0.8 + 4 * 0.037


@given(st.lists(st.text(max_size=60), min_size=1, max_size=8))
@settings(max_examples=60)
def test_signatures_are_of_the_text_alone(texts):
    together = minhash(texts)
    for i, text in enumerate(texts):
        alone = minhash([text])
        assert (together.keys[:, i] == alone.keys[:, 0]).all()
        assert (together.values[i] == alone.values[0]).all()


def test_a_batch_of_any_size_gives_the_same_signatures(monkeypatch):
    rng = random.Random(5)
    texts = [text_of(i % 2 == 0, rng, rng.randint(1, 80)) for i in range(50)]
    whole = minhash(texts)
    monkeypatch.setattr("rexbert_hf.corpus.near_duplicates._BATCH_CHARS", 300)
    parts = minhash(texts)
    assert (whole.keys == parts.keys).all()
    assert (whole.values == parts.values).all()


def test_nothing_to_compare():
    assert duplicates_of([]).tolist() == []
    assert minhash([]).keys.shape == (20, 0)


@pytest.mark.parametrize("wrong", [{"threshold": 0.0}, {"threshold": 1.5}, {"shingle_words": 0}, {"bands": 0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        NearDuplicateSettings(**wrong)
