from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from training_cases import WORDS, make_model, make_store, make_tokenizer

from rexbert_hf.data.rows import SPAN_KINDS
from rexbert_hf.data.store import TokenisedDataset
from rexbert_hf.training.span_accuracy import evaluate_spans

NEARLY_ALL = 1 - 1e-12
MASK = 3
PRICE, BRAND = SPAN_KINDS.index("price"), SPAN_KINDS.index("brand")


class AlwaysTen(nn.Module):
    """Predicts the token 10, then 11, wherever it is asked; keeps what it was shown."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(model_type="always-ten")
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen = []

    def forward(self, input_ids, attention_mask, labels):
        self.seen.append((input_ids, labels))
        logits = torch.zeros(*input_ids.shape, WORDS)
        logits[..., 10], logits[..., 11] = 2.0, 1.0
        return SimpleNamespace(logits=logits)


def row(body, spans=()):
    length = len(body)
    columns = {"input_ids": [1, *body, 2], "word_ids": [-1, *range(length), -1]}
    columns |= {"span_start": [start for start, _, _ in spans], "span_end": [end for _, end, _ in spans]}
    return columns | {"span_score": [1.0] * len(spans), "span_kind": [kind for *_, kind in spans]}


@pytest.fixture
def store():
    # Guided tokens: price 10, 12; brand 10, 11, 20. Rest: 30; 10; 40, 10, 41, 42.
    return TokenisedDataset.from_rows(
        [
            row([10, 12, 30], [(1, 3, PRICE)]),
            row([10, 11, 20, 10], [(1, 4, BRAND)]),
            row([40, 10, 41, 42]),
        ]
    )


def test_all_tokens_masked_equals_a_count_by_hand(store):
    found = evaluate_spans(AlwaysTen(), store, make_tokenizer(), mlm_probability=NEARLY_ALL)
    assert (found["count"], found["count_guided"], found["count_rest"]) == (11, 5, 6)
    assert found["accuracy"] == pytest.approx(4 / 11)
    assert found["accuracy_guided"] == pytest.approx(2 / 5)
    assert found["accuracy_rest"] == pytest.approx(2 / 6)
    assert found["accuracy_price"] == pytest.approx(1 / 2)
    assert found["accuracy_brand"] == pytest.approx(1 / 3)
    # 10 and 11 come first; 20 ties with all others behind them, which counts against it.
    assert found["accuracy@5_brand"] == pytest.approx(2 / 3)
    # Four times 10 (logit 2), once 11 (logit 1), six others (0).
    normaliser = np.log(np.exp(2.0) + np.exp(1.0) + WORDS - 2)
    assert found["loss"] == pytest.approx(normaliser - (4 * 2 + 1) / 11, rel=1e-5)


def test_whole_spans_hide_every_token_of_a_span_and_nothing_else(store):
    model = AlwaysTen()
    found = evaluate_spans(model, store, make_tokenizer(), mask="spans", mlm_probability=NEARLY_ALL)
    assert (found["count"], found["count_guided"]) == (5, 5)
    assert found["accuracy"] == pytest.approx(2 / 5)
    [(ids, labels)] = model.seen
    hidden = labels != -100
    assert set(ids[hidden].tolist()) == {MASK}
    assert sorted(labels[hidden].tolist()) == [10, 10, 11, 12, 20]
    assert sorted(ids[~hidden & (ids > 4)].tolist()) == [10, 10, 30, 40, 41, 42]


def test_half_of_the_spans_are_hidden_whole_or_not_at_all():
    rows = [row([5 + i % 50, 6 + i % 50, 7], [(1, 3, BRAND)]) for i in range(400)]
    model = AlwaysTen()
    found = evaluate_spans(model, TokenisedDataset.from_rows(rows), make_tokenizer(), mask="spans", mlm_probability=0.5)
    hidden = torch.cat([labels[:, 1:3] != -100 for _, labels in model.seen])
    assert torch.equal(hidden[:, 0], hidden[:, 1])
    assert abs(found["count"] / 800 - 0.5) < 4 * 0.5 / np.sqrt(400)


def test_only_with_spans_leaves_the_other_documents_out(store):
    found = evaluate_spans(AlwaysTen(), store, make_tokenizer(), mlm_probability=NEARLY_ALL, only_with_spans=True)
    assert (found["count"], found["count_rest"]) == (7, 2)


def test_a_span_past_the_cut_does_not_count():
    rows = [row([10, 20, 20, 20, 20, 11], [(5, 7, PRICE)]), row([10, 30], [(1, 2, BRAND)])]
    store = TokenisedDataset.from_rows(rows)
    options = {"mlm_probability": NEARLY_ALL, "seq_length": 6}
    whole = evaluate_spans(AlwaysTen(), store, make_tokenizer(), **options)
    assert (whole["count"], whole["count_guided"]) == (6, 1), "four body tokens of the long one stay"
    few = evaluate_spans(AlwaysTen(), store, make_tokenizer(), only_with_spans=True, **options)
    assert few["count"] == 2


def test_max_tokens_bounds_the_documents():
    rows = [row([10] * 8, [(1, 2, BRAND)]) for _ in range(20)]
    found = evaluate_spans(
        AlwaysTen(), TokenisedDataset.from_rows(rows), make_tokenizer(), mlm_probability=NEARLY_ALL, max_tokens=35
    )
    assert found["count"] == 3 * 8


def test_a_rexbert_sees_flat_batches_and_gives_the_same_masks_each_time():
    plain = make_store(3, documents=30)
    rows = []
    for i in range(len(plain)):
        spans = {"span_start": [1], "span_end": [3], "span_score": [1.0], "span_kind": [PRICE]}
        rows.append({**plain[i], **spans})
    store, tokenizer, model = TokenisedDataset.from_rows(rows), make_tokenizer(), make_model()
    model.train()
    first = evaluate_spans(model, store, tokenizer, batch_tokens=256)
    assert evaluate_spans(model, store, tokenizer, batch_tokens=256) == first
    assert first["count_guided"] + first["count_rest"] == first["count"]
    assert model.training
    padded = evaluate_spans(AlwaysTen(), store, tokenizer, batch_tokens=256)
    assert padded["count"] == first["count"], "flat and padded models see the same masks"
    assert padded["count_guided"] == first["count_guided"]


def test_an_unknown_mask_is_an_error(store):
    with pytest.raises(ValueError, match="mask must be 'tokens' or 'spans', got 'words'"):
        evaluate_spans(AlwaysTen(), store, make_tokenizer(), mask="words")


def test_no_document_with_a_span_is_an_error():
    store = TokenisedDataset.from_rows([row([7, 8]), row([9])])
    with pytest.raises(ValueError, match="held-out data is empty of documents with spans"):
        evaluate_spans(AlwaysTen(), store, make_tokenizer(), only_with_spans=True)


def test_a_store_without_spans_is_an_error():
    with pytest.raises(ValueError, match="no spans"):
        evaluate_spans(AlwaysTen(), TokenisedDataset.from_rows([{"input_ids": [1, 7, 8, 2]}]), make_tokenizer())
