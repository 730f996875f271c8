from __future__ import annotations

import math

import numpy as np
import pytest

from rexbert_hf.masking.span_budget import geometric_table, spread_spans

TABLE = geometric_table(0.2, 10)


def generator(seed=0):
    return np.random.Generator(np.random.SFC64(seed))


def runs_of(masked):
    borders = np.flatnonzero(np.diff(masked.astype(int), prepend=0, append=0))
    return borders[1::2] - borders[::2]


def circular_runs(masked):
    """Lengths of the runs of True on a circle that is not all True."""
    start = int(np.flatnonzero(~masked)[0])
    return runs_of(np.roll(masked, -start))


def spans_in_plain_python(words, share, rng):
    """Lengths of one text's spans: drawn until the budget is full, the last one cut."""
    exact = words * share
    budget = math.floor(exact) + (rng.random() < exact - math.floor(exact))
    law = 0.8 ** np.arange(10)
    found = []
    while sum(found) < budget:
        found.append(min(int(rng.choice(10, p=law / law.sum())) + 1, budget - sum(found)))
    return found


def test_every_text_meets_its_own_budget():
    words = np.tile([0, 1, 2, 3, 7, 20, 41], 100)
    share = np.tile([0.15, 0.35, 0.5], 700)[:700]
    rng = generator()
    text = np.repeat(np.arange(700), words)
    total = np.zeros(700)
    for _ in range(200):
        chosen = np.bincount(text[spread_spans(words, share, TABLE, rng)], minlength=700)
        exact = words * share
        assert (np.abs(chosen - exact) < 1).all(), "rounded up or down, no more"
        total += chosen
    # Rounding is a coin of variance at most 1/4.
    assert np.abs(total / 200 - words * share).max() < 5 * 0.5 / math.sqrt(200)


def test_every_word_has_the_same_probability():
    """Starts are uniform: the first and the last words as well."""
    words, rng = np.full(400, 9), generator(1)
    counts = sum(spread_spans(words, np.full(400, 0.35), TABLE, rng).reshape(400, 9).sum(0) for _ in range(100))
    assert np.abs(counts / 40_000 - 0.35).max() < 5 * math.sqrt(0.35 * 0.65 / 40_000)


@pytest.mark.parametrize(("size", "share"), [(400, 0.15), (20, 0.15), (6, 0.35)])
def test_lengths_follow_the_law(size, share):
    rng = generator(2)
    chosen = spread_spans(np.full(20_000 // size * 10, size), np.full(20_000 // size * 10, share), TABLE, rng)
    lengths = np.concatenate([circular_runs(text) for text in chosen.reshape(-1, size)])
    plain = np.random.default_rng(3)
    expected = np.concatenate([spans_in_plain_python(size, share, plain) for _ in range(20_000 // size * 10)])
    found, wanted = (np.bincount(x, minlength=11)[1:] for x in (lengths, expected))
    assert abs(found.sum() - wanted.sum()) < 5 * math.sqrt(found.sum() + wanted.sum())
    for a, b in zip(found, wanted, strict=True):
        assert abs(a - b) < 5 * math.sqrt(a + b + 1), (found, wanted)


def test_long_texts_have_the_geometric_distribution_itself():
    chosen = spread_spans(np.full(40, 20_000), np.full(40, 0.15), TABLE, generator(4))
    lengths = np.concatenate([circular_runs(text) for text in chosen.reshape(40, -1)])
    law = 0.8 ** np.arange(10)
    law /= law.sum()
    found = np.bincount(lengths, minlength=12)[1:] / len(lengths)
    assert found[10:].sum() == 0
    assert np.abs(found[:10] - law).max() < 5 * math.sqrt(0.22 * 0.78 / len(lengths))


def test_first_words_of_spans_are_uniform():
    chosen = spread_spans(np.full(20_000, 12), np.full(20_000, 0.25), TABLE, generator(5)).reshape(-1, 12)
    begins = (chosen & ~np.roll(chosen, 1, axis=1)).sum(0)
    assert np.abs(begins - begins.mean()).max() < 5 * math.sqrt(begins.mean())


@pytest.mark.parametrize("share", [0.0, 1.0, 0.9])
def test_extreme_shares(share):
    words = np.array([1, 5, 0, 30])
    for seed in range(50):
        chosen = spread_spans(words, np.full(4, share), TABLE, generator(seed))
        assert abs(chosen.sum() - share * 36) <= 3
        if share in (0.0, 1.0):
            assert chosen.mean() == share


def test_nothing_to_choose_from():
    assert len(spread_spans(np.zeros(3, dtype=np.int64), np.full(3, 0.5), TABLE, generator())) == 0
    assert len(spread_spans(np.zeros(0, dtype=np.int64), np.zeros(0), TABLE, generator())) == 0


@pytest.mark.parametrize(
    ("p", "longest", "problem"), [(0, 10, "geometric_p"), (1, 10, "geometric_p"), (0.2, 0, "max_words")]
)
def test_bad_laws(p, longest, problem):
    with pytest.raises(ValueError, match=problem):
        geometric_table(p, longest)
