from __future__ import annotations

import numpy as np
import pytest
import torch
from masking_cases import MASK, TEXTS, assert_same, masked_of, originals_of, random_rows, tokenised, trained_tokenizer
from torch.utils.data import DataLoader, Dataset
from transformers import BertConfig, BertForMaskedLM, ModernBertConfig, ModernBertForMaskedLM

from rexbert_hf.masking import GuidedMLMCollator, MLMCollator

KINDS = ("wordpiece", "bpe", "unigram")


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=KINDS)
def trained(request):
    return trained_tokenizer(request.param)


def first_words_as_spans(rows):
    """A span over the first two words of each row."""
    spanned = []
    for row in rows:
        inside = np.flatnonzero(np.isin(row["word_ids"], [0, 1]))
        span = {"span_start": [inside[0]], "span_end": [inside[-1] + 1], "span_score": [1.0], "span_kind": [0]}
        spanned.append({**row, **span})
    return spanned


@pytest.mark.parametrize("collator_class", [MLMCollator, GuidedMLMCollator])
def test_tokenizers_of_three_families(trained, collator_class):
    options = {"whole_word": True} if collator_class is MLMCollator else {}
    rows = tokenised(trained, TEXTS)
    assert any(len(set(row["word_ids"])) < len(row["word_ids"]) - 1 for row in rows), "no word of several tokens"
    collator = collator_class(trained, 0.4, flat=True, **options)
    special = np.isin(np.concatenate([row["input_ids"] for row in rows]), trained.all_special_ids)
    words = np.concatenate(
        [
            np.where(np.array(row["word_ids"]) < 0, -1, np.array(row["word_ids"]) + 1000 * i)
            for i, row in enumerate(rows)
        ]
    )
    masked_once = np.zeros(len(words), dtype=bool)
    for step in range(30):
        out = collator([{**row, "step": step} for row in rows])
        masked = masked_of(out)
        masked_once |= masked
        assert not (masked & special).any()
        for word in np.unique(words[masked]):
            assert masked[words == word].all()
        replaced = out["input_ids"][0].numpy()[masked]
        assert not np.isin(replaced, [i for i in trained.all_special_ids if i != trained.mask_token_id]).any()
        assert originals_of(out)[0].tolist() == [i for row in rows for i in row["input_ids"]]
    assert (masked_once == ~special).all()


def tiny_model(name, vocab_size):
    shape = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    torch.manual_seed(0)
    if name == "bert":
        return BertForMaskedLM(BertConfig(**shape, max_position_embeddings=64))
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    return ModernBertForMaskedLM(ModernBertConfig(**shape, **ids))


@pytest.mark.parametrize("name", ["bert", "modernbert"])
@pytest.mark.parametrize("collator_class", [MLMCollator, GuidedMLMCollator])
def test_stock_models_learn_from_padded_batches(name, collator_class):
    tokenizer = trained_tokenizer("wordpiece")
    rows = first_words_as_spans(tokenised(tokenizer, TEXTS)) * 4
    collator = collator_class(tokenizer, 0.3, pad_to_multiple_of=8)
    model = tiny_model(name, len(tokenizer)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for step in range(40):
        batch = collator([{**row, "step": step} for row in rows])
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert np.isfinite(losses).all()
    # One loss varies by about 0.1 with its mask, the mean of five by 0.05.
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.3


class Steps(Dataset):
    """Map-style data read by (row, step), as a step sampler would."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, key):
        if isinstance(key, tuple):
            return {**self.rows[key[0]], "step": key[1]}
        return self.rows[key]


def test_workers_do_not_change_selections(tokenizer):
    rows = random_rows(48, spans=True)
    batches = [[((8 * step + i) % 48, step) for i in range(8)] for step in range(9)]
    collator = GuidedMLMCollator(tokenizer, flat=True, guidance_steps=5)
    alone, two = (
        list(DataLoader(Steps(rows), batch_sampler=batches, collate_fn=collator, num_workers=workers))
        for workers in (0, 2)
    )
    assert len(alone) == len(two) == 9
    for left, right in zip(alone, two, strict=True):
        assert_same(left, right)


def test_without_steps_workers_still_mask_anew_each_epoch(tokenizer):
    """All batches hold the same rows, so equal masks would show."""
    rows = random_rows(4) * 6
    loader = DataLoader(Steps(rows), batch_size=4, collate_fn=MLMCollator(tokenizer, flat=True), num_workers=2)
    masks = {tuple(masked_of(batch).tolist()) for _ in range(2) for batch in loader}
    assert len(masks) == 12


def test_mask_token_id_is_the_tokenizers(trained):
    out = MLMCollator(trained, 0.9, mask_replace_prob=1.0, random_replace_prob=0.0)(tokenised(trained, TEXTS))
    assert trained.mask_token_id == MASK
    assert (out["input_ids"][out["labels"] != -100] == trained.mask_token_id).all()
