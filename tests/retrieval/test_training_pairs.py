from __future__ import annotations

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest

from rexbert_hf.catalog import load_sample
from rexbert_hf.retrieval.pairs.draw import NEITHER, PairReport, Ratio, draw_pairs, random_products
from rexbert_hf.retrieval.pairs.events import QueryGroup, count_events
from rexbert_hf.retrieval.pairs.query_split import QuerySplit


def group(query, positives, hard, clicked=(), split="train"):
    known = np.array(sorted({*positives, *hard, *clicked}), dtype=np.int64)
    return QueryGroup(query, split, np.array(positives, dtype=np.int64), np.array(hard, dtype=np.int64), known)


def test_ratio_is_exact_where_there_are_enough_products():
    groups = [group(f"q{n}", [0, 1], range(2, 40)) for n in range(20)]
    report = PairReport()
    for pairs in draw_pairs(groups, 1000, report=report):
        assert Counter(pairs.label.tolist()) == {1: 2, 0: 20, -1: 22}
        assert len(set(pairs.product.tolist())) == 44, "a product has one label"
        assert set(pairs.product[pairs.label == 0].tolist()) <= set(range(2, 40))
        assert pairs.product[pairs.label == -1].min() >= 40
    assert report.as_dict()["train"]["ratio"] == "1:10.00:11.00"
    assert report.as_dict()["train"]["queries_short_of_hard_negatives"] == 0


def test_what_is_missing_is_reported():
    report = PairReport()
    pairs = list(draw_pairs([group("q", [0], [1, 2]), group("none", [], [3])], 100, report=report))
    assert len(pairs) == 1
    assert report.as_dict() == {
        "train": {
            "queries": 1,
            "positives": 1,
            "hard_negatives": 2,
            "random_negatives": 11,
            "neither": 0,
            "wanted_hard_negatives": 10,
            "wanted_random_negatives": 11,
            "queries_short_of_hard_negatives": 1,
            "queries_without_positive": 1,
            "ratio": "1:2.00:11.00",
        }
    }


def test_broken_ratios_hold_in_expectation():
    groups = [group(f"q{n}", [0, 1, 2], range(3, 40)) for n in range(2000)]
    counts = Counter()
    for pairs in draw_pairs(groups, 1000, Ratio(2, 1, 3)):
        counts.update(pairs.label.tolist())
        assert Counter(pairs.label.tolist())[0] in (1, 2)
    assert counts[1] == 6000
    # 1.5 and 4.5 a query: each is rounded by a fair coin.
    for label, mean in ((0, 1.5), (-1, 4.5)):
        assert abs(counts[label] / 2000 - mean) < 5 * 0.5 / math.sqrt(2000)


def test_pairs_depend_on_seed_and_query_alone():
    groups = [group(f"q{n}", [0], range(1, 60)) for n in range(5)]
    first = {pairs.query: pairs.product.tolist() for pairs in draw_pairs(groups, 500)}
    again = {pairs.query: pairs.product.tolist() for pairs in draw_pairs(groups[::-1][:3], 500)}
    assert all(first[query] == found for query, found in again.items())
    (other,) = draw_pairs(groups[:1], 500, seed=1)
    assert other.product.tolist() != first["q0"]
    assert first["q0"] != first["q1"]


def test_random_negatives_are_uniform_over_the_rest():
    rng = np.random.Generator(np.random.SFC64(0))
    known = np.array([3, 4, 50])
    for num_products in (80, 200):  # both ways of drawing
        counts = np.zeros(num_products)
        for _ in range(4000):
            drawn = random_products(10, num_products, known, rng)
            assert len(set(drawn.tolist())) == 10
            counts[drawn] += 1
        assert counts[known].sum() == 0
        share = 10 / (num_products - 3)
        rest = np.delete(counts, known) / 4000
        assert np.abs(rest - share).max() < 5 * math.sqrt(share / 4000)


def test_a_small_catalogue_gives_what_it_has():
    (pairs,) = draw_pairs([group("q", [0], [1], clicked=[2])], 6)
    assert sorted(pairs.product[pairs.label == -1].tolist()) == [3, 4, 5]


def test_what_is_neither_follows_and_changes_no_draw():
    bare = group("q", [0], range(1, 30), clicked=[40, 50])
    report = PairReport()
    (before,) = draw_pairs([bare], 500)
    (after,) = draw_pairs([dataclasses.replace(bare, neither=np.array([40, 50]))], 500, report=report)
    assert after.product.tolist() == [*before.product.tolist(), 40, 50]
    assert after.label.tolist() == [*before.label.tolist(), NEITHER, NEITHER]
    assert report.as_dict()["train"]["neither"] == 2
    assert report.as_dict()["train"]["ratio"] == "1:10.00:11.00", "they are no part of it"


def test_no_query_is_in_two_splits_and_no_purchase_is_a_negative():
    events, ids = load_sample("events", size=300), load_sample("products", size=300)["product_id"][:]
    counts = count_events(events, ids, QuerySplit(held_out=0.3))
    bought = {(row["query"].casefold(), product) for row in events for product in row["bought"]}
    clicked = {(row["query"].casefold(), product) for row in events for product in row["clicked"]}
    splits = {}
    for pairs in draw_pairs(counts.groups(), len(ids)):
        query = pairs.query.casefold()
        assert splits.setdefault(query, pairs.split) == pairs.split
        for product, label in zip(pairs.product.tolist(), pairs.label.tolist(), strict=True):
            assert ((query, ids[product]) in bought) == (label == 1)
            assert ((query, ids[product]) in clicked - bought) == (label == NEITHER)
    assert set(splits.values()) == {"train", "validation", "test"}


@pytest.mark.parametrize("text", ["1:10", "a:b:c", "0:1:1", "1:-1:2", ""])
def test_bad_ratios(text):
    with pytest.raises(ValueError, match="ratio"):
        Ratio.parse(text)


def test_ratio_in_words():
    assert str(Ratio.parse("1:10:11")) == "1:10:11"
    assert str(Ratio.parse("2:0.5:0")) == "2:0.5:0"
