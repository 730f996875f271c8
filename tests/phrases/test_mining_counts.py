"""Spool and candidates against n-grams counted one by one; segmentation against all cuts of a run."""

from __future__ import annotations

import itertools

import mining_cases as cases
import numpy as np
import pytest

from rexbert_hf.phrases import candidates as candidates_module
from rexbert_hf.phrases import spool as spool_module
from rexbert_hf.phrases.candidates import count_candidates, places
from rexbert_hf.phrases.segmentation import rectified_counts
from rexbert_hf.phrases.spool import RARE, TEXT_END, Spool, read_rows


@pytest.fixture
def small_chunks(monkeypatch):
    """Many chunks, so that what crosses their borders is seen."""
    monkeypatch.setattr(spool_module, "CHUNK_POSITIONS", 200)
    monkeypatch.setattr(spool_module, "_BATCH_CHARACTERS", 300)


def counted(texts, max_words=4, min_count=3, threads=1):
    with Spool(threads=threads) as spool:
        spool.write(texts)
        found = count_candidates(spool, max_words, min_count)
        return {
            size: dict(zip(found.texts(size), found.levels[size - 1].counts.tolist(), strict=True))
            for size in range(1, max_words + 2)
        }


@pytest.mark.parametrize("threads", [1, 3])
def test_frequent_ngrams_are_those_counted_one_by_one(small_chunks, threads):
    texts = cases.random_texts(600)
    found = counted(texts, threads=threads)
    for size in range(1, 6):
        plain = {gram: count for gram, count in cases.plain_counts(texts, size).items() if count >= 3}
        assert found[size] == plain
    assert len(found[3]) > 50


def test_counting_in_parts_and_with_full_buckets_changes_nothing(small_chunks, monkeypatch):
    texts = cases.random_texts(400, seed=1)
    whole = counted(texts)
    monkeypatch.setattr(candidates_module, "_PART", 100)
    monkeypatch.setattr(candidates_module, "_PENDING", 50)
    monkeypatch.setattr(candidates_module, "_BUCKETS_LOG2", 4)  # every bucket holds many pairs
    assert counted(texts) == whole


def test_places_are_where_the_ngrams_stand(small_chunks):
    texts = cases.random_texts(200, seed=2)
    with Spool() as spool:
        spool.write(texts)
        found = count_candidates(spool, 3, 3)
        assert len(spool) > 1
        for size in (2, 3):
            rows_of = found.word_rows(size)
            total = np.zeros(len(rows_of), dtype=int)
            for index in range(len(spool)):
                ids = spool.load("ids", index)
                at, rows = places(spool, size, index)
                for offset in range(size):
                    np.testing.assert_array_equal(ids[at + offset], rows_of[rows, offset])
                total += np.bincount(rows, minlength=len(total))
            np.testing.assert_array_equal(total, found.levels[size - 1].counts)


def test_rare_words_stay_in_their_place_and_texts_stay_apart():
    with Spool() as spool:
        spool.write(["red lamp", "lamp rare red", "red"])
        count_candidates(spool, 2, 2)
        red, lamp = 0, 1
        expected = [TEXT_END, red, lamp, TEXT_END, lamp, RARE, red, TEXT_END, red, TEXT_END]
        assert spool.load("ids", 0).tolist() == expected


def test_repeated_long_runs_count_once(small_chunks):
    rng = np.random.default_rng(4)
    runs = [" ".join(rng.choice(cases.WORDS[:6], size=rng.integers(2, 9))) for _ in range(60)]
    written = [runs[i] for i in rng.integers(60, size=800)]
    texts = [f"{left}, {right}!" for left, right in zip(written[::2], written[1::2], strict=True)]
    seen: set[str] = set()
    kept = []
    for run in written:
        if len(run.split()) < 5 or run not in seen:
            kept.append(run)
        seen.add(run)
    words = sum(len(run.split()) for run in kept)
    with Spool(distinct_words=5) as spool:
        spool.write(texts)
        assert len(spool) > 1
        assert (spool.num_words, spool.num_repeated) == (words, sum(len(run.split()) for run in written) - words)
        found = count_candidates(spool, 3, 3)
        grams = dict(zip(found.texts(3), found.levels[2].counts.tolist(), strict=True))
    assert grams == {gram: count for gram, count in cases.plain_counts(kept, 3).items() if count >= 3}
    assert len(kept) < 800


