"""Losses of bi-encoders beside float64 transcriptions, masks on hand-made batches, and the gradient cache."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from search_cases import features_of, tiny_data, tiny_model

from rexbert_hf.objectives import three_part_hinge
from rexbert_hf.retrieval.training.distil import DistilLoss, squared_difference
from rexbert_hf.retrieval.training.embedding_blocks import blocks_of, embed
from rexbert_hf.retrieval.training.losses import KnownPositives, MaskedRankingLoss, ThreePartHingeLoss
from rexbert_hf.retrieval.training.teacher_scores import TeacherScores

QUERY_TEXTS = ["mug", "plate", "lamp", "mug"]
PRODUCT_TEXTS = ["red mug", "blue plate", "green lamp shade", "steel pot with lid"]
NUMBERS = torch.tensor([[0, 0], [1, 2], [2, 3], [0, 4]])


def unit(rows, width=8, seed=0):
    vectors = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=-1)


def known():
    data = tiny_data()
    return KnownPositives(data.groups, data.judged, data.relevant)


def written_out(queries, products, allowed, scale):
    """Softmax cross-entropy of row i over its allowed candidates, in plain Python."""
    total = 0.0
    for i, row in enumerate((queries @ products.T).tolist()):
        others = [math.exp(scale * score) for j, score in enumerate(row) if allowed[i][j]]
        total -= math.log(math.exp(scale * row[i]) / sum(others))
    return total / len(queries)


def test_what_answers_a_query():
    data = tiny_data()
    matrix = known().matrix(torch.tensor([0, 1, 3]), torch.arange(6))
    # Product 1 is product 0 under another id; a judged product of grade 0 answers nothing.
    assert matrix.int().tolist() == [[1, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0]]
    made_up = known().matrix(torch.tensor([4 + 1, 4 + 5]), torch.arange(6))
    assert made_up.int().tolist() == [[1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]]
    assert len(data.groups) == 6


def test_what_is_neither_is_no_candidate_of_its_query_alone():
    data = tiny_data()
    pairs = KnownPositives(data.groups, data.judged, data.relevant, np.array([[1, 1], [3, 5]]))
    found = pairs.matrix(torch.tensor([0, 1, 3]), torch.arange(6)).int().tolist()
    assert found == [[1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1]]


def test_in_batch_softmax_leaves_answers_out():
    queries, products = unit(4), unit(4, seed=1)
    query_ids, product_ids = torch.tensor([0, 1, 0, 5]), torch.tensor([0, 2, 1, 0])
    # Rows 0 and 2 are the same query, and candidates 0, 2, 3 the same product: they stay off each other's lists.
    allowed = [[1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0], [0, 1, 0, 1]]
    loss = MaskedRankingLoss(torch.nn.Identity(), known(), scale=5.0).of_embeddings(
        queries, products, query_ids, product_ids
    )
    assert loss.item() == pytest.approx(written_out(queries, products, allowed, 5.0), rel=1e-9)


def test_without_answers_only_equal_numbers_are_masked():
    queries, products = unit(3), unit(3, seed=1)
    loss = MaskedRankingLoss(torch.nn.Identity(), scale=5.0).of_embeddings(
        queries, products, torch.tensor([0, 1, 1]), torch.tensor([7, 8, 7])
    )
    allowed = [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert loss.item() == pytest.approx(written_out(queries, products, allowed, 5.0), rel=1e-9)


def test_hard_negatives_are_candidates_of_all_rows():
    queries, products = unit(2), unit(4, seed=1)
    loss = MaskedRankingLoss(torch.nn.Identity(), known(), scale=5.0).of_embeddings(
        queries, products, torch.tensor([1, 2]), torch.tensor([2, 3, 5, 2])
    )
    # The last negative answers query 1 (row 0).
    assert loss.item() == pytest.approx(written_out(queries, products, [[1, 1, 1, 0], [1, 1, 1, 1]], 5.0), rel=1e-9)


def test_symmetric_part_is_the_same_loss_the_other_way_round():
    queries, products = unit(3), unit(3, seed=1)
    numbers = torch.arange(3), torch.tensor([0, 2, 3])
    one_way = MaskedRankingLoss(torch.nn.Identity(), known(), 5.0).of_embeddings(queries, products, *numbers)
    both = MaskedRankingLoss(torch.nn.Identity(), known(), 5.0, symmetric=0.25).of_embeddings(
        queries, products, *numbers
    )
    back = written_out(products, queries, [[1] * 3] * 3, 5.0)
    assert both.item() == pytest.approx(0.75 * one_way.item() + 0.25 * back, rel=1e-9)


def test_margin_masks_candidates_that_beat_the_positive():
    queries = torch.eye(2, dtype=torch.float64)
    products = torch.nn.functional.normalize(torch.tensor([[0.2, 0.98], [0.9, 0.43]], dtype=torch.float64), dim=-1)
    loss = MaskedRankingLoss(torch.nn.Identity(), scale=5.0, margin=0.1).of_embeddings(
        queries, products, torch.tensor([0, 1]), torch.tensor([0, 1])
    )
    assert loss.item() == pytest.approx(0.0, abs=1e-12)


def test_blocks_hold_every_row_once_and_shorten_it():
    ids = torch.tensor([[5, 6, 7, 8, 9, 4], [5, 6, 0, 0, 0, 0], [5, 6, 7, 8, 9, 4], [3, 0, 0, 0, 0, 0]])
    blocks, place = blocks_of({"input_ids": ids, "attention_mask": (ids > 0).long(), "task": "query"}, 2)
    assert [tuple(block["input_ids"].shape) for block in blocks] == [(2, 4), (1, 6)]
    assert all(block["task"] == "query" for block in blocks)
    rows = [row for block in blocks for row in block["input_ids"]]
    for i, text in enumerate(ids):
        assert rows[place[i]].tolist()[: int((text > 0).sum())] == text[text > 0].tolist()


def test_rows_without_padding_are_embedded_block_by_block_as_at_once():
    """Rows as `StaticEmbedding` has them: three texts of two, no and one token."""
    table = torch.nn.EmbeddingBag(8, 4)
    features = {"input_ids": torch.tensor([3, 5, 7]), "offsets": torch.tensor([0, 2, 2]), "task": "query"}
    whole = table(features["input_ids"], features["offsets"])
    for block_size in (1, 2, 5):
        blocks, place = blocks_of(features, block_size)
        assert len(blocks) == -(-3 // block_size)
        found = torch.cat([table(block["input_ids"], block["offsets"]) for block in blocks])[place]
        torch.testing.assert_close(found, whole)
    with pytest.raises(ValueError, match="the model makes input_ids, task of texts, and no attention_mask"):
        blocks_of({"input_ids": torch.zeros(2, 3), "task": "query"}, 2)


def test_embedding_in_blocks_is_embedding():
    model = tiny_model().eval()
    (features,) = features_of(model, [*PRODUCT_TEXTS, "red mug"])
    whole = model(dict(features))["sentence_embedding"]
    torch.testing.assert_close(embed(model, features, 2), whole, atol=1e-5, rtol=1e-5)


def losses_of(model):
    scores = TeacherScores(np.eye(4, 8, dtype=np.float32), np.eye(6, 8, dtype=np.float32))
    return {
        "hinge": lambda **k: (ThreePartHingeLoss(model, **k), torch.tensor([1, 0, -1, -1])),
        "ranking": lambda **k: (MaskedRankingLoss(model, known(), symmetric=0.3, **k), NUMBERS),
        "distil": lambda **k: (DistilLoss(model, scores, in_batch=0.5, **k), NUMBERS),
    }


@pytest.mark.parametrize("name", ["hinge", "ranking", "distil"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradient_cache_gives_the_gradients_of_the_whole_batch(name, dropout):
    model = tiny_model(dropout=dropout).train()
    columns = features_of(model, QUERY_TEXTS, PRODUCT_TEXTS)
    gradients = {}
    for cached in (False, True):
        model.zero_grad()
        torch.manual_seed(5)
        loss, labels = losses_of(model)[name](cached=cached, block_size=2)
        value = loss([dict(column) for column in columns], labels)
        (2.0 * value).backward()
        gradients[cached] = (
            value.item(),
            {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None},
        )
    assert gradients[True][0] == pytest.approx(gradients[False][0], rel=1e-5)
    assert gradients[True][1].keys() == gradients[False][1].keys()
    for parameter, value in gradients[False][1].items():
        torch.testing.assert_close(gradients[True][1][parameter], value, atol=1e-5, rtol=1e-4)


def test_hinge_module_scores_by_cosine():
    model = tiny_model().eval()
    columns = features_of(model, QUERY_TEXTS, PRODUCT_TEXTS)
    labels = torch.tensor([1, 0, -1, 1])
    queries, products = (torch.from_numpy(model.encode(texts)).double() for texts in (QUERY_TEXTS, PRODUCT_TEXTS))
    cosines = torch.nn.functional.cosine_similarity(queries, products)
    expected = three_part_hinge(cosines, labels, positive=0.8)
    assert ThreePartHingeLoss(model, positive=0.8)(columns, labels).item() == pytest.approx(expected.item(), rel=1e-4)
    with pytest.raises(ValueError, match="3 columns"):
        ThreePartHingeLoss(model)([*columns, columns[0]], labels)


def test_distillation_is_the_mean_squared_difference_of_cosines():
    student, teacher = unit(3) @ unit(3, seed=1).T, unit(3, seed=2) @ unit(3, seed=3).T
    error = (student - teacher) ** 2
    listed = sum(float(error[i, i]) for i in range(3)) / 3
    others = sum(float(error[i, j]) for i in range(3) for j in range(3) if i != j) / 6
    assert squared_difference(student, teacher).item() == pytest.approx(listed)
    assert squared_difference(student, teacher, in_batch=0.5).item() == pytest.approx(listed + 0.5 * others)


def test_labels_of_another_shape_are_refused():
    model = tiny_model()
    columns = features_of(model, QUERY_TEXTS, PRODUCT_TEXTS)
    with pytest.raises(ValueError, match=r"labels \[rows, 2\]"):
        MaskedRankingLoss(model, known())(columns, torch.zeros(4))
