"""transformers pipelines and sentence-transformers over a saved model, with a word-level tokenizer made here."""

from __future__ import annotations

import pytest
import torch
from tiny_models import build
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, pipeline

from rexbert_hf import (
    RexBertForMaskedLM,
    RexBertForQuestionAnswering,
    RexBertForSequenceClassification,
    RexBertForTokenClassification,
    RexBertModel,
)

WORDS = [
    "red",
    "blue",
    "green",
    "shoe",
    "shirt",
    "phone",
    "case",
    "for",
    "kids",
    "men",
    "women",
    "cotton",
    "leather",
    "large",
    "small",
]
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
TEXTS = ["red cotton shirt for kids", "blue shoe", "large green leather phone case for women"]


@pytest.fixture(scope="module")
def tokenizer():
    vocabulary = {token: i for i, token in enumerate(SPECIAL + WORDS)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        mask_token="[MASK]",
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
        **names,
    )


def sized(model_class, **overrides):
    return build(model_class, vocab_size=len(SPECIAL + WORDS), **overrides)


def test_fill_mask(tokenizer):
    model = sized(RexBertForMaskedLM)
    fill = pipeline("fill-mask", model=model, tokenizer=tokenizer, top_k=3)
    for batch_size in (1, 3):
        found = fill([f"{text} [MASK]" for text in TEXTS], batch_size=batch_size)
        for text, answers in zip(TEXTS, found, strict=True):
            ids = tokenizer(f"{text} [MASK]", return_tensors="pt")
            with torch.no_grad():
                logits = model(**ids).logits[0, ids["input_ids"][0] == tokenizer.mask_token_id][0]
            best = logits.softmax(0).topk(3)
            assert [a["token"] for a in answers] == best.indices.tolist()
            assert [a["score"] for a in answers] == pytest.approx(best.values.tolist(), rel=1e-3)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_feature_extraction(tokenizer, batch_size):
    model = sized(RexBertModel)
    extract = pipeline("feature-extraction", model=model, tokenizer=tokenizer, return_tensors=True)
    for text, found in zip(TEXTS, extract(TEXTS, batch_size=batch_size), strict=True):
        ids = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            expected = model(**ids).last_hidden_state[0]
        torch.testing.assert_close(found[0][: len(expected)], expected, atol=1e-5, rtol=1e-5)


def test_the_other_pipelines(tokenizer):
    labels = pipeline("text-classification", model=sized(RexBertForSequenceClassification), tokenizer=tokenizer)
    assert {answer["label"] for answer in labels(TEXTS, batch_size=3)} <= {"LABEL_0", "LABEL_1"}
    spans = pipeline("token-classification", model=sized(RexBertForTokenClassification), tokenizer=tokenizer)
    assert len(spans(TEXTS[0])) == 5
    model = sized(RexBertForQuestionAnswering)
    ids = tokenizer("for kids", TEXTS[2], return_tensors="pt")
    assert model(**ids).start_logits.shape == ids["input_ids"].shape


def test_sentence_transformers_adds_mean_pooling(tokenizer, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = sized(RexBertForMaskedLM)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    encoder = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu")
    assert type(encoder[0].auto_model) is RexBertModel
    found = encoder.encode(TEXTS, batch_size=2, convert_to_tensor=True)
    with torch.no_grad():
        expected = torch.stack(
            [model.model(**tokenizer(t, return_tensors="pt")).last_hidden_state[0].mean(0) for t in TEXTS]
        )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    encoder.save(str(tmp_path / "st"))
    again = sentence_transformers.SentenceTransformer(str(tmp_path / "st"), device="cpu")
    torch.testing.assert_close(again.encode(TEXTS, convert_to_tensor=True), found)


def test_a_tokenizer_larger_than_the_embedding_is_told_so(tokenizer):
    model = sized(RexBertForMaskedLM)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, mask_token="[MASK]")
    tokenizer.add_tokens(["PRICE"])
    with pytest.raises(ValueError, match=r"token id 20, but the embedding has 20 rows .*resize_token_embeddings"):
        model(**tokenizer("red shoe PRICE", return_tensors="pt"))
    model.resize_token_embeddings(len(tokenizer))
    assert model(**tokenizer("red shoe PRICE", return_tensors="pt")).logits.shape[-1] == 21
