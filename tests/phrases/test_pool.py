"""The pool: order, limits, files, matching, card, and its way to the Hub and back."""

from __future__ import annotations

import gzip
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, load_dataset

from rexbert_hf.phrases import PhrasePool, noun_phrase_overlap
from rexbert_hf.phrases.pool_card import pool_card, top_phrases

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))
from hub_server import HubServer


@pytest.fixture
def pool():
    return PhrasePool(
        ["Tea-Pot", "table lamp", "red tea", "desk lamp"],
        [0.9, 0.7, 0.1, 0.7],
        [5, 8, 2, 9],
        ["Kitchen", "Lighting", None, "Lighting"],
    )


def equal(left, right):
    return (
        left.phrases == right.phrases
        and left.categories == right.categories
        and np.array_equal(left.scores, right.scores)
        and np.array_equal(left.counts, right.counts)
        and left.fingerprint == right.fingerprint
    )


def test_best_first_and_one_for_equal_words(pool):
    assert pool.phrases == ["tea pot", "desk lamp", "table lamp", "red tea"]
    assert pool.scores.tolist() == [0.9, 0.7, 0.7, 0.1]
    assert pool.categories == ["Kitchen", "Lighting", "Lighting", None]
    doubled = PhrasePool(["Tea pot", "TEA-POT", "tea  pot"], [0.2, 0.8, 0.5])
    assert list(doubled) == [("tea pot", 0.8)]


def test_filter_and_top(pool):
    assert pool.filter(min_score=0.7).phrases == pool.phrases[:3]
    assert pool.filter(min_score=0.7, max_size=2).phrases == pool.top(2).phrases == pool.phrases[:2]
    assert len(pool.top(100)) == len(pool) == 4
    with pytest.raises(ValueError, match=r"no phrase is left of 4 with min_score 0\.95"):
        pool.filter(min_score=0.95)


def test_fingerprint_follows_phrases_and_scores(pool):
    same = PhrasePool(pool.phrases[::-1], pool.scores[::-1], pool.counts[::-1])
    assert same.fingerprint == pool.fingerprint
    assert pool.top(3).fingerprint != pool.fingerprint
    scores = pool.scores.copy()
    scores[0] += 1e-9
    assert PhrasePool(pool.phrases, scores, pool.counts).fingerprint != pool.fingerprint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "the phrase pool is empty"),
        ((["tea pot"], [1.2]), r"phrase 0 \('tea pot'\) is 1.2"),
        ((["a b", "c d"], [0.5, float("nan")]), r"phrase 1 \('c d'\) is nan"),
        ((["a b"], [-0.1]), "is -0.1"),
        ((["a b"], [0.1, 0.2]), "1 phrases with 2 scores"),
        ((["a b"], [0.1], [1, 2]), "1 phrases with 2 counts"),
        ((["a b", " "], [0.1, 0.2]), "phrase 1 is ' '"),
    ],
)
def test_bad_pools_are_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        PhrasePool(*arguments)
    assert "\n" not in str(caught.value)


def test_match(pool):
    texts = ["A red Tea-Pot and a desk lamp.", "no phrase", ""]
    assert pool.match(texts) == [[(2, 9, 0.1), (20, 29, 0.7)], [], []]  # the leftmost of "red tea" and "tea pot"
    assert pool.filter(min_score=0.5).match(texts) == [[(6, 13, 0.9), (20, 29, 0.7)], [], []]


def test_pickles_without_its_matcher(pool):
    pool.match(["tea pot"])
    again = pickle.loads(pickle.dumps(pool))
    assert equal(again, pool)
    assert again.match(["tea pot"]) == pool.match(["tea pot"])


