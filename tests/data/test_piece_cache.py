"""The cache of pieces answers what the tokenizer answers: ids, words and characters, whatever the text."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from rexbert_hf.catalog import load_sample
from rexbert_hf.data import piece_cache
from rexbert_hf.data.encode import TextEncoder
from rexbert_hf.data.piece_cache import PieceCache, Tokens, splits_at_spaces

SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]
TEXTS = [row["text"] for row in load_sample("shop_text", size=200)]


def byte_level(add_prefix_space: bool = False, whole: bool = True) -> Tokenizer:
    """ModernBERT's kind; without all bytes some words have no token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet() if whole else []
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS if whole else ["red lamp x"] * 3, trainer)
    tokenizer.add_special_tokens([AddedToken("[MASK]", lstrip=True, special=True)])
    tokenizer.add_tokens(["  ", "\n\n", "|||URL|||"])
    tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=True, add_prefix_space=add_prefix_space), frame(tokenizer)]
    )
    return tokenizer


def frame(tokenizer: Tokenizer) -> processors.TemplateProcessing:
    ids = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    return processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        TEXTS, trainers.WordPieceTrainer(vocab_size=500, special_tokens=SPECIAL, show_progress=False)
    )
    tokenizer.post_processor = frame(tokenizer)
    return tokenizer


def unigram() -> Tokenizer:
    """XLM-R's kind."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=SPECIAL, unk_token="[UNK]", show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = frame(tokenizer)
    return tokenizer


TOKENIZERS = {
    "byte level": byte_level(),
    "with a first space": byte_level(add_prefix_space=True),
    "words without token": byte_level(whole=False),
    "word piece": word_piece(),
    "unigram": unigram(),
}
ODD = ["\u0301", "\u00a8", "\u00a0", "\u200d", "\u2028", "\x1c", "\x00", "\ufeff", "\u0e01\u0e33", "\u03a3", "\u00bd"]
ODD += ["[MASK]", "[SEP]", "|||URL|||", "it's", "red", "lamp", "16GB", "x", "\r\n", "\u6c34\u58f6"]
pieces = st.one_of(st.sampled_from(ODD), st.sampled_from(["  ", " ", " ", " ", "\n\n", "\t"]), st.text(max_size=4))
texts = st.lists(st.lists(pieces, max_size=20).map("".join), min_size=1, max_size=6)


def assert_same(found: Tokens, expected: Tokens) -> None:
    for name in ("offsets", "ids", "words", "chars"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def clean(found: list[str]) -> list[str]:
    return [text.encode("utf-8", "replace").decode() for text in found]


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=150)
@given(found=texts)
@example(found=["a ¨ b", "a \u0301 \u0302 b", " red", "red ", "red [MASK] lamp", "red  lamp", ""])
@example(found=["red 水 lamp red", "水", "x 水"])
def test_it_answers_what_the_tokenizer_answers(kind, found):
    tokenizer, found = TOKENIZERS[kind], clean(found)
    cache = PieceCache.for_tokenizer(tokenizer)
    assert cache is not None
    expected = Tokens.of(tokenizer.encode_batch(found, add_special_tokens=False))
    for _ in range(2):  # with nothing known, and with all
        assert_same(cache.encode(found), expected)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_shop_text_with_special_tokens(kind):
    tokenizer = TOKENIZERS[kind]
    encoder = TextEncoder(tokenizer.to_str(), special_ids=(1, 2, 3), num_prefix=1, num_suffix=1)
    expected = Tokens.of(tokenizer.encode_batch(TEXTS))
    expected.words[np.isin(expected.ids, (1, 2, 3))] = -1
    assert_same(encoder.tokens(TEXTS)[1], expected)
    assert encoder._pieces is not None


def test_texts_are_selected_by_row():
    tokenizer = TOKENIZERS["byte level"]
    tokens = Tokens.of(tokenizer.encode_batch(TEXTS[:5]))
    assert_same(tokens.select(np.array([3, 0])), Tokens.of(tokenizer.encode_batch([TEXTS[3], TEXTS[0]])))


def test_it_forgets_before_it_grows_too_large(monkeypatch):
    monkeypatch.setattr(piece_cache, "MAX_TOKENS", 500)
    tokenizer = TOKENIZERS["byte level"]
    cache = PieceCache(tokenizer)
    sizes = []
    for begin in range(0, 200, 20):
        batch = TEXTS[begin : begin + 20]
        assert_same(cache.encode(batch), Tokens.of(tokenizer.encode_batch(batch, add_special_tokens=False)))
        sizes.append(cache._tokens.size)
    assert (np.diff(sizes) < 0).any()


def test_the_tokenizer_sees_a_piece_once():
    class Counting:
        def __init__(self, tokenizer):
            self.tokenizer, self.asked = tokenizer, []

        def __getattr__(self, name):
            return getattr(self.tokenizer, name)

        def encode_batch(self, asked, **options):
            self.asked += asked
            return self.tokenizer.encode_batch(asked, **options)

    counting = Counting(TOKENIZERS["byte level"])
    cache = PieceCache(counting)
    cache.encode(["red lamp", "red lamp red"])
    assert sorted(counting.asked) == ["red x", "x lamp red x"] or sorted(counting.asked) == ["red x", "x red lamp x"]
    cache.encode(["red red lamp"])
    assert len(counting.asked) == 2


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"normalizer": None}, True),
        ({"normalizer": {"type": "Replace"}}, False),
        ({"normalizer": {"type": "NFKC"}}, False),  # "¨" becomes a space and a mark
        ({"pre_tokenizer": None}, False),
        ({"pre_tokenizer": {"type": "Split"}}, False),
        ({"pre_tokenizer": {"type": "Metaspace"}}, False),
        ({"pre_tokenizer": {"type": "ByteLevel", "use_regex": False}}, False),
        ({"pre_tokenizer": {"type": "Whitespace"}, "normalizer": {"type": "NFKC"}}, True),
        ({"model": {"type": "BPE", "dropout": 0.1}}, False),
        ({"added_tokens": [{"content": "[MASK]", "lstrip": True, "normalized": True}]}, False),
        ({"added_tokens": [{"content": "red lamp", "normalized": True}]}, False),
        ({"added_tokens": [{"content": "[MASK]", "lstrip": True, "normalized": False}]}, True),
    ],
)
def test_which_tokenizers_are_served(changes, fits):
    state = json.loads(TOKENIZERS["byte level"].to_str())
    assert splits_at_spaces(state | changes) is fits


def test_a_tokenizer_that_does_not_know_the_anchor_is_not_served():
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    assert PieceCache.for_tokenizer(tokenizer) is None
