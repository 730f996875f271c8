"""Whole-word accuracy by bytes against a plain transcription, one text at a time, and across tokenizers."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rexbert_hf.catalog import load_sample
from rexbert_hf.catalog.split import text_digests
from rexbert_hf.data.vocabulary import train_tokenizer
from rexbert_hf.models import RexBertConfig, RexBertForMaskedLM
from rexbert_hf.training.word_accuracy import cut_bytes, evaluate_words


@pytest.fixture(scope="module")
def texts():
    rows = load_sample("multilingual_text", size=60)
    return [row["text"] for row in rows][:40]


def make_model(tokenizer, seed=0):
    torch.manual_seed(seed)
    config = RexBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=1.0,
    )
    return RexBertForMaskedLM(config).eval()


def chosen_words(text, seed):
    """Words that are hidden: single characters of Chinese, else runs of letters and digits."""
    spans, i = [], 0
    while i < len(text):
        if "\u3400" <= text[i] <= "\u9fff":
            spans.append((i, i + 1))
            i += 1
        elif re.match(r"\w", text[i]):
            end = i
            while end < len(text) and re.match(r"\w", text[end]) and not "\u3400" <= text[end] <= "\u9fff":
                end += 1
            spans.append((i, end))
            i = end
        else:
            i += 1
    rng = np.random.default_rng([seed, *text_digests([text])[0].tolist()])
    draws = rng.random(len(spans))
    shares = [0.05 if "\u3400" <= text[start] <= "\u9fff" else 0.15 for start, _ in spans]
    return [span for span, draw, share in zip(spans, draws, shares, strict=True) if draw < share]


def plainly(model, texts, tokenizer, seed):
    right = total = 0
    nats = 0.0
    for text in texts:
        text = cut_bytes(text, 240)
        encoded = tokenizer(text, return_offsets_mapping=True)
        ids = torch.tensor([encoded["input_ids"]])
        inside = [(i, low, high) for i, (low, high) in enumerate(encoded["offset_mapping"]) if high > low]
        words = chosen_words(text, seed)
        places = [[i for i, low, high in inside if low < end and high > start] for start, end in words]
        hidden = sorted({i for at in places for i in at})
        if not hidden:
            continue
        masked = ids.clone()
        masked[0, hidden] = tokenizer.mask_token_id
        logits = model(input_ids=masked, attention_mask=torch.ones_like(masked)).logits[0].double()
        guess = logits.argmax(-1)
        nats -= logits.log_softmax(-1)[hidden, ids[0, hidden]].sum().item()
        for (start, end), at in zip(words, places, strict=True):
            size = len(text[start:end].encode())
            total += size
            right += size * bool((guess[at] == ids[0, at]).all())
    return {"accuracy": right / total, "bits_per_byte": nats / total / np.log(2), "bytes": total}


@pytest.mark.parametrize("vocab_size", [384, 640])
def test_against_one_text_at_a_time(texts, vocab_size):
    tokenizer = train_tokenizer(texts, vocab_size)
    model = make_model(tokenizer)
    found = evaluate_words(model, texts, tokenizer, seed=3, batch_tokens=500)
    wanted = plainly(model, texts, tokenizer, 3)
    assert found["bytes"] == wanted["bytes"] > 200
    assert found["accuracy"] == pytest.approx(wanted["accuracy"])
    assert found["bits_per_byte"] == pytest.approx(wanted["bits_per_byte"], rel=1e-4)


class Knows(torch.nn.Module):
    """Guesses the tokens of some ids right, whatever is hidden: it is handed the labels."""

    def __init__(self, vocab_size, known):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.vocab_size, self.known = vocab_size, torch.tensor(sorted(known))

    def forward(self, input_ids, attention_mask, labels):
        target = torch.where(torch.isin(labels, self.known), labels, 0)
        logits = torch.nn.functional.one_hot(target.clamp(min=0), self.vocab_size).float() * 9
        return type("Output", (), {"logits": logits})()


def test_all_tokens_of_a_word_must_be_guessed_and_bytes_count():
    tokenizer = train_tokenizer(["aa bb"], 384)  # every character is a token
    ids = tokenizer.get_vocab()
    texts = ["aab " * 20, "cccc " * 20]
    found = {
        name: evaluate_words(Knows(len(tokenizer), [ids[c] for c in name]), texts, tokenizer, word_probability=1.0)
        for name in ("a", "ab", "abc", "c")
    }
    assert found["a"]["accuracy"] == 0
    assert found["ab"]["accuracy"] == 60 / 140
    assert found["c"]["accuracy"] == 80 / 140
    assert found["a"]["words"] == 40


def test_what_the_tokenizer_does_not_know_is_never_right():
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "[MASK]": 2, "lamp": 3}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", mask_token="[MASK]"
    )
    found = evaluate_words(Knows(4, [0, 3]), ["lamp zebra", "lamp lamp"], tokenizer, word_probability=1.0)
    assert found["accuracy"] == 12 / 17


def test_the_words_do_not_depend_on_the_tokenizer(texts):
    counts = set()
    for vocab_size in (384, 512):
        tokenizer = train_tokenizer(texts, vocab_size)
        found = evaluate_words(make_model(tokenizer), texts, tokenizer)
        counts.add((found["words"], found["bytes"]))
    assert len(counts) == 1


def test_no_word_to_hide():
    tokenizer = train_tokenizer(["aa bb"], 384)
    with pytest.raises(ValueError, match="no word of the texts is hidden"):
        evaluate_words(make_model(tokenizer), ["...", ""], tokenizer)