def test_the_same_words_in_another_order_are_another_run():
    with Spool(distinct_words=2) as spool:
        spool.write(["red tea pot", "pot tea red", "tea red pot", "red tea pot"])
        words = ["." if i == TEXT_END else spool.vocabulary.spellings[i] for i in spool.load("ids", 0).tolist()]
        assert " ".join(words) == ". red tea pot . pot tea red . tea red pot . ."
        assert (spool.num_words, spool.num_repeated) == (9, 3)


def test_texts_are_read_once_and_need_not_be_a_list():
    taken = []

    def stream():
        for text in cases.random_texts(50):
            taken.append(text)
            yield text

    assert counted(stream()) == counted(lambda: cases.random_texts(50)) == counted(cases.random_texts(50))
    assert len(taken) == 50


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one text", "texts is one string"),
        (["a", None], "text 1 is NoneType"),
        ([{"title": "a"}], "text 0 is NoneType"),
        ([{"text": "a", "category": 3}], "the category of text 0 is int"),
    ],
)
def test_rows_that_are_no_text(texts, message):
    with pytest.raises(ValueError, match=message) as caught:
        list(read_rows(texts))
    assert "\n" not in str(caught.value)


def test_the_folder_is_gone_afterwards(tmp_path):
    with Spool(tmp_path) as spool:
        spool.write(["red lamp"])
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def best_cut(run, weight):
    """Pieces of the best of all cuts of a run, tried one by one; None where two cuts are equally good."""
    cuts = []
    for borders in itertools.product([False, True], repeat=len(run) - 1):
        edges = [0, *(i + 1 for i, border in enumerate(borders) if border), len(run)]
        pieces = [" ".join(run[a:b]) for a, b in itertools.pairwise(edges)]
        cuts.append((sum(weight(piece) for piece in pieces), pieces))
    cuts.sort(key=lambda cut: -cut[0])
    best, pieces = cuts[0]
    # "tea tea | tea" and "tea | tea tea" count the same.
    rivals = [value for value, others in cuts if sorted(others) != sorted(pieces)]
    return None if rivals and best - rivals[0] < 1e-4 else pieces


def test_segmentation_is_the_best_of_all_cuts(small_chunks):
    texts = [text for text in cases.random_texts(400, seed=3) if all(len(run) < 9 for run in cases.plain_runs(text))]
    with Spool() as spool:
        spool.write(texts)
        found = count_candidates(spool, 3, 3)
        rng = np.random.default_rng(0)
        scores = [np.zeros(0)] + [rng.uniform(0.02, 1.0, len(found.levels[size - 1])) for size in (2, 3)]
        counts = rectified_counts(spool, found, scores, 3)
        names = {size: found.texts(size) for size in (1, 2, 3)}
        quality = {name: value for size in (2, 3) for name, value in zip(names[size], scores[size - 1], strict=True)}
    raw = {size: cases.plain_counts(texts, size) for size in (1, 2, 3)}
    total = sum(raw[1].values())

    def weight(piece):
        size = len(piece.split(" "))
        if size == 1:
            return np.log(raw[1][piece] / total * 0.5)
        if quality.get(piece, 0.0) < 0.05:
            return -np.inf
        return np.log(raw[size][piece] / total * quality[piece])

    expected = {size: dict.fromkeys(names[size], 0) for size in (1, 2, 3)}
    ties = 0
    for run in (run for text in texts for run in cases.plain_runs(text)):
        pieces = best_cut(run, weight)
        ties += pieces is None
        for piece in pieces or ():
            expected[len(piece.split(" "))][piece] += 1
    assert ties == 0
    for size in (1, 2, 3):
        assert dict(zip(names[size], counts[size - 1].tolist(), strict=True)) == expected[size]
    assert sum(expected[3].values()) > 10
