"""Every retrieval metric beside trec_eval's, through pytrec_eval and ir-measures, on random rankings: to 1e-9."""

from __future__ import annotations

import numpy as np
import pytest

from rexbert_hf.metrics import (
    Judgements,
    condense,
    grades_of,
    judged_at_k,
    label_shares,
    mrr_at_k,
    ndcg_at_k,
    recall_at_k,
)

ir_measures = pytest.importorskip("ir_measures")
QUERIES, PRODUCTS, RETRIEVED = 40, 60, 30


def draw(seed):
    """Judgements with grades 0 to 3, some queries without a relevant product, and rankings of different lengths."""
    rng = np.random.default_rng(seed)
    rows, products, grades = [], [], []
    for query in range(QUERIES):
        judged = rng.choice(PRODUCTS, rng.integers(1, 25), replace=False)
        rows += [query] * len(judged)
        products += judged.tolist()
        grades += rng.integers(0, 1 if query % 10 == 0 else 4, len(judged)).tolist()
    ranked = np.full((QUERIES, RETRIEVED), -1)
    for query in range(QUERIES):
        count = rng.integers(1, RETRIEVED + 1)
        ranked[query, :count] = rng.choice(PRODUCTS, count, replace=False)
    return ranked, Judgements.from_pairs(rows, products, grades, QUERIES)


def reference(measure, ranked, judged, only_judged=False):
    """ir-measures' value of each query; scores fall with the rank."""
    rows = np.repeat(np.arange(QUERIES), np.diff(judged.offsets))
    known = set(zip(rows.tolist(), judged.products.tolist(), strict=True))
    qrels = [
        ir_measures.Qrel(str(q), str(p), int(g)) for q, p, g in zip(rows, judged.products, judged.grades, strict=True)
    ]
    run = [
        ir_measures.ScoredDoc(str(q), str(p), float(-rank))
        for q in range(QUERIES)
        for rank, p in enumerate(ranked[q])
        if p >= 0 and (not only_judged or (q, int(p)) in known)
    ]
    values = np.zeros(QUERIES)
    for found in ir_measures.iter_calc([measure], qrels, run):
        values[int(found.query_id)] = found.value
    return values


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", [1, 5, 10, 30])
class TestBesideTrecEval:
    @pytest.mark.parametrize("least", [1, 2, 3])
    def test_recall(self, seed, k, least):
        ranked, judged = draw(seed)
        relevant = judged.count(least)
        ours = recall_at_k(grades_of(ranked, judged), relevant, k, least)
        theirs = reference(ir_measures.R(rel=least) @ k, ranked, judged)
        assert np.isnan(ours[relevant == 0]).all()
        np.testing.assert_allclose(ours[relevant > 0], theirs[relevant > 0], rtol=0, atol=1e-9)

    def test_reciprocal_rank(self, seed, k):
        ranked, judged = draw(seed)
        ours = mrr_at_k(grades_of(ranked, judged), k, 2)
        np.testing.assert_allclose(ours, reference(ir_measures.RR(rel=2) @ k, ranked, judged), rtol=0, atol=1e-9)

    def test_ndcg(self, seed, k):
        """trec_eval's gain is the grade itself."""
        ranked, judged = draw(seed)
        ours = ndcg_at_k(grades_of(ranked, judged), judged, k)
        theirs = reference(ir_measures.nDCG @ k, ranked, judged)
        there = judged.count(1) > 0
        assert np.isnan(ours[~there]).all()
        np.testing.assert_allclose(ours[there], theirs[there], rtol=0, atol=1e-9)

    def test_ndcg_with_other_gains(self, seed, k):
        ranked, judged = draw(seed)
        gains = {0: 0, 1: 0, 2: 1, 3: 3}
        worth = Judgements(judged.offsets, judged.products, np.maximum(np.exp2(judged.grades - 1) - 1, 0))
        ours = ndcg_at_k(np.maximum(np.exp2(grades_of(ranked, judged) - 1) - 1, 0), worth, k)
        theirs = reference(ir_measures.nDCG(gains=gains) @ k, ranked, judged)
        there = judged.count(2) > 0
        np.testing.assert_allclose(ours[there], theirs[there], rtol=0, atol=1e-9)

    def test_condensed_lists(self, seed, k):
        ranked, judged = draw(seed)
        grades = condense(grades_of(ranked, judged))
        there = judged.count(1) > 0
        theirs = reference(ir_measures.nDCG @ k, ranked, judged, only_judged=True)
        np.testing.assert_allclose(ndcg_at_k(grades, judged, k)[there], theirs[there], rtol=0, atol=1e-9)
        theirs = reference(ir_measures.R @ k, ranked, judged, only_judged=True)
        np.testing.assert_allclose(recall_at_k(grades, judged.count(1), k)[there], theirs[there], rtol=0, atol=1e-9)

    def test_judged_share(self, seed, k):
        """ir-measures divides by k; ours by what was retrieved, which is the same for lists of k or more."""
        ranked, judged = draw(seed)
        long = (ranked[:, :k] >= 0).all(axis=1)
        ours = judged_at_k(grades_of(ranked, judged), ranked, k)
        theirs = reference(ir_measures.Judged @ k, ranked, judged)
        np.testing.assert_allclose(ours[long], theirs[long], rtol=0, atol=1e-9)

    def test_label_shares_are_precisions(self, seed, k):
        """E@k is the precision at the grade of an exact match; E+S at that of a substitute; S and O are differences."""
        ranked, judged = draw(seed)
        long = (ranked[:, :k] >= 0).all(axis=1)
        ours = label_shares(grades_of(ranked, judged), ranked, k, exact=3, substitute=2)
        exact = reference(ir_measures.P(rel=3) @ k, ranked, judged)
        both = reference(ir_measures.P(rel=2) @ k, ranked, judged)
        for name, theirs in (("E", exact), ("E+S", both), ("S", both - exact), ("O", 1 - both)):
            np.testing.assert_allclose(ours[name][long], theirs[long], rtol=0, atol=1e-9)
