from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from rexbert_hf.data import TokenisedDataset
from rexbert_hf.data.encode_pairs import PairEncoder, pair_specials
from rexbert_hf.data.rows import FIELD
from rexbert_hf.data.tokenise import tokenise

NAMES = {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]", "unk_token": "[UNK]", "pad_token": "[PAD]"}
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "red",
    "mug",
    "title",
    ":",
    ".",
    "brand",
    "acme",
    "big",
    "[",
    "]",
]
CLS, SEP, UNK = 2, 3, 1


def tokenizer(template=True, **names):
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if template:
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=backend, **{**NAMES, **names})


def pair(query, *product, relevance=None):
    return {"query": [query] if isinstance(query, str) else query, "product": list(product), "relevance": relevance}


def rows_of(pairs, **limits):
    rows, skipped, counts = PairEncoder.of_pairs(tokenizer(), **limits).encode(pairs)
    return rows.to_pylist(), skipped, counts


def said(ids):
    return " ".join(WORDS[i] for i in ids)


@pytest.mark.parametrize("template", [True, False])
def test_rows_are_those_of_the_tokenizer(template):
    known = tokenizer(template)
    rows, _, _ = PairEncoder.of_pairs(known).encode(
        [pair("red mug", "title: big red mug", "brand: acme", relevance=0.5)]
    )
    (row,) = rows.to_pylist()
    if template:
        assert row["input_ids"] == known("red mug", "title: big red mug . brand: acme")["input_ids"]
    assert said(row["input_ids"]) == "[CLS] red mug [SEP] title : big red mug . brand : acme [SEP]"
    assert row["word_ids"] == [-1, 0, 1, -1, *range(2, 11), -1]
    fields = [said(row["input_ids"][a:b]) for a, b in zip(row["span_start"], row["span_end"], strict=True)]
    assert fields == ["red mug", "title : big red mug", "brand : acme"]
    assert row["span_score"] == [0.5] * 3
    assert row["span_kind"] == [FIELD] * 3


def test_padding_that_the_tokenizer_stores_is_no_part_of_a_row():
    known = tokenizer()
    known("red mug", padding="max_length", max_length=32)  # some files on the Hub hold such a setting from the start
    assert pair_specials(known) == ((CLS,), (SEP,), (SEP,))
    rows, _, _ = PairEncoder.of_pairs(known).encode([pair("red mug", "big red mug")])
    assert said(rows.to_pylist()[0]["input_ids"]) == "[CLS] red mug [SEP] big red mug [SEP]"


def test_long_sides_are_cut_apart():
    rows, _, counts = rows_of([pair("red " * 10_000, "mug " * 500, "brand: acme")], max_query_tokens=4, max_tokens=20)
    (row,) = rows
    assert said(row["input_ids"]) == f"[CLS] {'red ' * 4}[SEP] {'mug ' * 13}[SEP]"
    assert (row["span_start"], row["span_end"]) == ([1, 6], [5, 19])
    assert counts["pairs", "cut queries"] == counts["pairs", "cut products"] == 1


def test_pairs_with_an_empty_side_are_skipped_and_counted():
    pairs = [pair("", "mug"), pair("red", ""), pair("red", None), pair([], "mug"), pair(" ", " "), pair("red", "mug")]
    rows, skipped, _ = rows_of(pairs)
    assert len(rows) == 1
    assert skipped == {"without query": 3, "without product": 2}


def test_text_that_looks_like_a_special_token_stays_text():
    (row,), _, _ = rows_of([pair("red [SEP] mug", "[MASK] big")])
    assert row["input_ids"].count(SEP) == 2
    assert 4 not in row["input_ids"]


def test_odd_texts():
    (row, emoji), _, _ = rows_of(
        [pair("red \ud800 mug", "mug"), pair("\U0001f600 \u0645\u0631\u062d\u0628\u0627", "mug")]
    )
    assert row["word_ids"][1] == 0
    # Unknown tokens are no words that could be predicted.
    assert [w for i, w in zip(emoji["input_ids"], emoji["word_ids"], strict=True) if i == UNK] == [-1, -1]


def test_tokenised_once_and_found_again(tmp_path):
    pairs = [pair("red mug", "title: big mug", "brand: acme", relevance=1.0), pair("mug", "red", relevance=0.0)]
    stores = [
        tokenise(pairs, tokenizer(), tmp_path, fingerprint="x", encoder=PairEncoder.of_pairs(tokenizer(), limit, 40))
        for limit in (8, 8, 9)
    ]
    assert stores[0].path == stores[1].path != stores[2].path
    batch = TokenisedDataset.load(stores[0].path).take([1, 0])
    assert said(batch.input_ids) == (
        "[CLS] mug [SEP] red [SEP] [CLS] red mug [SEP] title : big mug . brand : acme [SEP]"
    )
    assert np.array_equal(batch.span_score, np.array([0, 0, 1, 1, 1], dtype=np.float32))
    assert stores[0].metadata["spans"]["spans"] == {"field": 5}
    assert stores[0].num_prefix == stores[0].num_suffix == 1


def test_templates():
    assert pair_specials(tokenizer()) == ((CLS,), (SEP,), (SEP,))
    roberta = tokenizer()
    roberta.backend_tokenizer.post_processor = processors.RobertaProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    assert pair_specials(roberta) == ((CLS,), (SEP, SEP), (SEP,))
    with pytest.raises(ValueError, match="no separator token"):
        pair_specials(tokenizer(sep_token=None))


def test_limits_that_leave_no_product():
    with pytest.raises(ValueError, match="max_tokens=20 leaves less than 8 tokens"):
        PairEncoder.of_pairs(tokenizer(), 16, 20)
