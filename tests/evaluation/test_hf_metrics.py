"""Every metric works as an evaluate.Metric without the network, and gives what the reference implementation gives."""

from __future__ import annotations

from itertools import pairwise, permutations

import evaluate
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from rexbert_hf.evaluation.classification import ProductClassification
from rexbert_hf.evaluation.hf_metrics import METRICS, load_metric
from rexbert_hf.evaluation.task_splits import TaskData
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

RNG = np.random.default_rng(0)
GOLD, SAID = RNG.integers(0, 2, 200), RNG.integers(0, 2, 200)
MANY, GUESSED = RNG.integers(0, 5, 200), RNG.integers(0, 5, 200)
X = RNG.normal(size=200)
Y = X + RNG.normal(size=200)
SETS, SAID_SETS = RNG.integers(0, 2, (50, 4)), RNG.integers(0, 2, (50, 4))
TAGS = [["B-a", "I-a", "O", "B-b"], ["O", "B-a"]]
SAID_TAGS = [["B-a", "O", "O", "B-b"], ["O", "B-b"]]
GRADES, SCORES = RNG.integers(0, 4, (20, 12)).astype(float), RNG.normal(size=(20, 12))


def seqeval_figures():
    from seqeval.metrics import f1_score, precision_score, recall_score
    from seqeval.scheme import IOB2

    options = {"mode": "strict", "scheme": IOB2}
    scores = {"precision": precision_score, "recall": recall_score, "f1": f1_score}
    return {name: score(TAGS, SAID_TAGS, **options) for name, score in scores.items()}


CASES = {
    "accuracy": (GOLD, SAID, {"accuracy": sk.accuracy_score(GOLD, SAID)}),
    "f1": (GOLD, SAID, {"f1": sk.f1_score(GOLD, SAID)}),
    "f1_accuracy": (GOLD, SAID, {"f1": sk.f1_score(GOLD, SAID), "accuracy": sk.accuracy_score(GOLD, SAID)}),
    "matthews": (MANY, GUESSED, {"matthews": sk.matthews_corrcoef(MANY, GUESSED)}),
    "pearson": (X, Y, {"pearson": stats.pearsonr(X, Y).statistic}),
    "spearman": (X, Y, {"spearman": stats.spearmanr(X, Y).statistic}),
    "correlations": (X, Y, {"spearman": stats.spearmanr(X, Y).statistic, "pearson": stats.pearsonr(X, Y).statistic}),
    "classes": (
        MANY,
        GUESSED,
        {
            "accuracy": sk.accuracy_score(MANY, GUESSED),
            "micro_f1": sk.f1_score(MANY, GUESSED, average="micro"),
            "macro_f1": sk.f1_score(MANY, GUESSED, average="macro"),
        },
    ),
    "label_sets": (
        SETS,
        SAID_SETS,
        {
            "accuracy": sk.accuracy_score(SETS, SAID_SETS),
            "micro_f1": sk.f1_score(SETS, SAID_SETS, average="micro"),
            "macro_f1": sk.f1_score(SETS, SAID_SETS, average="macro"),
        },
    ),
    "spans": (TAGS, SAID_TAGS, seqeval_figures()),
    "squad": ([["a red mug", "mug"], ["desk"]], ["red mug", "lamp"], {"exact_match": 0.5, "f1": 0.5}),
    "ranking": (GRADES, SCORES, {"ndcg@10": sk.ndcg_score(GRADES, SCORES, k=10)}),
    "attribute_values": (
        [[["size", "2 m"], ["brand", "A"]], [["brand", "B"]]],
        [[["size", "2 m"], ["brand", "a"]], []],
        {"precision": 0.5, "recall": 1 / 3, "f1": 0.4},
    ),
    "masked_tokens": ([7, 8, 9], [0, 2, 4], {"accuracy": 1 / 3, "accuracy@3": 2 / 3, "accuracy@5": 1.0}),
}


def test_every_metric_has_a_case():
    assert set(CASES) == set(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_figures_are_those_of_the_reference(name, tmp_path):
    references, predictions, expected = CASES[name]
    metric = load_metric(name, cache_dir=str(tmp_path))
    assert isinstance(metric, evaluate.Metric)
    half = len(references) // 2
    metric.add_batch(references=references[:half], predictions=predictions[:half])
    metric.add_batch(references=references[half:], predictions=predictions[half:])
    found = metric.compute()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-9), key


def test_all_ranking_figures_are_over_the_queries_with_a_relevant_product(tmp_path):
    metric = load_metric("ranking", keep_in_memory=True)
    grades, scores = [[0.0, 1.0, None], [0.0, 0.5, 0.0]], [[0.1, 0.5, 0.9], [0.3, 0.2, 0.1]]
    found = metric.compute(references=grades, predictions=scores, exact=1.0, substitute=0.5)
    assert found["queries"] == 1
    assert found["mrr@10"] == 0.5
    assert found["ndcg@10"] == pytest.approx(1 / np.log2(3))
    assert found["condensed_ndcg@10"] == found["recall@10"] == 1.0
    assert [found[f"{name}@10"] for name in ("judged", "E", "S", "O")] == pytest.approx([2 / 3, 1 / 3, 0, 2 / 3])
    with pytest.raises(ValueError, match="none of 1 queries has a product of grade 1"):
        metric.compute(references=grades[1:], predictions=scores[1:])


