"""Task heads: losses, pooling, flat batches; equality with stock is in test_stock_modernbert.py."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from tiny_models import build, documents, flat_batch, padded_batch
from torch.utils._python_dispatch import TorchDispatchMode

from rexbert_hf import (
    RexBertForMultipleChoice,
    RexBertForPreTraining,
    RexBertForQuestionAnswering,
    RexBertForSequenceClassification,
    RexBertForTokenClassification,
)
from rexbert_hf.models import neighbor_reconstruction_loss
from rexbert_hf.models.encoder_rexbert import FlatOutput
from rexbert_hf.models.layout_rexbert import make_layout

DOCS = documents([9, 70, 1, 17, 9])


def close(a, b):
    torch.testing.assert_close(a, b, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_sequence_classification_pools_each_document(pooling, backend):
    model = build(
        RexBertForSequenceClassification, num_labels=3, classifier_pooling=pooling, attn_implementation=backend
    )
    with torch.no_grad():
        hidden = [model.model(d[None]).last_hidden_state[0] for d in DOCS]
        pooled = torch.stack([h[0] if pooling == "cls" else h.mean(0) for h in hidden])
        expected = model.classifier(model.head(pooled))
        close(model(**flat_batch(DOCS)).logits, expected)
        close(model(**flat_batch(DOCS, "positions")).logits, expected)
        close(model(**padded_batch(DOCS)).logits, expected)
        close(model(**padded_batch(DOCS, "left", extra=3)).logits, expected)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_row_of_padding_keeps_its_place(pooling):
    model = build(RexBertForSequenceClassification, num_labels=3, classifier_pooling=pooling)
    batch = padded_batch(DOCS)
    empty = {name: torch.cat([value[:2], torch.zeros_like(value[:1]), value[2:]]) for name, value in batch.items()}
    with torch.no_grad():
        found, expected = model(**empty).logits, model(**batch).logits
    assert found.shape == (len(DOCS) + 1, 3)
    close(torch.cat([found[:2], found[3:]]), expected)


class SumsSeen(TorchDispatchMode):
    """Notes the dtype of each running sum; CPU keeps those of halves in float32 of its own accord, CUDA does not."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: list[torch.dtype] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.index_add.default:
            self.dtypes += [args[0].dtype, args[3].dtype]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_mean_of_a_long_document_is_summed_in_float32(dtype):
    """A running sum of 4,096 such states leaves the range of float16, and stands still early in bfloat16."""
    model = build(RexBertForSequenceClassification, classifier_pooling="mean")
    hidden = (20 + torch.rand(4096 + 7, 32, generator=torch.Generator().manual_seed(0))).to(dtype)
    borders = torch.tensor([0, 4096, 4096 + 7])
    layout = make_layout((1, len(hidden)), hidden.device, cu_seqlens=borders, varlen=True)
    with SumsSeen() as seen:
        pooled = model._pool(FlatOutput(hidden, layout), None)
    assert seen.dtypes == [torch.float32] * 2
    expected = torch.stack([hidden[:4096].double().mean(0), hidden[4096:].double().mean(0)])
    torch.testing.assert_close(pooled, expected.to(dtype), atol=0, rtol=torch.finfo(dtype).eps)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize(("rows", "columns"), [(0, 5), (2, 0), (1, 0), (2, 5), (1, 5)])
def test_a_batch_without_a_token_has_its_shape(rows, columns, backend, pooling):
    """Of no rows, of no columns, or of padding alone; where there are rows their vectors are zero."""
    build_it = functools.partial(build, num_labels=3, classifier_pooling=pooling, attn_implementation=backend)
    ids = torch.zeros(rows, columns, dtype=torch.long)
    for mask in [torch.zeros_like(ids)] + ([] if rows * columns else [None]):
        model = build_it(RexBertForSequenceClassification)
        logits = model.train()(ids, attention_mask=mask).logits
        close(logits, model.classifier(model.head(torch.zeros(rows, 32))))
        logits.sum().backward()
        assert build_it(RexBertForTokenClassification)(ids, attention_mask=mask).logits.shape == (rows, columns, 3)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_pooling_with_gaps_in_the_mask(pooling):
    model = build(RexBertForSequenceClassification, classifier_pooling=pooling)
    batch = padded_batch(documents([12, 8]))
    batch["attention_mask"][0, 4:7] = 0
    mask = batch["attention_mask"].bool()
    with torch.no_grad():
        hidden = model.model(**batch).last_hidden_state
        pooled = torch.stack([h[m][0] if pooling == "cls" else h[m].mean(0) for h, m in zip(hidden, mask, strict=True)])
        close(model(**batch).logits, model.classifier(model.head(pooled)))


