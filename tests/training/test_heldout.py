from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from accelerate.utils import convert_outputs_to_fp32
from torch.nn.functional import cross_entropy
from training_cases import make_bert, make_model, make_stock_model, make_store, make_tokenizer
from transformers import MobileBertConfig, MobileBertForMaskedLM

from rexbert_hf.data.store import TokenisedDataset
from rexbert_hf.masking import MLMCollator
from rexbert_hf.metrics import label_ranks
from rexbert_hf.training import evaluate_masked, heldout
from rexbert_hf.training.heldout import length_batches, predict_masked

EDGES = (0, 8, 16, 64)


@pytest.fixture(scope="module")
def store():
    return make_store(5, documents=40)


def reference(model, store, batch_tokens):
    """One document at a time through the full logits, with the masks of the evaluation's batches.

    Returns the mean loss, and for each masked token its label's place among the sorted scores and its position.
    """
    collator = MLMCollator(make_tokenizer(), mlm_probability=0.15, flat=False, seed=0)
    loss, ranks, buckets = 0.0, [], []
    model.eval()
    for number, at in enumerate(length_batches(store.lengths, batch_tokens)):
        batch = collator(store.take(at, step=number))
        for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
            length = int(mask.sum())
            places = (labels != -100).nonzero().squeeze(1)
            with torch.no_grad():
                logits = model(ids[None, :length]).logits[0, places]
            loss += float(cross_entropy(logits, labels[places], reduction="sum"))
            order = logits.argsort(-1, descending=True)
            ranks += (order == labels[places][:, None]).int().argmax(-1).tolist()
            buckets += places.tolist()
    return loss / len(ranks), ranks, buckets


def train_a_little(model):
    """Give the model something to be right about: it then predicts the words w10 to w19."""
    with torch.no_grad():
        model.decoder.bias[10:20] += 1.0
    return model


@pytest.mark.parametrize("make", [make_model, make_stock_model])
def test_equals_one_document_at_a_time(make, store):
    model = train_a_little(make())
    loss, ranks, places = reference(model, store, 256)
    right = [rank == 0 for rank in ranks]
    model.train()
    result = evaluate_masked(model, store, make_tokenizer(), batch_tokens=256, seq_length=64, position_edges=EDGES)
    assert result["masked_tokens"] == len(right)
    assert result["loss"] == pytest.approx(loss, rel=1e-5)
    assert result["accuracy"] == sum(right) / len(right) > 0
    for k in (3, 5):
        assert result[f"accuracy@{k}"] == sum(rank < k for rank in ranks) / len(ranks)
    assert result["accuracy"] < result["accuracy@3"] < result["accuracy@5"] < 1, "the case tells them apart"
    for low, high in pairwise(EDGES):
        inside = [r for r, place in zip(right, places, strict=True) if low <= place < high]
        assert result[f"accuracy_{low}_{high}"] == pytest.approx(sum(inside) / len(inside))
    assert model.training, "the mode is restored"


def test_ranks_add_up_to_the_whole(store):
    model, tokenizer = train_a_little(make_model()), make_tokenizer()
    whole = evaluate_masked(model, store, tokenizer, batch_tokens=128)
    parts = []
    for rank in range(2):
        evaluate_masked(
            model, store, tokenizer, batch_tokens=128, rank=rank, world_size=2, reduce=lambda s: parts.append(s) or s
        )
    loss, correct, count, third, fifth = (sum(column) for column in zip(*parts, strict=True))
    assert (third / count, fifth / count) == (whole["accuracy@3"], whole["accuracy@5"])
    assert count == whole["masked_tokens"]
    assert correct / count == whole["accuracy"]
    assert loss / count == pytest.approx(whole["loss"])


def test_is_the_same_each_time_and_draws_nothing_from_the_generators(store):
    model = make_model()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = evaluate_masked(model, store, make_tokenizer())
    assert torch.equal(state, torch.get_rng_state())
    assert evaluate_masked(model, store, make_tokenizer()) == first
    assert evaluate_masked(model, store, make_tokenizer(), seed=1) != first


def test_long_documents_are_cut_and_none_is_lost(store):
    short = evaluate_masked(make_model(), store, make_tokenizer(), seq_length=16, position_edges=(0, 16, 64))
    assert "accuracy_16_64" not in short
    bodies = float((store.lengths - 2).sum())
    assert short["masked_tokens"] == pytest.approx(0.15 * bodies, rel=0.25)  # 4 standard deviations of a binomial


def test_max_tokens_takes_the_first_documents(store):
    few = evaluate_masked(make_model(), store, make_tokenizer(), max_tokens=int(store.lengths[:10].sum()))
    same = TokenisedDataset.from_rows([store[i] for i in range(10)])
    assert few == evaluate_masked(make_model(), same, make_tokenizer())


def test_other_depths(store):
    model, tokenizer = train_a_little(make_model()), make_tokenizer()
    plain = evaluate_masked(model, store, tokenizer, top_k=())
    assert not [key for key in plain if "@" in key]
    deep = evaluate_masked(model, store, tokenizer, top_k=(10, model.config.vocab_size), position_edges=EDGES)
    assert deep["accuracy"] == plain["accuracy"] < deep["accuracy@10"] < 1
    assert deep[f"accuracy@{model.config.vocab_size}"] == 1
    assert {key: deep[key] for key in deep if key.startswith("accuracy_")} == {
        f"accuracy_{low}_{high}": pytest.approx(value)
        for low, high in pairwise(EDGES)
        if (value := evaluate_masked(model, store, tokenizer, position_edges=EDGES).get(f"accuracy_{low}_{high}"))
        is not None
    }
    with pytest.raises(ValueError, match="top_k counts from 1"):
        evaluate_masked(model, store, tokenizer, top_k=(0,))


