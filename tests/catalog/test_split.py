from __future__ import annotations

import hashlib
import random

import pytest
from datasets import Dataset

from rexbert_hf.catalog import deduplicate, normalize_text, split_dataset, split_of, split_queries

# Texts that fall just where they do because of their sha1; a change here moves documents between the splits of
# everybody's runs.
GOLDEN = {
    "steel kettle 121": "test",
    "steel kettle 274": "test",
    "steel kettle 39": "validation",
    "steel kettle 140": "validation",
    "steel kettle 0": "train",
    "steel kettle 1": "train",
    "": "train",
    "Gro\u00dfe Kaffeekanne": "train",
}


def reference_split(normalised: str, held_out: float) -> str:
    """The definition, written out with exact integers: the first 53 bits of the sha1 against the share."""
    position = int(hashlib.sha1(normalised.encode()).hexdigest()[:16], 16) >> 11
    if position < held_out / 2 * 2**53:
        return "test"
    return "validation" if position >= (1 - held_out / 2) * 2**53 else "train"


@pytest.mark.parametrize(("text", "split"), GOLDEN.items())
def test_golden_values_do_not_move(text, split):
    assert split_of(text) == split


@pytest.mark.parametrize("held_out", [0.0, 0.01, 0.3, 0.9])
def test_split_follows_the_definition(held_out):
    for i in range(300):
        assert split_of(f"item {i}", held_out) == reference_split(f"item {i}", held_out)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Steel  KETTLE\t121", "steel kettle 121"),
        (" steel kettle 121\r\n", "steel kettle 121"),
        ("steel\u00a0kettle\u3000121", "steel kettle 121"),
        ("\uff33teel \uff2bettle \uff11\uff12\uff11", "steel kettle 121"),  # full-width letters
        ("Caf\u00e9", "cafe\u0301"),
        ("STRASSE", "stra\u00dfe"),
        ("\u017ftraight", "STRAIGHT"),
        ("\u0130stanbul", "i\u0307stanbul"),
    ],
)
def test_writing_does_not_matter(one, other):
    assert normalize_text(one) == normalize_text(other)
    assert split_of(one, 0.5) == split_of(other, 0.5)


def test_normalising_twice_changes_nothing():
    rng = random.Random(0)
    for _ in range(500):
        text = "".join(chr(rng.choice((rng.randrange(32, 0x250), rng.randrange(0x370, 0xD000)))) for _ in range(8))
        assert normalize_text(normalize_text(text)) == normalize_text(text)


def test_shares_are_within_five_standard_deviations():
    count, held_out = 40_000, 0.1
    parts = split_dataset(Dataset.from_dict({"text": [f"document {i}" for i in range(count)]}), held_out=held_out)
    for name, share in {"train": 0.9, "validation": 0.05, "test": 0.05}.items():
        deviation = (count * share * (1 - share)) ** 0.5
        assert abs(len(parts[name]) - count * share) < 5 * deviation, name


def test_dataset_and_single_text_agree_whatever_the_order():
    texts = [f"Product {i % 700}" for i in range(1000)]
    rows = Dataset.from_dict({"title": texts, "row": range(1000)})
    parts = split_dataset(rows, "title", held_out=0.4)
    assert sum(map(len, parts.values())) == 1000
    for name, part in parts.items():
        assert all(split_of(text, 0.4) == name for text in part["title"])
        assert part["row"][:] == sorted(part["row"])
    shuffled = split_dataset(rows.shuffle(seed=1), "title", held_out=0.4)
    assert {name: sorted(part["row"]) for name, part in shuffled.items()} == {
        name: part["row"][:] for name, part in parts.items()
    }


def test_a_larger_share_only_adds():
    texts = [f"text {i}" for i in range(2000)]
    before = {text: split_of(text, 0.05) for text in texts}
    assert {"validation", "test"} <= set(before.values())
    for text, split in before.items():
        if split != "train":
            assert split_of(text, 0.4) == split


def test_duplicates_go_and_the_first_stays_in_order():
    texts = ["b", "A", "  a ", "c", "B", "b", "d"]
    unique, dropped = deduplicate(Dataset.from_dict({"text": texts, "row": range(7)}))
    assert unique["text"][:] == ["b", "A", "c", "d"]
    assert unique["row"][:] == [0, 1, 3, 6]
    assert dropped == 3


def test_deduplication_against_a_set():
    rng = random.Random(2)
    texts = [f"{'X' if rng.random() < 0.5 else 'x'} {rng.randrange(400)}" for _ in range(12_345)]
    unique, dropped = deduplicate(Dataset.from_dict({"text": texts}))
    first = list({text.lower(): text for text in reversed(texts)}.values())[::-1]
    assert sorted(unique["text"]) == sorted(first)
    assert dropped == len(texts) - len(first)


def test_empty_dataset():
    empty = Dataset.from_dict({"text": []})
    assert deduplicate(empty)[1] == 0
    assert [len(part) for part in split_dataset(empty).values()] == [0, 0, 0]


def test_bad_arguments():
    rows = Dataset.from_dict({"text": ["a", None], "n": [1, 2]})
    with pytest.raises(ValueError, match=r"no column 'body'.*text, n"):
        split_dataset(rows, "body")
    with pytest.raises(ValueError, match=r"row 1: column 'text' holds None"):
        deduplicate(rows)
    with pytest.raises(ValueError, match=r"row 0: column 'n' holds 1"):
        split_dataset(rows, "n")
    for share in (-0.1, 1.0):
        with pytest.raises(ValueError, match="held_out"):
            split_of("a", share)


def test_a_split_of_another_name_is_told_with_its_row():
    pairs = Dataset.from_dict({"query": ["mug", "pot", "cup"], "split": ["train", None, "dev"]})
    with pytest.raises(ValueError, match="row 2: split 'dev' is none of train, validation, test: rename it"):
        split_queries(pairs)


def test_pairs_without_a_column_of_splits_go_by_their_query():
    pairs = Dataset.from_dict({"query": [f"mug {number // 2}" for number in range(400)]})
    empty = pairs.add_column("split", [None] * len(pairs))
    plain, given = split_queries(pairs, held_out=0.3), split_queries(empty, held_out=0.3)
    assert all(len(part) for part in plain.values())
    assert {name: part["query"][:] for name, part in plain.items()} == {
        name: part["query"][:] for name, part in given.items()
    }
