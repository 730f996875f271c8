"""Tokenizers, rows and readings of batches that the masking tests share."""

from __future__ import annotations

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from rexbert_hf.data.rows import RowBatch

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
NAMES = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
CLS, SEP, MASK = 2, 3, 4
NUM_WORDS = 60
TEXTS = [
    "stainless steel water bottle 750 ml with bamboo lid and carrying strap",
    "wireless noise cancelling headphones with microphone, 30 hours of battery",
    "men's waterproof hiking shoes, breathable and lightweight, size 42",
    "organic green tea bags, 100 pieces, fair trade and unbleached paper",
    "replacement battery for cordless drill 18 V 4.0 Ah lithium ion",
    "kids' wooden building blocks, 120 pieces in a cotton storage bag",
]


def word_tokenizer(**overrides):
    """Words w0 ... w59 at ids 5 ... 64, the five special tokens at 0 ... 4."""
    vocab = {token: i for i, token in enumerate([*SPECIAL, *(f"w{i}" for i in range(NUM_WORDS))])}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocab, "[UNK]")), **{**NAMES, **overrides}
    )


def trained_tokenizer(kind):
    model, trainer, splitter = {
        "wordpiece": (
            models.WordPiece(unk_token="[UNK]"),
            trainers.WordPieceTrainer,
            pre_tokenizers.BertPreTokenizer(),
        ),
        "bpe": (models.BPE(), trainers.BpeTrainer, pre_tokenizers.ByteLevel(add_prefix_space=False)),
        "unigram": (models.Unigram(), trainers.UnigramTrainer, pre_tokenizers.Metaspace()),
    }[kind]
    backend = Tokenizer(model)
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = splitter
    if kind == "bpe":
        backend.decoder = decoders.ByteLevel()
    options = {"unk_token": "[UNK]"} if kind == "unigram" else {}
    backend.train_from_iterator(TEXTS, trainer(vocab_size=160, special_tokens=SPECIAL, show_progress=False, **options))
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, **NAMES)


def tokenised(tokenizer, texts):
    rows = []
    for encoding in tokenizer(list(texts)).encodings:
        words = [-1 if word is None else word for word in encoding.word_ids]
        rows.append({"input_ids": encoding.ids, "word_ids": words})
    return rows


def random_rows(num_rows=200, seed=0, spans=False, words=True, step=None, mean_length=40):
    """Rows over `word_tokenizer`: [CLS], words of 1 to 3 tokens, [SEP]; spans overlap and cut words freely."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(num_rows):
        sizes = rng.integers(1, 4, size=rng.integers(1, mean_length))
        body = rng.integers(len(SPECIAL), len(SPECIAL) + NUM_WORDS, size=sizes.sum())
        row = {"input_ids": np.concatenate([[CLS], body, [SEP]])}
        if words:
            row["word_ids"] = np.concatenate([[-1], np.repeat(np.arange(len(sizes)), sizes), [-1]])
        if spans:
            count = rng.poisson(0.1 * len(body))
            start = np.sort(rng.integers(1, len(body) + 1, size=count))
            row["span_start"] = start
            row["span_end"] = np.minimum(start + rng.integers(1, 6, size=count), len(body) + 1)
            row["span_score"] = rng.random(count).round(1)
            row["span_kind"] = rng.integers(0, 10, size=count)
        if step is not None:
            row["step"] = step
        rows.append(row)
    return rows


def masked_of(output):
    """Bool mask of the predicted tokens of the real places, flat."""
    labels = output["labels"]
    if "attention_mask" in output:
        labels = labels[output["attention_mask"].bool()]
    return (labels.reshape(-1) != -100).numpy()


def originals_of(output):
    labels, ids = output["labels"], output["input_ids"]
    return ids.where(labels == -100, labels)


def assert_same(left, right):
    assert left.keys() == right.keys()
    for name, value in left.items():
        if isinstance(value, int):
            assert value == right[name], name
        else:
            assert value.dtype == right[name].dtype, name
            assert value.tolist() == right[name].tolist(), name


def eligible_of(rows):
    return RowBatch.from_rows(rows).input_ids > MASK