@pytest.mark.parametrize(
    ("num_labels", "labels", "problem", "loss"),
    [
        (3, torch.tensor([0, 2, 1, 1, 0]), "single_label_classification", F.cross_entropy),
        (3, (torch.rand(5, 3) > 0.5).float(), "multi_label_classification", F.binary_cross_entropy_with_logits),
        (1, torch.randn(5), "regression", lambda x, y: F.mse_loss(x[:, 0], y)),
        (2, torch.randn(5, 2), "regression", F.mse_loss),
    ],
    ids=["single", "multi", "regression", "regression2"],
)
def test_sequence_classification_losses(num_labels, labels, problem, loss):
    given = {"problem_type": problem} if num_labels == 2 else {}
    model = build(RexBertForSequenceClassification, num_labels=num_labels, **given)
    for batch in (flat_batch(DOCS), padded_batch(DOCS)):
        with torch.no_grad():
            output = model(**batch, labels=labels)
        assert model.config.problem_type == problem
        close(output.loss, loss(output.logits, labels))


def test_token_classification():
    model = build(RexBertForTokenClassification, num_labels=4)
    labels = [d % 4 for d in DOCS]
    labels[1][3:9] = -100
    flat, padded = flat_batch(DOCS), padded_batch(DOCS)
    padded_labels = torch.full_like(padded["input_ids"], -100)
    padded_labels[padded["attention_mask"].bool()] = torch.cat(labels)
    with torch.no_grad():
        one = model(**flat, labels=torch.cat(labels)[None])
        two = model(**padded, labels=padded_labels)
        alone = torch.cat([model(d[None]).logits[0] for d in DOCS])
    close(one.logits[0], alone)
    close(two.logits[padded["attention_mask"].bool()], alone)
    close(one.loss, F.cross_entropy(alone, torch.cat(labels)))
    close(two.loss, one.loss)


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_question_answering_does_not_depend_on_padding(backend):
    model = build(RexBertForQuestionAnswering, attn_implementation=backend)
    docs = [d for d in DOCS if len(d) > 4]
    starts, ends = torch.tensor([1, 2, 0, 3]), torch.tensor([3, 2, 4, 4])
    with torch.no_grad():
        alone = [
            model(d[None], start_positions=s[None], end_positions=e[None])
            for d, s, e in zip(docs, starts, ends, strict=True)
        ]
        for batch in (padded_batch(docs), padded_batch(docs, extra=9)):
            output = model(**batch, start_positions=starts, end_positions=ends)
            close(output.loss, torch.stack([a.loss for a in alone]).mean())
            mask = batch["attention_mask"].bool()
            close(output.start_logits[mask], torch.cat([a.start_logits[0] for a in alone]))
            assert output.start_logits.argmax(1).tolist() == [int(a.start_logits.argmax()) for a in alone]
            assert not output.end_logits.softmax(1)[~mask].any()


def test_question_answering_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="not a flat batch"):
        build(RexBertForQuestionAnswering)(**flat_batch(DOCS))
    with pytest.raises(ValueError, match="needs num_labels=2"):
        build(RexBertForQuestionAnswering, num_labels=3)


def test_multiple_choice():
    model = build(RexBertForMultipleChoice)
    docs = documents([5, 9, 70, 3, 8, 4])
    batch = padded_batch(docs)
    stacked = {name: x.view(2, 3, -1) for name, x in batch.items()}
    labels = torch.tensor([2, 0])
    with torch.no_grad():
        output = model(**stacked, labels=labels)
        scores = torch.stack([model(d[None, None]).logits[0, 0] for d in docs]).view(2, 3)
        embeds = model.get_input_embeddings()(stacked["input_ids"])
        by_embeds = model(inputs_embeds=embeds, attention_mask=stacked["attention_mask"])
    assert output.logits.shape == (2, 3)
    close(output.logits, scores)
    close(by_embeds.logits, scores)
    close(output.loss, F.cross_entropy(scores, labels))