@pytest.mark.parametrize("make", [make_model, make_stock_model])
@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_model_that_says_nothing_is_never_right(make, value, store):
    """All scores equal, or none a number: no token was guessed, whatever comes of the loss."""
    model = make()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "decoder" in name or "embed" in name:
                weight.fill_(value)
    result = evaluate_masked(model, store, make_tokenizer(), batch_tokens=256, seq_length=64)
    assert [result[name] for name in ("accuracy", "accuracy@3", "accuracy@5")] == [0.0] * 3


@pytest.mark.parametrize("make", [make_model, make_stock_model])
def test_ranks_are_those_of_the_metric(make, store):
    """Twenty tokens tie at the top."""
    model = make().eval()
    with torch.no_grad():
        model.decoder.weight[20:40] = model.decoder.weight[20]
        model.decoder.bias[20:40] = 5.0
    batch = MLMCollator(make_tokenizer(), flat=False, seed=0)(store.take([0, 1, 2], step=0))
    masked = batch["labels"] != -100
    with torch.no_grad():
        logits = model(**{key: value for key, value in batch.items() if key != "labels"}).logits[masked]
        ranks = predict_masked(model, batch, masked)[1]
    assert ranks.tolist() == label_ranks(logits.numpy(), batch["labels"][masked].numpy()).tolist()
    assert min(ranks.tolist()) == 19


def test_an_empty_store_is_an_error():
    with pytest.raises(ValueError, match="held-out data is empty"):
        evaluate_masked(make_model(), TokenisedDataset.from_rows([]), make_tokenizer())


@pytest.mark.parametrize("make", [make_bert, make_stock_model])
@torch.no_grad()
def test_ranks_under_bfloat16_are_those_of_float32_scores(make):
    """Sixty scores about 10, less than bfloat16's steps there apart: the label is found among them all the same."""
    model = make().eval()
    head = model.get_output_embeddings()
    head.bias.copy_(10 + torch.arange(64) * 1e-4)
    head.weight.mul_(1e-6)
    batch = MLMCollator(make_tokenizer(), flat=False, seed=0)(make_store(2, documents=20).take([0, 1, 2], step=0))
    masked = batch["labels"] != -100
    exact = predict_masked(model, batch, masked)[1]
    assert exact.tolist() == (63 - batch["labels"][masked]).tolist()
    accelerator_forward = model.forward
    for where in ("around", "within"):
        with torch.autocast("cpu", torch.bfloat16, enabled=where == "around"):
            if where == "within":  # as accelerate prepares a model
                model.forward = convert_outputs_to_fp32(torch.autocast("cpu", torch.bfloat16)(accelerator_forward))
            assert predict_masked(model, batch, masked)[1].tolist() == exact.tolist()
    assert not head._forward_hooks


@torch.no_grad()
def test_labels_go_only_to_models_that_find_places_by_them(monkeypatch):
    """No loss is computed over all logits; `sparse_prediction` has the same ranks from a forward of few rows."""
    batch = MLMCollator(make_tokenizer(), flat=False, seed=0)(make_store(2, documents=20).take([0, 1, 2], step=0))
    masked = batch["labels"] != -100
    seen = []
    for sparse in (False, True):
        model = make_stock_model().eval()
        model.sparse_prediction = model.config.sparse_prediction = sparse
        forward = model.forward
        monkeypatch.setattr(
            model, "forward", lambda forward=forward, **inputs: seen.append(inputs) or forward(**inputs)
        )
        with torch.autocast("cpu", torch.bfloat16):
            seen.append(predict_masked(model, batch, masked))
    assert ["labels" in inputs for inputs in seen[::2]] == [False, True]
    assert seen[1][0] == pytest.approx(seen[3][0], rel=1e-3)
    assert seen[1][1].tolist() == seen[3][1].tolist()


@torch.no_grad()
def test_half_precision_ranks_are_told_once(caplog):
    """MobileBERT multiplies by the table of its output layer without calling it."""
    heldout._warn_of_ties.cache_clear()
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16}
    model = MobileBertForMaskedLM(MobileBertConfig(vocab_size=64, max_position_embeddings=64, **sizes)).eval()
    batch = MLMCollator(make_tokenizer(), flat=False, seed=0)(make_store(2, documents=20).take([0, 1, 2], step=0))
    masked = batch["labels"] != -100
    predict_masked(model, batch, masked)
    predict_masked(make_bert().eval(), batch, masked)
    assert not caplog.records
    with torch.autocast("cpu", torch.bfloat16):
        predict_masked(make_bert().eval(), batch, masked)
        predict_masked(model, batch, masked)
        predict_masked(model, batch, masked)
    (record,) = caplog.records
    assert record.getMessage().startswith("MobileBertForMaskedLM: its logits are in half precision")


def test_logits_that_are_changed_after_the_output_layer_are_taken_as_they_are():
    model = make_bert().eval()
    batch = MLMCollator(make_tokenizer(), flat=False, seed=0)(make_store(2, documents=20).take([0, 1, 2], step=0))
    masked = batch["labels"] != -100
    forward = model.forward

    def capped(**inputs):
        output = forward(**inputs)
        output.logits = -output.logits
        return output

    model.forward = capped
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = capped(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[masked]
        loss, ranks = predict_masked(model, batch, masked)
    targets = batch["labels"][masked]
    assert loss == pytest.approx(float(cross_entropy(expected.float(), targets, reduction="sum")))
    assert ranks.tolist() == label_ranks(expected.float().numpy(), targets.numpy()).tolist()
