"""Words, places of values in titles, and back."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rexbert_hf.evaluation.fine_tuning_rows import Row
from rexbert_hf.evaluation.task_splits import Example
from rexbert_hf.evaluation.word_tags import borrowed_tags, place_values, split_words, words_of_place

TITLES = st.text(alphabet="ab1 ,-\u00e9(", min_size=1, max_size=30)


@given(TITLES)
def test_words_are_where_they_say(text):
    words, places = split_words(text)
    assert [text[start:end] for start, end in places] == words
    assert all(words)
    assert "".join(words) == "".join(text.split())
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(places))


@given(TITLES, st.data())
def test_values_get_places_that_hold_them(text, data):
    """Every placed span is its value, spans never overlap, and a value is placed or reported, never dropped."""
    cut = st.tuples(st.integers(0, len(text)), st.integers(0, len(text))).map(sorted)
    cuts = data.draw(st.lists(cut, max_size=4))
    values = [(f"a{i}", text[start:end]) for i, (start, end) in enumerate(cuts) if text[start:end].strip()]
    _, places = split_words(text)
    spans, lost = place_values(text, values, places)
    said = {(name, text[places[first][0] : places[end - 1][1]]) for first, end, name in spans}
    assert said <= set(values)
    assert sorted([*said, *lost]) == sorted(values)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_a_value_takes_the_next_place_when_the_first_is_taken():
    text = "Oak Desk, Oak"
    values = [("name", "Oak Desk"), ("wood", "Oak")]
    assert place_values(text, values, split_words(text)[1]) == ([(0, 2, "name"), (3, 4, "wood")], [])


def test_a_value_within_a_word_has_no_place():
    text = "58Count pack"
    places = split_words(text)[1]
    assert words_of_place(places, 2, 7) is None
    assert place_values(text, [("count", "Count")], places) == ([], [("count", "Count")])


def test_borrowed_tags_fit():
    train = [Example(Row(["a"] * 3, label=["B", "I", "O"]), [], "a")]
    examples = [Example(Row(["x"] * length, label=None), [], "x") for length in (1, 3, 5)]
    found = borrowed_tags(examples, train, np.random.default_rng(0))
    assert found == [["B"], ["B", "I", "O"], ["B", "I", "O", "O", "O"]]