@pytest.mark.parametrize("head", ["sequence", "multi", "regression", "token", "qa", "choice"])
def test_num_items_in_batch_gives_the_loss_of_the_whole_step(head):
    """Trainer sums the parts of an accumulated step and gives the number of labels of all of them."""
    docs = documents([6, 6, 6, 6])
    rows = torch.stack(docs)
    if head == "token":
        model, labels = build(RexBertForTokenClassification), rows % 2
        labels[0, 2:] = -100
    elif head == "qa":
        model, labels = build(RexBertForQuestionAnswering), torch.tensor([1, 0, 3, 2])
    elif head == "choice":
        model, labels, rows = build(RexBertForMultipleChoice), torch.tensor([0, 1, 1, 0]), rows.view(4, 2, 3)
    else:
        labels = {
            "sequence": torch.tensor([0, 1, 1, 0]),
            "multi": torch.ones(4, 2),
            "regression": torch.arange(4.0),
        }[head]
        model = build(RexBertForSequenceClassification, num_labels=1 if head == "regression" else 2)

    def loss(part, **kwargs):
        if head == "qa":
            return model(rows[part], start_positions=labels[part], end_positions=labels[part], **kwargs).loss
        return model(rows[part], labels=labels[part], **kwargs).loss

    items = int((labels != -100).sum())
    with torch.no_grad():
        whole = loss(slice(None))
        parts = [loss(part, num_items_in_batch=torch.tensor(items)) for part in (slice(0, 1), slice(1, 4))]
    close(sum(parts), whole)


TRIPLETS = torch.tensor([[0, 1, 3], [4, 3, 1]])


def masked_labels(docs):
    return [torch.where(torch.arange(len(d)) % 4 == 1, d, -100) for d in docs]


@pytest.mark.parametrize("normalize", [False, True])
def test_pretraining_padded_and_flat_are_equal_and_as_written(normalize):
    model = build(RexBertForPreTraining, npr_weight=0.5, npr_margin=30.0, npr_normalize=normalize)
    docs = [d.clone() for d in DOCS]
    docs[0][0], docs[0][-1], docs[3][5] = 1, 2, 0  # special tokens stay out of the reconstruction
    labels = masked_labels(docs)
    flat, padded = flat_batch(docs), padded_batch(docs)
    padded_labels = torch.full_like(padded["input_ids"], -100)
    padded_labels[padded["attention_mask"].bool()] = torch.cat(labels)
    model.zero_grad()
    one = model(**flat, labels=torch.cat(labels)[None], triplets=TRIPLETS)
    one.loss.backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    two = model(**padded, labels=padded_labels, triplets=TRIPLETS)
    two.loss.backward()
    for field in ("loss", "mlm_loss", "npr_loss"):
        close(getattr(one, field), getattr(two, field))
    for name, parameter in model.named_parameters():
        scale = float(grads[name].abs().max())
        torch.testing.assert_close(parameter.grad, grads[name], atol=1e-4 * max(scale, 1.0), rtol=0, msg=name)
    close(one.loss, one.mlm_loss + 0.5 * one.npr_loss)
    with torch.no_grad():
        hidden = [model.model(d[None]).last_hidden_state for d in docs]
        each = []
        for triplet in TRIPLETS.tolist():
            rows = [hidden[i] for i in triplet]
            masks = [(docs[i] > 2)[None] for i in triplet]
            each.append(neighbor_reconstruction_loss(*rows, *masks, margin=30.0, normalize=normalize))
    assert float(one.npr_loss.detach()) > 0
    close(one.npr_loss.detach(), torch.stack(each).mean())


def test_reconstruction_numbers_the_documents_that_positions_alone_mark():
    model = build(RexBertForPreTraining, npr_margin=30.0)
    with torch.no_grad():
        expected = model(**flat_batch(DOCS), triplets=TRIPLETS).npr_loss
        found = model(**flat_batch(DOCS, "positions"), triplets=TRIPLETS).npr_loss
    assert float(expected) > 0
    close(found, expected)


def test_pretraining_parts_alone():
    model = build(RexBertForPreTraining, npr_margin=30.0)
    flat = flat_batch(DOCS)
    with torch.no_grad():
        both = model(**flat, labels=torch.cat(masked_labels(DOCS))[None], triplets=TRIPLETS)
        mlm = model(**flat, labels=torch.cat(masked_labels(DOCS))[None])
        npr = model(**flat, triplets=TRIPLETS)
        nothing = model(**flat)
    assert mlm.npr_loss is None
    assert npr.mlm_loss is None
    close(mlm.loss, both.mlm_loss)
    close(npr.loss, both.npr_loss)
    assert nothing.loss is None
    assert nothing.logits.shape == (1, sum(map(len, DOCS)), model.config.vocab_size)


def test_pretraining_content_mask_and_inputs_embeds():
    model = build(RexBertForPreTraining, npr_margin=30.0)
    flat = flat_batch(DOCS)
    ids = flat.pop("input_ids")
    embeds = model.get_input_embeddings()(ids)
    with pytest.raises(ValueError, match="needs input_ids or content_mask"):
        model(inputs_embeds=embeds, **flat, triplets=TRIPLETS)
    with torch.no_grad():
        given = model(inputs_embeds=embeds, **flat, triplets=TRIPLETS, content_mask=ids > 2)
        found = model(input_ids=ids, **flat, triplets=TRIPLETS)
    close(given.loss, found.loss)
