"""Known phrases, scores, and whole mining runs on texts whose phrases are known."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import mining_cases as cases
import numpy as np
import pytest

from rexbert_hf.phrases import MiningOptions, PhrasePool
from rexbert_hf.phrases.candidates import count_candidates
from rexbert_hf.phrases.features import count_contexts, make_features
from rexbert_hf.phrases.mining import FEW_KNOWN, mine_phrases
from rexbert_hf.phrases.quality import known_phrases, score_candidates
from rexbert_hf.phrases.spool import Spool


def features_of(texts, phrase, max_words=3, min_count=2):
    """Features of one n-gram by name, with raw counts."""
    size = len(phrase.split(" "))
    with Spool() as spool:
        spool.write(texts)
        found = count_candidates(spool, max_words, min_count)
        contexts = count_contexts(spool, found, max_words)
        columns = make_features(found, contexts, size, [level.counts for level in found.levels])
        row = found.texts(size).index(phrase)
        return {name: float(values[row]) for name, values in columns.items()}


def test_features_of_a_text_counted_by_hand():
    # 24 words; "tea pot" 4 times: after "the" twice, at the start twice; before a mark 3 times, before "is" once.
    texts = [
        "the tea pot is red",
        "Tea Pot, red",
        '"tea-pot"',
        "see the tea pot.",
        "tea tea the lamp is red is red the",
    ]
    found = features_of(texts, "tea pot")
    assert found["own_left_determiner"] == 2 / 4
    assert found["own_left_mark"] == 2 / 4
    assert found["own_right_mark"] == 3 / 4
    assert found["own_right_copula"] == 1 / 4
    assert found["own_alone"] == 2 / 4
    assert found["own_framed"] == 1.0
    assert found["own_quoted"] == 1 / 4
    assert found["own_hyphen"] == 1 / 4
    assert found["own_title"] == 1 / 4
    assert found["own_capital"] == 0.0  # the one capital begins a run
    # tea 6 times, pot 4 times, 23 words
    words = sum(len(run) for text in texts for run in cases.plain_runs(text))
    assert found["pmi"] == pytest.approx(np.log(5 * words / (7 * 5)))
    assert found["together"] == pytest.approx(5 / np.sqrt(7 * 5))
    assert found["of_first"] == 4 / 6
    assert found["of_last"] == 4 / 4
    assert found["longer_left"] == 2 / 4  # "the tea pot"
    assert found["longer_right"] == 0.0  # "tea pot is" is below the support
    assert found["function"] == 0.0
    assert found["rectified"] == 1.0
    assert found["count_pmi"] == pytest.approx(np.log1p(5 * found["pmi"]))


def test_repeats_are_counted_within_a_text():
    once = features_of(["red lamp", "red lamp", "blue"], "red lamp")
    twice = features_of(["red lamp and red lamp", "blue"], "red lamp")
    assert (once["own_repeats"], twice["own_repeats"]) == (0.0, 1.0)


def test_known_phrases():
    names = ["Home > Table Lamps", "Ranges, Cooktops & Wall Ovens", "The Lamp of", "Lamps", "Black & Decker", "12 34"]
    found = known_phrases(names)
    assert {"table lamps", "wall ovens", "black & decker", "ranges cooktops"} - found == {"ranges cooktops"}
    assert not {"lamps", "the lamp of", "12 34", "home"} & found
    with pytest.raises(ValueError, match="one string"):
        known_phrases("Table Lamps")
    with pytest.raises(ValueError, match="known phrase 1 is NoneType"):
        known_phrases(["a", None])


def test_scores_tell_apart_what_features_tell_apart():
    rng = np.random.default_rng(0)
    good = rng.random(2000) < 0.2
    features = rng.normal(size=(2000, 6)).astype(np.float32)
    features[:, 2] += 3.0 * good
    known = good & (rng.random(2000) < 0.3)  # the other good ones are drawn as negatives now and then
    scores = score_candidates(features, known, trees=100, sample=50)
    assert scores.min() >= 0.0
    assert scores.max() <= 1.0
    unknown = good & ~known
    assert scores[unknown].mean() > 0.7
    assert scores[~good].mean() < 0.3
    again = score_candidates(features, known, trees=100, sample=50)
    np.testing.assert_array_equal(scores, again)
    other = score_candidates(features, known, trees=100, sample=50, seed=1)
    assert not np.array_equal(scores, other)


def test_phrases_of_a_small_shop_are_found():
    pool = PhrasePool.mine(cases.shop_texts(), ["Tea Pot", "Table Lamps > Table Lamp"], min_count=5, trees=50)
    assert {"tea pot", "table lamp", "stainless steel bottle"} <= set(pool.phrases)
    assert "the tea" not in pool.phrases
    assert "steel bottle is" not in pool.phrases
    assert pool.counts[pool.phrases.index("stainless steel bottle")] == 36
    facts = pool.facts
    assert (facts["texts"], facts["known_candidates"], facts["phrases"]) == (60, 2, len(pool))


@pytest.mark.parametrize("rounds", [1, 3])
def test_threads_change_nothing(rounds):
    options = {"min_count": 5, "trees": 20, "min_score": 0.0, "rounds": rounds}
    one = PhrasePool.mine(cases.shop_texts(), ["Tea Pot"], threads=1, **options)
    more = PhrasePool.mine(cases.shop_texts(), ["Tea Pot"], threads=3, **options)
    assert one.fingerprint == more.fingerprint


def test_rectified_counts_enter_the_second_round():
    options = {"min_count": 5, "trees": 50, "min_score": 0.0}
    first = PhrasePool.mine(cases.shop_texts(), ["Tea Pot"], rounds=1, **options)
    second = PhrasePool.mine(cases.shop_texts(), ["Tea Pot"], rounds=2, **options)
    assert first.phrases != second.phrases or not np.array_equal(first.scores, second.scores)


def test_a_repeated_sentence_is_no_evidence():
    sentence = "you can put the red enamel tea pot on a wooden shelf next to it"
    texts = cases.shop_texts() + [sentence] * 30
    options = {"min_count": 5, "trees": 5, "min_score": 0.0}
    counted = PhrasePool.mine(texts, ["Table Lamp"], **options)
    assert "red enamel" not in counted.phrases
    every = PhrasePool.mine(texts, ["Table Lamp"], distinct_words=0, **options)
    assert every.counts[every.phrases.index("red enamel")] == 30
    assert counted.facts["repeated_words"] > every.facts["repeated_words"] == 0


SPOOLS = """
import sys, time
from rexbert_hf.phrases.spool import Spool
spool = Spool(sys.argv[1])
print(spool.path, flush=True)
time.sleep(600)
"""


def test_what_a_killed_mining_left_in_work_dir_goes_and_what_is_in_use_stays(tmp_path):
    place, theirs = tmp_path / "made" / "when missing", "phrases-of-mine"
    command = [sys.executable, "-c", SPOOLS, str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        other = Path(process.stdout.readline().strip())
        (place / theirs).mkdir()
        with Spool(place) as own:
            assert own.path.parent == other.parent == place
            with Spool(place):
                assert own.path.is_dir()
                assert other.is_dir()
        process.kill()
        process.wait()
    assert other.is_dir()
    Spool(place).close()
    assert [path.name for path in place.iterdir()] == [theirs]


def test_a_work_dir_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    options = MiningOptions(work_dir=tmp_path / "file" / "below")
    with pytest.raises(OSError, match=r"^work_dir .*below cannot be written \(Not a directory\): set another one$"):
        mine_phrases(["a red lamp"], ["red lamp"], options)


def test_categories_are_where_a_phrase_is_typical():
    rows = [{"text": "a tea pot, a gift box", "category": "Kitchen"}] * 6
    rows += [{"text": "a table lamp, a gift box", "category": "Lighting"}] * 6
    rows += [{"text": "a desk chair", "category": None}] * 6
    pool = PhrasePool.mine(rows, ["Tea Pot"], min_count=3, min_score=0.0, trees=5)
    found = dict(zip(pool.phrases, pool.categories, strict=True))
    assert found["tea pot"] == "Kitchen"
    assert found["table lamp"] == "Lighting"
    assert found["desk chair"] is None


def test_a_handful_of_known_phrases_is_told(caplog):
    colours = ["red", "green", "blue", "black", "white"]
    things = ["lamp", "chair", "table", "stool", "shelf"]
    names = [f"{colour} {thing}" for colour in colours for thing in things]
    texts = [f"a {name}, so they say" for name in names] * 3
    options = MiningOptions(trees=5, min_count=3, min_score=0.0)
    mine_phrases(texts, names[:FEW_KNOWN], options)
    assert not [one for one in caplog.records if one.levelname == "WARNING"]
    mine_phrases(texts, names[:1], options)
    (said,) = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert re.match(r"only 1 of \d+ candidates are known phrases, too few to learn from .*: give positives of", said)


@pytest.mark.parametrize(
    ("texts", "positives", "options", "message"),
    [
        ([], ["Tea Pot"], {}, "there is nothing to mine: 0 texts"),
        (["", " .. "], ["Tea Pot"], {}, "there is nothing to mine: 2 texts"),
        (["tea pot"], ["Tea Pot"], {}, "no two words stand together 10 times"),
        (["red tea pot"] * 12, ["Table Lamp"], {}, "none of the 1 known phrases"),
        (["tea pot"] * 12, ["Tea Pot"], {}, "nothing to tell apart"),
        (["red tea pot"] * 12, ["Tea Pot"], {"max_words": 1}, "max_words must be at least 2; got 1"),
        (["red tea pot"] * 12, ["Tea Pot"], {"min_score": 1.5}, r"min_score must be in \[0, 1\]"),
    ],
)
def test_bad_input_is_one_line(texts, positives, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        mine_phrases(texts, positives, MiningOptions(trees=5, **options))
    assert "\n" not in str(caught.value)
