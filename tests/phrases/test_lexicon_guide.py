"""Lexicon guides: whole words, longest match, true character positions, and building from a catalogue."""

from __future__ import annotations

import pickle
import re

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexbert_hf.phrases import Guide, GuideSet, LexiconGuide, RegexGuide


def found(guide, text):
    return [text[start:end] for start, end, _, _ in guide([text])[0]]


def test_longest_match_on_whole_words_whatever_the_case():
    guide = LexiconGuide(["black", "Black & Decker", "Black & Decker Home"], "brand", 0.7)
    assert found(guide, "BLACK & DECKER homeware, blackish, black&decker home") == [
        "BLACK & DECKER",
        "black&decker home",
    ]
    assert guide(["a black & deck"]) == [[(2, 7, 0.7, "brand")]]


def test_a_shorter_term_inside_a_failed_longer_one():
    guide = LexiconGuide(["new york yankees cap", "york", "new"], "type")
    assert found(guide, "new york yankees shirt") == ["new", "york"]


def test_hyphens_are_spaces_and_other_marks_are_not():
    guide = LexiconGuide(["t-shirt", "AT&T", "Levi's", "3M", "C++"], "brand")
    assert found(guide, "T shirt t-shirt tshirt") == ["T shirt", "t-shirt"]
    assert found(guide, "AT&T at t; levi's levis; 3m 33m; C++ C") == ["AT&T", "levi's", "3m", "C++"]
    assert found(LexiconGuide(["shirt polo"], "type"), "shirt - polo") == []


def test_positions_survive_letters_that_grow_in_lower_case():
    text = "\u0130stanbul ACME \u0130 acme"  # the capital dotted I has two lower-case characters
    assert found(LexiconGuide(["acme"], "brand"), text) == ["ACME", "acme"]


def test_terms_without_content_are_left_out():
    guide = LexiconGuide(["", " ", "--", "&", "ok"], "brand")
    assert guide.terms == ("ok",)
    assert LexiconGuide([], "brand")(["any text", ""]) == [[], []]


def test_fingerprint_depends_on_content_not_on_order():
    assert LexiconGuide(["a", "B"], "brand").fingerprint == LexiconGuide(["b", "A", "a"], "brand").fingerprint
    others = [LexiconGuide(["a"], "brand"), LexiconGuide(["a", "b"], "type"), LexiconGuide(["a", "b"], "brand", 0.5)]
    assert len({guide.fingerprint for guide in others} | {LexiconGuide(["a", "b"], "brand").fingerprint}) == 4


def test_a_score_outside_the_unit_interval():
    with pytest.raises(ValueError, match="must lie in"):
        LexiconGuide(["a"], "brand", 1.5)


def test_travels_to_workers():
    guide = LexiconGuide(["acme lamps", "acme"], "brand")
    copy = pickle.loads(pickle.dumps(guide))
    assert isinstance(copy, Guide)
    assert copy.fingerprint == guide.fingerprint
    assert copy(["Acme lamps"]) == guide(["Acme lamps"]) == [[(0, 10, 1.0, "brand")]]


@given(
    st.lists(st.text(alphabet="ab ", min_size=1, max_size=6), max_size=6),
    st.text(alphabet="abA ,", max_size=40),
)
def test_equals_a_plain_search(terms, text):
    """Against a regular expression over all terms, longest first, on word borders."""
    terms = {" ".join(term.split()) for term in terms} - {""}
    guide = LexiconGuide(terms, "brand")
    if not terms:
        assert guide([text]) == [[]]
        return
    longest_first = sorted(terms, key=lambda term: -len(term))
    choice = "|".join(re.escape(term).replace(r"\ ", " +") for term in longest_first)
    expected = [match.span() for match in re.finditer(rf"\b(?:{choice})\b", text, re.IGNORECASE)]
    assert [span[:2] for span in guide([text])[0]] == expected


PRODUCTS = [
    {"brand": "Acme", "category_path": ["Home", "Table Lamps"]},
    {"brand": "ACME", "category_path": ["Home", "Table Lamps"]},
    {"brand": "Unbranded", "category_path": ["Clothing", "Tops & T-Shirts"]},
    {"brand": "Zed Co", "category_path": ["Kitchen", "Pan"]},
    {"brand": None, "category_path": []},
]


@pytest.mark.parametrize("form", ["dataset", "mappings", "texts"])
def test_from_products(form):
    rows = PRODUCTS
    if form == "texts":
        rows = [{**row, "category_path": " > ".join(row["category_path"])} for row in rows]
    brands, types = LexiconGuide.from_products(datasets.Dataset.from_list(rows) if form == "dataset" else rows)
    assert brands.terms == ("acme", "zed co")
    assert types.terms == ("pan", "pans", "t shirt", "t shirts", "table lamp", "table lamps", "top", "tops")
    assert (brands.kind, types.kind) == ("brand", "type")


def test_from_products_keeps_the_most_frequent():
    brands, types = LexiconGuide.from_products(PRODUCTS, max_brands=1, max_types=1)
    assert (brands.terms, types.terms) == (("acme",), ("table lamp", "table lamps"))
    brands, _ = LexiconGuide.from_products(PRODUCTS, min_count=2)
    assert brands.terms == ("acme",)


def test_from_products_names_a_missing_column():
    with pytest.raises(ValueError, match="no column 'maker' in the products; columns: brand, category_path"):
        LexiconGuide.from_products(datasets.Dataset.from_list(PRODUCTS), brand_column="maker")
    with pytest.raises(ValueError, match="product 1 has no 'brand'"):
        LexiconGuide.from_products([PRODUCTS[0], {"category_path": ["a"]}])


def test_a_set_of_guides_is_a_guide():
    guides = GuideSet([RegexGuide(), LexiconGuide(["acme 5 oz"], "brand")])
    assert isinstance(guides, Guide)
    assert guides(["Acme 5 oz", ""]) == [[(0, 9, 1.0, "brand"), (5, 9, 1.0, "size")], []]
    assert guides.fingerprint != GuideSet(guides.guides[::-1]).fingerprint
    assert pickle.loads(pickle.dumps(guides)).fingerprint == guides.fingerprint
