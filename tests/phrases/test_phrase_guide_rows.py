"""Phrases through real tokenizers to the spans of rows, and what is counted on the way."""

from __future__ import annotations

import logging

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from rexbert_hf.data.rows import SPAN_KINDS
from rexbert_hf.data.tokenise import tokenise
from rexbert_hf.phrases.matcher import PhraseMatcher
from rexbert_hf.phrases.phrase_guide import NounPhraseGuide, PhraseGuide

TEXTS = [
    "The Stainless-Steel water bottle, 750 ml; stainless steel lid.",
    "Caf\u00e9 lamp with a USB\u2011C charging cable",
    "it is what it is",
    "the kitchen table",
]
PHRASES = ["stainless steel", "water bottle", "caf\u00e9 lamp", "usb c"]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def finished(backend: Tokenizer) -> PreTrainedTokenizerFast:
    tokens = [(name, backend.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=tokens)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, cls_token="[CLS]", sep_token="[SEP]", **names)


def byte_level() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    return finished(backend)


def word_piece() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=SPECIALS, show_progress=False)
    backend.train_from_iterator(TEXTS, trainer)
    return finished(backend)


@pytest.mark.parametrize("tokenizer", [byte_level(), word_piece()], ids=["byte-level", "word pieces"])
def test_spans_hold_the_tokens_of_their_phrase(tokenizer):
    guide = PhraseGuide(PhraseMatcher(PHRASES, [0.9, 0.8, 0.7, 0.6]), noun_phrases="light")
    store = tokenise(TEXTS, tokenizer, guides=[guide])
    marked = []
    for index, text in enumerate(TEXTS):
        row = store.take([index])[0]
        offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        columns = (row["span_start"], row["span_end"], row["span_score"], row["span_kind"])
        for first, end, score, kind in zip(*columns, strict=True):
            start, stop = offsets[first][0], offsets[end - 1][1]
            marked.append((index, text[start:stop].strip(), round(float(score), 3), SPAN_KINDS[kind]))
            assert 0 < first < end < len(offsets), "special tokens are in no span"
    assert marked == [
        (0, "Stainless-Steel", 0.9, "phrase"),
        (0, "water bottle", 0.8, "phrase"),
        (0, "stainless steel", 0.9, "phrase"),
        (1, "Caf\u00e9 lamp", 0.7, "phrase"),
        (1, "USB\u2011C", 0.6, "phrase"),
        (3, "kitchen table", 0.6, "noun_phrase"),
    ]
    assert store.metadata["spans"] == {
        "rows": {"all": 4, "noun_phrase": 1, "phrase": 2, "without_phrase": 1},
        "spans": {"noun_phrase": 1, "phrase": 5},
    }


def small_vocabulary() -> PreTrainedTokenizerFast:
    names = [*SPECIALS, "red", "lamp", "a"]
    backend = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return finished(backend)


def test_phrases_of_unknown_tokens_are_left_out_and_counted(caplog):
    matcher = PhraseMatcher(["red lamp", "blue shade", "blue lamp"], [0.5, 0.5, 0.5])
    texts = ["a red lamp a blue shade", "blue lamp a", "a blue shade"]
    with caplog.at_level(logging.INFO):
        store = tokenise(texts, small_vocabulary(), guides=[PhraseGuide(matcher, noun_phrases="none")])
    spans = [(row["span_start"].tolist(), row["span_end"].tolist()) for row in store.take([0, 1, 2])]
    assert spans == [([2], [4]), ([1], [3]), ([], [])]
    assert store.metadata["spans"] == {
        "left_out": {"unknown_tokens": 2},
        "rows": {"all": 3, "phrase": 2, "without_phrase": 1},
        "spans": {"phrase": 2},
    }
    assert "left out 2 spans of unknown tokens" in caplog.text
    assert "1 of 3 texts hold no phrase" in caplog.text


def test_counts_are_kept_with_the_rows_and_do_not_depend_on_processes(tmp_path):
    guides = [PhraseGuide(PhraseMatcher(PHRASES, [0.5] * 4), noun_phrases="light"), NounPhraseGuide("light")]
    texts = [f"{text} {number}" for number in range(20) for text in TEXTS]
    tokenizer = byte_level()
    one = tokenise(texts, tokenizer, tmp_path / "one", guides=guides, batch_size=7)
    two = tokenise(texts, tokenizer, tmp_path / "two", guides=guides, batch_size=9, num_proc=2)
    again = tokenise(texts, tokenizer, tmp_path / "one", guides=guides)
    assert one.metadata["spans"] == two.metadata["spans"] == again.metadata["spans"]
    assert one.metadata["spans"]["rows"]["all"] == 80
    other = PhraseGuide(PhraseMatcher(PHRASES, [0.5, 0.5, 0.5, 0.4]), noun_phrases="light")
    assert tokenise(texts, tokenizer, tmp_path / "one", guides=[other, guides[1]]).path != one.path