def test_save_and_load(pool, tmp_path):
    pool.save(tmp_path)
    assert equal(PhrasePool.load(tmp_path), pool)
    rows = load_dataset(str(tmp_path), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["phrase"][:] == pool.phrases
    pool.top(1).save(tmp_path)  # replaces
    assert len(PhrasePool.load(tmp_path)) == 1
    no_categories = PhrasePool(["tea pot"], [0.5])
    no_categories.save(tmp_path)
    assert PhrasePool.load(tmp_path).categories is None


@pytest.mark.parametrize(
    ("name", "column"),
    [("products.parquet", "text"), ("products.parquet", "phrase"), ("train-00000-of-00001.parquet", "text")],
)
def test_parquet_files_of_others_are_refused_and_stay(pool, tmp_path, name, column):
    theirs = tmp_path / "data" / name
    theirs.parent.mkdir()
    Dataset.from_dict({column: ["red tea pot"], "score": [0.5]}).to_parquet(theirs)
    before = theirs.read_bytes()
    with pytest.raises(FileExistsError, match=f"{name} is no file of a phrase pool: choose another output_dir"):
        pool.save(tmp_path)
    assert theirs.read_bytes() == before
    assert [path.name for path in tmp_path.rglob("*")] == ["data", name]


def test_parts_of_an_older_pool_and_damaged_ones_are_replaced(pool, tmp_path):
    pool.save(tmp_path)
    part = tmp_path / "data" / "train-00000-of-00001.parquet"
    part.rename(part.with_name("train-00000-of-00002.parquet"))
    part.with_name("train-00001-of-00002.parquet").write_bytes(b"cut off")
    pool.top(1).save(tmp_path)
    assert [path.name for path in (tmp_path / "data").iterdir()] == [part.name]
    assert len(PhrasePool.load(tmp_path)) == 1


def test_what_is_no_pool(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no phrase pool"):
        PhrasePool.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        PhrasePool.load(tmp_path / "nowhere" / "at" / "all")
    (tmp_path / "data").mkdir()
    Dataset.from_dict({"phrase": ["a"]}).to_parquet(tmp_path / "data" / "train.parquet")
    with pytest.raises(ValueError, match="has no column score"):
        PhrasePool.load(tmp_path)


def test_autophrase_file(tmp_path):
    lines = "0.98\ttea pot\n0.40\tred tea\n\n0.75\ttable lamp\n"
    (tmp_path / "AutoPhrase.txt").write_text(lines)
    pool = PhrasePool.from_autophrase(tmp_path / "AutoPhrase.txt")
    assert list(pool) == [("tea pot", 0.98), ("table lamp", 0.75)]
    (tmp_path / "marked.txt").write_text(lines, encoding="utf-8-sig")  # as editors of Windows store it
    assert list(PhrasePool.from_autophrase(tmp_path / "marked.txt")) == list(pool)
    with gzip.open(tmp_path / "AutoPhrase.txt.gz", "wt") as file:
        file.write(lines)
    assert len(PhrasePool.from_autophrase(tmp_path / "AutoPhrase.txt.gz", min_score=0.0)) == 3
    with pytest.raises(ValueError, match=r"no phrase with a score of at least 0\.99"):
        PhrasePool.from_autophrase(tmp_path / "AutoPhrase.txt", min_score=0.99)


@pytest.mark.parametrize("line", ["tea pot", "1.7\ttea pot", "x\ttea pot", "0.7\t ", "nan\ttea pot"])
def test_a_bad_autophrase_line_is_named(tmp_path, line):
    path = tmp_path / "AutoPhrase.txt"
    path.write_text(f"0.9\ttable lamp\n{line}\n")
    with pytest.raises(ValueError, match=r"AutoPhrase.txt, line 2: not a score"):
        PhrasePool.from_autophrase(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"0.9\tcaf\xe9\n", "not UTF-8"),
        ("a.gz", b"0.9\ttea pot\n", "is damaged"),
        ("a.gz", gzip.compress(b"0.9\ttea pot\n" * 99, mtime=0)[:-9], "is damaged"),
    ],
    ids=["not UTF-8", "not gzip", "cut off"],  # an archive's bytes carry the time: no name for a test
)
def test_an_autophrase_file_that_cannot_be_read_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}:? {message}"):
        PhrasePool.from_autophrase(tmp_path / name)


def test_top_phrases_by_category(pool):
    assert top_phrases(pool) == {"Lighting": ["desk lamp", "table lamp"], "Kitchen": ["tea pot"]}
    assert top_phrases(PhrasePool(["a b", "c d"], [0.1, 0.9]), count=1) == {"all": ["c d"]}


def test_overlap_with_noun_phrases_by_hand(pool):
    rows = [
        {"text": "I bought the desk lamp.", "category": "Lighting"},
        {"text": "The tea pot is nice.", "category": "Lighting"},
        {"text": "We like the tea pot.", "category": "Kitchen"},
        {"text": "The table lamp broke.", "category": "Garden"},
    ]
    found = noun_phrase_overlap(pool, rows)
    assert found.categories == ["Lighting", "Kitchen"]
    assert found.shares.tolist() == [[0.5, 0.0], [1.0, 1.0]]
    assert (found.phrases, found.texts) == ([2, 1], 3)
    plain = noun_phrase_overlap(PhrasePool(["desk lamp", "red tea"], [0.5, 0.5]), [row["text"] for row in rows])
    assert plain.shares.tolist() == [[0.5]]


def test_overlap_reads_texts_of_every_category(pool):
    first = [{"text": "I bought the desk lamp.", "category": "Lighting"}] * 90
    rows = [*first, *[{"text": f"We like the {name}.", "category": "Kitchen"} for name in ("tea pot", "mug") * 20]]
    found = noun_phrase_overlap(pool, rows, max_texts=10)
    assert found.texts == 20
    assert found.shares.tolist() == [[0.5, 0.0], [0.0, 1.0]]  # the first ten rows hold no text of the kitchen


def test_card_shows_phrases_and_overlap(pool):
    rows = [{"text": "the desk lamp", "category": "Lighting"}]
    card = pool_card(pool, "me/pool", noun_phrase_overlap(pool, rows), license="mit")
    assert "| Lighting | desk lamp, table lamp |" in card
    assert "| Lighting | 2 | 50.0 |  |" in card  # no text of Kitchen was read
    assert 'load_dataset("me/pool", "default"' in card
    assert "license: mit" in card
    assert 'PhrasePool.load("me/pool")' in card


CLIENT = """
from datasets import load_dataset
from rexbert_hf.phrases import PhrasePool

pool = PhrasePool(["tea pot", "desk lamp"], [0.9, 0.1 + 0.2], [5, 9], ["Kitchen", None])
pool.push_to_hub("tester/pool", license="mit")
again = PhrasePool.load("tester/pool")
assert again.fingerprint == pool.fingerprint
assert (again.phrases, again.categories) == (pool.phrases, pool.categories)
assert again.counts.tolist() == [5, 9]
assert load_dataset("tester/pool", split="train")["phrase"][:] == pool.phrases
"""


def test_to_the_hub_and_back(tmp_path):
    with HubServer(tmp_path / "hub") as hub:
        environment = hub.environment(tmp_path / "home")
        done = subprocess.run([sys.executable, "-c", CLIENT], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        card = hub.files("tester/pool", "dataset")["README.md"].decode()
    assert "license: mit" in card
    assert "| Kitchen | tea pot |" in card
