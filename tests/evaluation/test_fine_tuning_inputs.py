"""How rows become features: words of byte-level BPE, tags and answers in their place, batches of like length."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuning_cases import TEXTS, tag_rows, word_tokenizer

from rexbert_hf.data.vocabulary import train_tokenizer
from rexbert_hf.evaluation.fine_tuning_batches import bucketed, by_length
from rexbert_hf.evaluation.fine_tuning_heads import SpanHead, TokenHead
from rexbert_hf.evaluation.fine_tuning_rows import Row
from rexbert_hf.evaluation.fine_tuning_spans import MAX_ANSWER_TOKENS, best_span


@pytest.fixture(scope="module")
def bpe():
    return train_tokenizer(TEXTS, vocab_size=448)


def test_words_are_tokenised_as_in_running_text(bpe):
    words = ["red", "mug", "for", "the", "kitchen"]
    head = TokenHead(["O", "B"])
    (feature,) = head.encode(bpe, [Row(words, label=["B", "B", "O", "O", "O"])], 64, learn=True)
    assert list(feature.ids) == bpe(" ".join(words))["input_ids"]
    split = bpe(words, is_split_into_words=True)["input_ids"]
    assert split != list(feature.ids), "else the words need no care, and this test shows nothing"
    for place, word in zip(feature.places, words, strict=True):
        assert word.startswith(bpe.decode([feature.ids[place]]).strip())
    labelled = np.flatnonzero(feature.target != -100)
    assert labelled.tolist() == feature.places.tolist()
    assert feature.target[labelled].tolist() == [1, 1, 0, 0, 0]


word = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=6)


@given(words=st.lists(word, min_size=1, max_size=8))
def test_every_word_finds_its_first_token(words):
    tokenizer = _BPE
    (feature,) = TokenHead(["O"]).encode(tokenizer, [Row(words)], 512, learn=False)
    text = " ".join(words)
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    start = 0
    for place, one in zip(feature.places, words, strict=True):
        assert place >= 0
        low, high = offsets[place]
        assert max(low, start) < min(high, start + len(one))
        earlier = [i for i, (a, b) in enumerate(offsets) if a < start + len(one) and b > start and 0 < i < place]
        assert not earlier
        start += len(one) + 1


_BPE = train_tokenizer(TEXTS, vocab_size=448)


def test_words_behind_the_limit_are_other_and_said_once(bpe, caplog):
    rows = [Row(["red"] * 30, label=["B"] * 30)]
    head = TokenHead(["B", "O"])
    features = head.encode(bpe, rows, 10, learn=True)
    assert len(features[0].ids) == 10
    logits = np.where(features[0].places[:, None] >= 0, [[5.0, 0.0]], np.nan)
    for _ in range(2):
        tags = head.answers([logits], features, rows)[0]
    assert tags.count("O") == (features[0].places < 0).sum() > 0
    assert caplog.text.count("have no token within max_length") == 1


@pytest.mark.parametrize("name", ["bpe", "wordpiece"])
def test_answers_stand_where_they_stand_in_every_window(bpe, name):
    tokenizer = bpe if name == "bpe" else word_tokenizer()
    context = " ".join(["the red mug is good for the kitchen"] * 9)
    start = context.index("good", 100)
    row = Row("how good is the mug?", context, (start, start + len("good for")))
    features = SpanHead().encode(tokenizer, [row], 40, learn=True)
    assert len(features) > 2
    held = 0
    for one in features:
        assert len(one.ids) <= 40
        first, last = one.target
        if (first, last) != (0, 0):
            held += 1
            assert context[one.places[first, 0] : one.places[last, 1]].strip() == "good for"
            assert ((one.places[:, 0] == -1) == (one.places[:, 1] == -1)).all()
    assert held >= 1
    covered = {c for one in features for a, b in one.places if a >= 0 for c in range(a, b)}
    assert covered >= {i for i, c in enumerate(context) if c != " "}
    # Scores that point at the target of each window give the answer back.
    logits = []
    for one in features:
        row_logits = np.zeros((2, len(one.ids)))
        row_logits[0, one.target[0]] = row_logits[1, one.target[1]] = 9.0
        logits.append(row_logits)
    head = SpanHead()
    assert head.answers(logits, features, [row]) == [row.label]


@given(st.integers(1, 40), st.integers(0, 10**6))
def test_best_span_is_the_best_of_all_pairs(tokens, seed):
    rng = np.random.default_rng(seed)
    logits, allowed = rng.normal(size=(2, tokens)), rng.random(tokens) < 0.7
    pairs = [
        (logits[0, i] + logits[1, j], i, j)
        for i in np.flatnonzero(allowed)
        for j in np.flatnonzero(allowed)
        if i <= j < i + MAX_ANSWER_TOKENS
    ]
    assert best_span(logits, allowed) == (max(pairs) if pairs else (-np.inf, 0, 0))


def test_a_long_question_leaves_room_for_the_context(bpe):
    row = Row("how good is the mug? " * 40, "the red mug", (4, 7))
    (feature,) = SpanHead().encode(bpe, [row], 40, learn=True)
    assert len(feature.ids) <= 40
    assert feature.target != (0, 0)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=300), st.integers(1, 16), st.integers(0, 99))
def test_batches_hold_every_row_once(lengths, size, seed):
    lengths = np.array(lengths)
    batches = bucketed(lengths, size, np.random.default_rng(seed))
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert max(map(len, batches)) <= size
    assert sorted(np.concatenate(list(by_length(lengths, size)))) == list(range(len(lengths)))


def test_batches_have_little_padding():
    lengths = np.random.default_rng(0).integers(4, 100, 2000)
    batches = bucketed(lengths, 32, np.random.default_rng(0))
    padded = sum(lengths[batch].max() * len(batch) for batch in batches)
    assert lengths.sum() / padded > 0.9


def test_tags_of_flat_and_padded_batches_are_those_of_the_rows(bpe):
    head = TokenHead(["B-COLOUR", "O"])
    features = head.encode(bpe, tag_rows(4), 64, learn=True)
    flat, padded = head.inputs(features, True)["labels"], head.inputs(features, False)["labels"]
    assert flat[0].tolist() == [tag for one in features for tag in one.target]
    for line, one in zip(padded, features, strict=True):
        assert line[: len(one.ids)].tolist() == one.target.tolist()
        assert (line[len(one.ids) :] == -100).all()
