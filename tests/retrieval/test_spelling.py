"""Queries in the catalogue's own spelling."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from index_cases import HashModel

from rexbert_hf.retrieval.serving.index import ProductIndex
from rexbert_hf.retrieval.serving.lexical import LexicalIndex
from rexbert_hf.retrieval.serving.page import SearchPage
from rexbert_hf.retrieval.serving.spelling import Speller

TEXTS = ["Rain Bird sprinkler", "Glacier Bay barrier", "rain barrels", "lamp shade 18in"] * 5 + ["lampe", "bazaar"]
PRODUCTS = [{"product_id": f"p{i}", "title": text} for i, text in enumerate(TEXTS)]


def osa(left: str, right: str) -> int:
    """Optimal string alignment, written out."""
    rows = {(i, 0): i for i in range(len(left) + 1)} | {(0, j): j for j in range(len(right) + 1)}
    for i in range(1, len(left) + 1):
        for j in range(1, len(right) + 1):
            same = left[i - 1] == right[j - 1]
            rows[i, j] = min(rows[i - 1, j] + 1, rows[i, j - 1] + 1, rows[i - 1, j - 1] + (not same))
            if i > 1 and j > 1 and left[i - 1] == right[j - 2] and left[i - 2] == right[j - 1]:
                rows[i, j] = min(rows[i, j], rows[i - 2, j - 2] + 1)
    return rows[len(left), len(right)]


@pytest.mark.parametrize(
    ("query", "searched"),
    [
        ("sprinkelr", "sprinkler"),  # two letters swapped
        ("sprnklr", "sprinkler"),  # two edits of a long word
        ("sprklr", "sprklr"),  # three
        ("brier", "brier"),  # two edits of a short word
        ("lmp", "lmp"),  # too short
        ("lamq SHADE", "lamp shade"),
        ("Lampe Shade", "Lampe Shade"),  # a word that one product has is its own
        ("bazar", "bazar"),  # and replaces no other: it may be a slip itself
        ("rainbird", "rain bird"),
        ("barierr-barrel, 19in", "barrier-barrels, 19in"),  # words with digits stay
        ("\u96e8\u6c34\u6876\u69fd", "\u96e8\u6c34\u6876\u69fd"),
        ("", ""),
        ("sprinkelr" + "r" * 1_000_000, "sprinkelr" + "r" * 1_000_000),
    ],
)
def test_corrections(query, searched):
    assert Speller.of_texts(TEXTS).correct(query) == searched


def test_the_more_frequent_of_two_near_words():
    assert Speller({"lamb": 3, "lamp": 9, "lame": 2}).correct("lamx") == "lamp"
    assert Speller({"lamb": 9, "lamp": 3}).correct("lamx") == "lamb"


@given(
    st.lists(st.text("abc", min_size=3, max_size=8), min_size=1, max_size=30), st.text("abc", min_size=4, max_size=8)
)
@settings(max_examples=200, deadline=None)
def test_no_nearer_word_is_missed(words, word):
    counts = {other: 2 + words.count(other) for other in words}
    found = Speller(counts).word(word)
    near = {other: osa(word, other) for other in counts}
    least = min(near.values())
    if least == 0 or least > (2 if len(word) >= 6 else 1):
        assert found == word
    else:
        best = [other for other in counts if near[other] == least]
        assert found in best
        assert counts[found] == max(counts[other] for other in best)


@pytest.mark.parametrize("options", [{"backend": "faiss"}, {"backend": "qdrant"}])
def test_every_mode_searches_for_the_corrected_words(options):
    if options["backend"] == "qdrant":
        pytest.importorskip("qdrant_client")
    plain = ProductIndex.build(PRODUCTS, HashModel(), "flat", **options)
    spelt = ProductIndex.build(PRODUCTS, HashModel(), "flat", spelling=True, **options)
    assert spelt.corrected("sprinkelr") == "sprinkler"
    assert plain.corrected("sprinkelr") == "sprinkelr"
    assert plain.search("sprinkelr", 5, mode="lexical") == [[]]
    for mode in ("lexical", "dense", "hybrid"):
        assert spelt.search("sprinkelr", 5, mode=mode) == plain.search("sprinkler", 5, mode=mode)


def test_it_is_saved_and_follows_the_catalogue(tmp_path):
    index = ProductIndex.build(PRODUCTS, HashModel(), "flat", spelling=True, lexical=True)
    version = index.save(tmp_path)
    loaded = ProductIndex.load(tmp_path, HashModel())
    assert loaded.corrected("rainbird") == "rain bird"
    loaded.upsert([{"product_id": f"z{i}", "title": "zebra rug"} for i in range(2)])
    assert loaded.corrected("zebar") == "zebra"
    for damaged in ("[1, 2", '["lamp"]', '{"lamp": "many"}'):
        (version / "bm25" / "words.json").write_text(damaged)
        with pytest.raises(ValueError, match="build the index again"):
            LexicalIndex.load(version / "bm25")


def test_the_page_says_what_it_searched_for():
    page = SearchPage(ProductIndex.build(PRODUCTS, HashModel(), "flat", spelling=True))
    assert page.search("sprinkelr").note == "Searched for: sprinkler"
    assert page.search("sprinkler").note == ""


def test_a_heavier_side_of_the_hybrid():
    counted = ProductIndex.build(PRODUCTS, HashModel(), "flat", dense_weight=1e6)
    query = "glacier bay barrier"
    assert [name for name, _ in counted.search(query, 5, mode="hybrid")[0]] == [
        name for name, _ in counted.search(query, 5)[0]
    ]
    for weight in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="dense_weight must be above 0"):
            ProductIndex.build(PRODUCTS, HashModel(), "flat", dense_weight=weight)


def test_without_rapidfuzz(monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidfuzz", None)
    with pytest.raises(ImportError, match=r"pip install rexbert-hf\[search\]"):
        ProductIndex.build(PRODUCTS, HashModel(), "flat", spelling=True, lexical=True)