def every_order(grades, scores, **options):
    """Mean of the figures over all orders of the ties, by the functions of `metrics.retrieval`, without ties."""
    found = []
    for order in permutations(range(len(grades))):
        line = [item for item in order if scores[item] is not None]
        if any(scores[a] < scores[b] for a, b in pairwise(line)):
            continue
        known = [(item, grade) for item, grade in enumerate(grades) if grade is not None]
        judged = Judgements.from_pairs([0] * len(known), *zip(*known, strict=True), 1)
        ranked = np.array([line + [-1] * (len(grades) - len(line))])
        at, k, least = grades_of(ranked, judged), options["k"], 1.0
        found.append({
            "ndcg": ndcg_at_k(at, judged, k), "condensed_ndcg": ndcg_at_k(condense(at), judged, k),
            "recall": recall_at_k(at, judged.count(least), k, least), "mrr": mrr_at_k(at, k, least),
            "judged": judged_at_k(at, ranked, k),
            **label_shares(at, ranked, k, options["exact"], options["substitute"]),
        })  # fmt: skip
    return {f"{name}@{options['k']}": np.mean([one[name] for one in found]) for name in found[0]}


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from([None, 0.0, 0.5, 1.0, 2.0]), st.sampled_from([None, 0.1, 0.2, 0.3])), max_size=5
    ),
    st.integers(1, 6),
)
def test_ties_count_as_the_mean_of_all_their_orders(rows, k):
    """So that the order of the lists, which knows the grades as often as not, is no matter."""
    rows = [*rows, (1.0, 0.2)]  # one that is relevant and retrieved
    grades, scores = (list(side) for side in zip(*rows, strict=True))
    options = {"k": k, "exact": 1.5, "substitute": 0.5}
    metric = load_metric("ranking", keep_in_memory=True)
    found = metric.compute(references=[grades], predictions=[scores], **options)
    expected = every_order(grades, scores, **options)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_equal_scores_know_no_grade():
    metric = load_metric("ranking", keep_in_memory=True)
    best_first = metric.compute(references=[[3.0, 2.0, 0.0, 0.0]], predictions=[[0.5] * 4], k=2)
    worst_first = metric.compute(references=[[0.0, 0.0, 2.0, 3.0]], predictions=[[0.5] * 4], k=2)
    assert best_first == pytest.approx(worst_first)
    assert best_first["mrr@2"] == pytest.approx(1 / 2 + 2 / 4 * 2 / 3 / 2)
    grades, scores = GRADES, np.round(SCORES)
    found = metric.compute(references=grades, predictions=scores, k=5)
    assert found["ndcg@5"] == pytest.approx(sk.ndcg_score(grades, scores, k=5), abs=1e-9)
    assert sk.ndcg_score(grades, scores, k=5) != pytest.approx(sk.ndcg_score(grades, scores, k=5, ignore_ties=True))


def test_macro_f1_of_label_sets_is_scikit_learns_and_the_tasks_by_option():
    """A label that occurs nowhere counts as 0, or not at all."""
    task = ProductClassification()
    rows = [{"title": f"t{i}", "category_path": [path]} for i, path in enumerate("ABC")]
    examples = [task.read_row(row, "row") for row in rows]
    data = TaskData(examples, examples, examples, labels=task.labels_of(examples))
    gold, said = [[1, 0, 0], [0, 1, 0], [1, 0, 0]], [[1, 0, 0], [1, 0, 0], [1, 0, 0]]
    metric = load_metric("label_sets", keep_in_memory=True)
    found = metric.compute(references=gold, predictions=said)["macro_f1"]
    assert found == pytest.approx(sk.f1_score(gold, said, average="macro", zero_division=0), abs=1e-9)
    assert found == pytest.approx(0.8 / 3, abs=1e-9)
    found = metric.compute(references=gold, predictions=said, absent="skip")["macro_f1"]
    of_task = task.measure([examples[0], examples[1], examples[0]], [[0], [0], [0]], data)[1]["macro_f1"]
    assert found == pytest.approx(of_task, abs=1e-9)
    assert found == pytest.approx(0.8 / 2, abs=1e-9)


def test_tags_of_another_length_are_one_line():
    metric = load_metric("spans", keep_in_memory=True)
    with pytest.raises(ValueError, match="row 1: 2 gold tags but 1 predicted"):
        metric.compute(references=[["O"], ["B", "I"]], predictions=[["O"], ["B"]])


@pytest.mark.parametrize(
    ("name", "references", "predictions", "message"),
    [
        ("ranking", [[1.0, 0.0], [1.0, 0.0]], [[0.5, 0.1, 0.9], [0.1]], "row 0: 2 grades but 3 scores"),
        ("ranking", [[1.0, 0.0], [1.0, 0.0]], [[0.5, 0.1], [0.1]], "row 1: 2 grades but 1 scores"),
        ("label_sets", [[0, 1], [2, 0]], [[0, 1], [1, 0]], r"references, row 1: labels are 0 or 1.*\[2, 0\]"),
        ("label_sets", [[0, 1], [1, 0]], [[0, -1], [1, 0]], r"predictions, row 0: labels are 0 or 1"),
        ("masked_tokens", [7, 8], [0, -1], "row 1: the rank -1 is negative"),
    ],
)
def test_what_would_be_counted_wrongly_is_refused(name, references, predictions, message):
    with pytest.raises(ValueError, match=message):
        load_metric(name, keep_in_memory=True).compute(references=references, predictions=predictions)


def test_metrics_combine(tmp_path):
    both = evaluate.combine([load_metric(name, cache_dir=str(tmp_path)) for name in ("accuracy", "matthews")])
    assert both.compute(references=[1, 0], predictions=[1, 0]) == {"accuracy": 1.0, "matthews": 1.0}


def test_an_unknown_metric_is_one_line():
    with pytest.raises(ValueError, match="no metric 'bleu': there are accuracy, f1"):
        load_metric("bleu")
