"""Retrieval metrics on hand-made lists, and beside sentence-transformers' own evaluator."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from rexbert_hf.metrics import (
    Judgements,
    bootstrap_interval,
    condense,
    grades_of,
    judged_at_k,
    label_shares,
    mrr_at_k,
    ndcg_at_k,
    recall_at_k,
    sparse_results,
)

NAN = float("nan")


def small():
    """Two queries: the first judges products 2 (3.0), 5 (1.0), 9 (2.0), the second product 4 (3.0)."""
    return Judgements.from_pairs([0, 0, 1, 0], [5, 2, 4, 9], [1.0, 3.0, 3.0, 2.0], num_queries=3)


def test_judgements_are_sorted_and_the_best_grade_of_a_repeated_pair_stays():
    judged = Judgements.from_pairs([0, 0, 0], [5, 2, 5], [1.0, 3.0, 2.0], 1)
    assert judged.products.tolist() == [2, 5]
    assert judged.grades.tolist() == [3.0, 2.0]


def test_judgements_select_renumbers():
    part = small().select(np.array([1, 0]))
    assert part.offsets.tolist() == [0, 1, 4]
    assert part.products.tolist() == [4, 2, 5, 9]
    assert small().select(np.array([False, True, False])).products.tolist() == [4]
    assert small().count(2.0).tolist() == [2, 1, 0]


@pytest.mark.parametrize("bad", [([0], [1, 2], [1.0]), ([3], [1], [1.0]), ([0], [1], [NAN])])
def test_bad_judgements_are_refused(bad):
    with pytest.raises(ValueError, match=r"pair|number"):
        Judgements.from_pairs(*bad, num_queries=1)


def test_grades_of_unjudged_and_missing_products_are_nan():
    grades = grades_of(np.array([[9, 1, 2, -1], [2, 4, 5, 9], [2, 4, 5, 9]]), small())
    expected = [[2.0, NAN, 3.0, NAN], [NAN, 3.0, NAN, NAN], [NAN] * 4]
    np.testing.assert_array_equal(grades, expected)


def test_product_numbers_beyond_the_judged_ones_do_not_collide():
    judged = Judgements.from_pairs([1], [0], [1.0], 2)
    assert np.isnan(grades_of(np.array([[1], [1]]), judged)).all()
    assert grades_of(np.array([[1], [0]]), judged)[1, 0] == 1.0


def test_recall_counts_against_all_relevant_products():
    grades = grades_of(np.array([[9, 1, 2, 7], [1, 2, 3, 5], [1, 2, 3, 5]]), small())
    recall = recall_at_k(grades, small().count(2.0), k=2, least=2.0)
    np.testing.assert_array_equal(recall, [0.5, 0.0, NAN])
    np.testing.assert_array_equal(recall_at_k(grades, small().count(2.0), k=4, least=2.0), [1.0, 0.0, NAN])


def test_ndcg_by_hand():
    ranked = np.array([[5, 1, 2, 9], [1, 4, 2, 3], [0, 1, 2, 3]])
    judged = small()
    gains = Judgements(judged.offsets, judged.products, 2 ** (judged.grades - 1) - 1)
    values = ndcg_at_k(2 ** (grades_of(ranked, judged) - 1) - 1, gains, k=3)
    best = 3.0 / math.log2(2) + 1.0 / math.log2(3) + 0.0
    np.testing.assert_allclose(values[:2], [3.0 / math.log2(4) / best, (3.0 / math.log2(3)) / 3.0])
    assert np.isnan(values[2])


def test_ndcg_of_fewer_results_than_k_is_against_the_whole_ideal():
    judged = Judgements.from_pairs([0, 0], [1, 2], [1.0, 1.0], 1)
    found = ndcg_at_k(grades_of(np.array([[1]]), judged), judged, k=10)
    np.testing.assert_allclose(found, [1.0 / (1.0 + 1.0 / math.log2(3))])


def test_condensed_lists_drop_unjudged_products_only():
    grades = np.array([[NAN, 0.0, NAN, 2.0], [NAN, NAN, NAN, NAN]])
    np.testing.assert_array_equal(condense(grades), [[0.0, 2.0, NAN, NAN], [NAN] * 4])


def test_mrr_and_judged_share():
    grades = np.array([[NAN, 1.0, 3.0], [NAN, NAN, NAN]])
    np.testing.assert_allclose(mrr_at_k(grades, 3, least=2.0), [1 / 3, 0.0])
    assert mrr_at_k(grades, 2, least=2.0)[0] == 0.0
    ranked = np.array([[4, 5, 6], [-1, -1, -1]])
    np.testing.assert_array_equal(judged_at_k(grades, ranked, 2), [0.5, NAN])


def test_label_shares_add_up_and_can_leave_unjudged_products_out():
    grades, ranked = np.array([[3.0, 2.0, 1.0, NAN]]), np.array([[1, 2, 3, 4]])
    shares = label_shares(grades, ranked, 4, exact=2.5, substitute=1.5)
    assert [float(shares[name][0]) for name in ("E", "S", "O", "E+S")] == [0.25, 0.25, 0.5, 0.5]
    of_judged = label_shares(grades, ranked, 4, 2.5, 1.5, judged_only=True)
    assert float(of_judged["E"][0]) == pytest.approx(1 / 3)
    assert float(of_judged["O"][0]) == pytest.approx(1 / 3)


def test_sparse_results():
    scores = np.array([[0.9] * 16, [0.9] * 15 + [NAN], [0.9] * 15 + [0.4]])
    assert sparse_results(scores, threshold=0.5).tolist() == [False, True, True]
    with pytest.raises(ValueError, match="retrieve more"):
        sparse_results(scores[:, :4], threshold=0.5)


def test_bootstrap_interval_has_the_width_of_the_standard_error():
    values = np.random.default_rng(1).normal(size=2000)
    mean, low, high = bootstrap_interval(values, samples=2000)
    assert mean == pytest.approx(values.mean())
    # 2 x 1.96 standard errors; 2,000 draws give the quantiles to about 5 %.
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(2000), rel=0.15)
    assert low < mean < high
    assert bootstrap_interval(np.array([1.0, NAN]))[0] == 1.0
    assert math.isnan(bootstrap_interval(np.array([NAN]))[0])


class Fixed(torch.nn.Module):
    """What the evaluator needs of a model: vectors by text."""

    def __init__(self, vectors):
        super().__init__()
        self.vectors, self.similarity_fn_name = vectors, "cosine"
        self.model_card_data = type("Card", (), {"set_evaluation_metrics": lambda *a, **k: None})()

    def encode_query(self, texts, **kwargs):
        return torch.stack([self.vectors[text] for text in texts])

    encode_document = encode = encode_query

    @staticmethod
    def similarity(a, b):
        return torch.nn.functional.normalize(a) @ torch.nn.functional.normalize(b).T


def test_same_figures_as_sentence_transformers():
    rng = np.random.default_rng(0)
    queries, products = rng.normal(size=(12, 8)), rng.normal(size=(40, 8))
    relevant = [np.sort(rng.choice(40, rng.integers(1, 6), replace=False)) for _ in range(12)]
    vectors = {f"q{i}": torch.tensor(v) for i, v in enumerate(queries)}
    vectors |= {f"p{i}": torch.tensor(v) for i, v in enumerate(products)}
    stock = InformationRetrievalEvaluator(
        {f"q{i}": f"q{i}" for i in range(12)},
        {f"p{i}": f"p{i}" for i in range(40)},
        {f"q{i}": {f"p{j}" for j in found} for i, found in enumerate(relevant)},
        mrr_at_k=[10], ndcg_at_k=[10], accuracy_at_k=[1], precision_recall_at_k=[5], map_at_k=[10], write_csv=False,
    )  # fmt: skip
    figures = {name.removeprefix("cosine_"): value for name, value in stock(Fixed(vectors)).items()}
    unit = [matrix / np.linalg.norm(matrix, axis=1, keepdims=True) for matrix in (queries, products)]
    ranked = np.argsort(-(unit[0] @ unit[1].T), axis=1)
    rows = np.repeat(np.arange(12), [len(found) for found in relevant])
    judged = Judgements.from_pairs(rows, np.concatenate(relevant), np.ones(len(rows)), 12)
    grades = grades_of(ranked, judged)
    assert recall_at_k(grades, judged.count(1.0), 5).mean() == pytest.approx(figures["recall@5"])
    assert ndcg_at_k(grades, judged, 10).mean() == pytest.approx(figures["ndcg@10"])
    assert mrr_at_k(grades, 10).mean() == pytest.approx(figures["mrr@10"])
