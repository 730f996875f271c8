"""Regular-expression guides: what each kind finds, what it must leave alone, and that no text can stall it."""

from __future__ import annotations

import pickle
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexbert_hf.data.rows import SPAN_KINDS
from rexbert_hf.phrases import Guide, RegexGuide
from rexbert_hf.phrases.regex_guide import PRIORITY

GUIDE = RegexGuide()

WHOLE = {
    "price": ["$19.99", "19,99 EUR", "Rs. 500", "\u00a35", "Rs.1,499", "1,299.00 USD", "1.299,00 \u20ac", "$5-$10",
              "US $20", "99 cents", "INR 2000", "Rp15.000", "usd 20", "20$", "$1.5k"],
    "percent": ["20 %", "15% off", "99.9%", "10-20%", "15 percent", "0 to 30%"],
    "size": ["16 GB", "5.5 inch", "12 oz", "500 ml", "42 mm", "size XL", "6-pack", "US 9.5", "128GB", "1 1/2 cup",
             "9-1/4\"", "16.9 fl. oz.", "pack of 12", "Set of six", "3XL", "queen-size", "8-12 lbs", "1,000 mAh",
             ".5 oz", "20000mah", "4.8 cu. ft.", "1080p", "Size: 12"],
    "dimension": ["10 x 12 x 3 in.", "120x60 cm", "8' x 10'", "1920x1080", "10\"W x 12\"H x 3\"D", "3-1/2 in. x 4 ft.",
                  "20 \u00d7 30 mm", "20 by 30 inches"],
    "model": ["WH-1000XM4", "i7-9700K", "wh-1000xm4", "rtx3080", "DDR4-3200", "F-150", "PS5"],
    "sku": ["012345678905", "B07XJ8C8F5", "1234567890123"],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in WHOLE.items() for text in texts])
@pytest.mark.parametrize("frame", ["{}", "the {} lamp", "lamp ({}), red", "{},"])
def test_finds_the_whole_expression(kind, text, frame):
    line = frame.format(text)
    found = [(line[start:end], found_kind) for start, end, _, found_kind in GUIDE([line])[0]]
    assert found == [(text, kind)]


@pytest.mark.parametrize(
    "text",
    ["2-in-1 mop", "1st place", "the 90s and the 1980s", "5 in the morning", "10:30 am", "mp3 player", "a $ sign",
     "iPhone 12", "2x faster", "version 2.0", "kids' toys", "on 2019-12-25", "3D printer", "7.1-channel", "40 of them",
     "100,000 people",
     "w/2 batteries", "3-drawer chest", "5to7 days", "model of an extra lamp", "x", "", "\u0665\u0666 %"],
)  # fmt: skip
def test_leaves_the_rest_alone(text):
    assert GUIDE([text]) == [[]]


def test_labels_decide_between_stock_and_model_numbers():
    text = "SKU: 4521, model no. 4521, UPC 4521, Item # 4521-A, model lamp"
    found = [(text[start:end], score, kind) for start, end, score, kind in GUIDE([text])[0]]
    assert found == [("4521", 1.0, kind) for kind in ("sku", "model", "sku")] + [("4521-A", 1.0, "sku")]


def test_a_product_title():
    text = "Sony WH-1000XM4 Headphones, 30 mm, 7.27 x 3.03 x 9.94 in, 15% off: $278.00 (UPC 027242919419)"
    found = [(text[start:end], kind) for start, end, _, kind in GUIDE([text])[0]]
    assert found == [
        ("WH-1000XM4", "model"), ("30 mm", "size"), ("7.27 x 3.03 x 9.94 in", "dimension"), ("15% off", "percent"),
        ("$278.00", "price"), ("027242919419", "sku"),
    ]  # fmt: skip


def test_stronger_kinds_claim_their_text_even_unreported():
    text = "10 x 12 x 3 in. tray, 16GB, WH-1000XM4"
    assert [span[3] for span in RegexGuide(["model"])([text])[0]] == ["model"]
    assert [text[s:e] for s, e, _, _ in RegexGuide(["size"])([text])[0]] == ["16GB"]
    everything = GUIDE([text])[0]
    for kind in PRIORITY:
        assert RegexGuide([kind])([text])[0] == [span for span in everything if span[3] == kind]


def test_kinds_are_checked_and_fingerprints_tell_them_apart():
    with pytest.raises(ValueError, match="unknown kind 'colour'"):
        RegexGuide(["colour"])
    assert RegexGuide(["size", "price"]).fingerprint == RegexGuide(["price", "size"]).fingerprint
    assert RegexGuide(["size"]).fingerprint != RegexGuide(["price"]).fingerprint
    assert RegexGuide([])(["$5"]) == [[]]
    assert set(PRIORITY) <= set(SPAN_KINDS)


def test_travels_to_workers():
    copy = pickle.loads(pickle.dumps(GUIDE))
    assert isinstance(copy, Guide)
    assert copy.fingerprint == GUIDE.fingerprint
    assert copy(["$5 or 6 oz"]) == GUIDE(["$5 or 6 oz"]) != [[]]


@given(st.text(alphabet="0123456789 .,x$%\"'-/aABmgoz\u00bd\u20ac\n", max_size=80))
def test_spans_are_sorted_disjoint_and_inside(text):
    spans = GUIDE([text])[0]
    assert all(0 <= start < end <= len(text) and 0 < score <= 1 for start, end, score, _ in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert all(text[start:end].strip() == text[start:end] for start, end, _, _ in spans)


# A quadratic pattern needs 10^10 steps on these, which no machine does within the limit; a linear one needs a second.
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "unit",
    ["1", "1,", "1,000", "1 x ", "1x", "A-", "A1-", "A", "a1", "$", "$1", "1/", "1/2 ", " ", "size ", "1.", ".", "'",
     "1'", "9\" x ", "pack of ", "Rs. ", "x-", "extra ", "model ", "model no. ", "-", "\u00bd", "1 - ", "US ",
     "X", "1 in", "0-", "isbn-1", "1\u00a0"],
)  # fmt: skip
def test_no_text_stalls_it(unit):
    text = (unit * (100_000 // len(unit) + 1))[:100_000] + "!"
    spans = GUIDE([text])[0]
    assert all(start < end for start, end, _, _ in spans)
