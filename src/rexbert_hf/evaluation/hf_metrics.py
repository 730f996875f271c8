"""The pure functions of `rexbert_hf.metrics` as `evaluate.Metric` objects, without the network.

`evaluate.load` fetches a script from the Hub for every metric; these are classes of the package. What is computed is
the pure function and nothing else, so the figures are those of the tasks, with two exceptions. By default the macro F1
of `label_sets` is scikit-learn's for label matrices, where a label that occurs nowhere counts as 0. The task
product_classification leaves such labels out: `compute(absent="skip")`. And products of equal scores have no order in
`ranking`, where a searcher has one: its figures are means over all orders of them. Gold comes as `references`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import evaluate
import numpy as np
from datasets import Features, List, Value

from rexbert_hf.metrics import binary, classification, correlation, retrieval, spans, squad, ties
from rexbert_hf.metrics.masked_tokens import MaskedTokenCounts

Compute = Callable[..., dict[str, Any]]
"""(references, predictions, **options) -> figures."""


@dataclass(frozen=True)
class MetricSpec:
    """What makes a metric of a function.

    Attributes:
        compute: the function.
        prediction: type of one prediction.
        reference: type of one reference; that of a prediction by default.
        description: one line.
    """

    compute: Compute
    prediction: Any
    description: str
    reference: Any = None


class FunctionMetric(evaluate.Metric):
    """A pure function with `evaluate`'s interface: `add`, `add_batch`, `compute`, `combine`.

    Args:
        spec: the function and its types.
        name: of the metric.
        options: of `evaluate.Metric` (keep_in_memory, experiment_id, ...).
    """

    def __init__(self, spec: MetricSpec, name: str, **options: Any) -> None:
        self._spec, self._name = spec, name
        super().__init__(**options)

    def _info(self) -> evaluate.MetricInfo:
        reference = self._spec.prediction if self._spec.reference is None else self._spec.reference
        return evaluate.MetricInfo(
            description=self._spec.description,
            citation="",
            inputs_description="predictions and references, one each an example",
            features=Features({"predictions": self._spec.prediction, "references": reference}),
            module_name=self._name,
        )

    def _compute(self, *, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        return self._spec.compute(references, predictions, **options)


def load_metric(name: str, **options: Any) -> evaluate.Metric:
    """A metric by name, offline.

    Args:
        name: a key of `METRICS`.
        options: of `evaluate.Metric` (keep_in_memory, experiment_id, ...).

    Raises:
        ValueError: if there is no such metric.

    Example:
        >>> load_metric("matthews", keep_in_memory=True).compute(references=[1, 0, 1], predictions=[1, 0, 1])
        {'matthews': 1.0}
    """
    if name not in METRICS:
        raise ValueError(f"no metric '{name}': there are {', '.join(METRICS)}")
    return FunctionMetric(METRICS[name], name, **options)


def one_figure(name: str, function: Callable[..., float]) -> Compute:
    """A function of (gold, predicted) that gives one number, under this name.

    Args:
        name: of the figure.
        function: pure.
    """
    return lambda references, predictions, **options: {name: float(function(references, predictions, **options))}


def _f1_accuracy(references: Any, predictions: Any) -> dict[str, float]:
    return {"f1": binary.binary_f1(references, predictions), "accuracy": binary.accuracy(references, predictions)}


def _correlations(references: Any, predictions: Any) -> dict[str, float]:
    return {
        "spearman": correlation.spearman(references, predictions),
        "pearson": correlation.pearson(references, predictions),
    }


def _spans(references: Any, predictions: Any, scheme: str = "IOB2") -> dict[str, float]:
    for row, (gold_tags, said_tags) in enumerate(zip(references, predictions, strict=True)):
        if len(gold_tags) != len(said_tags):
            raise ValueError(f"row {row}: {len(gold_tags)} gold tags but {len(said_tags)} predicted: one a word")
    gold, said = ([spans.spans_of_tags(tags, scheme) for tags in side] for side in (references, predictions))
    rates = spans.precision_recall_f1(spans.span_counts(gold, said).sum(axis=0))
    return {"precision": float(rates.precision), "recall": float(rates.recall), "f1": float(rates.f1)}


def _squad(references: Any, predictions: Any) -> dict[str, float]:
    scores = squad.squad_scores(predictions, references)
    means = dict(zip(squad.SQUAD_COLUMNS, scores.mean(axis=0).tolist(), strict=True))
    return {**means, "harmonic_f1": squad.harmonic_f1(scores)}


def _classes(references: Any, predictions: Any) -> dict[str, float]:
    known, numbers = np.unique([*references, *predictions], return_inverse=True)
    gold, said = (classification.one_hot(side, len(known)) for side in np.split(numbers, [len(references)]))
    return classification.scores_of_sums(classification.label_sums(gold, said), len(gold))


def _label_sets(references: Any, predictions: Any, absent: str = "zero") -> dict[str, float]:
    """`absent` as in `label_scores`, but with scikit-learn's rule for label matrices by default."""
    gold, said = np.array(references), np.array(predictions)
    for name, rows in (("references", gold), ("predictions", said)):
        if (wrong := np.flatnonzero(~np.isin(rows, (0, 1)).reshape(len(rows), -1).all(axis=1))).size:
            raise ValueError(f"{name}, row {wrong[0]}: labels are 0 or 1, one a column; got {rows[wrong[0]].tolist()}")
    return classification.scores_of_sums(classification.label_sums(gold > 0, said > 0), len(gold), absent)


def _ranking(
    references: Any,
    predictions: Any,
    k: int = 10,
    least: float = 1.0,
    exact: float | None = None,
    substitute: float | None = None,
) -> dict[str, Any]:
    """Grades of a query's products (None: nobody judged it) and their scores (None: not retrieved).

    Queries without a product of grade `least` are left out of all figures; `exact` and `substitute` add E, S, O, E+S.
    Of products with equal scores all orders count alike, so the order of the lists is no matter (`metrics.ties`).
    """
    for row, (graded, scored) in enumerate(zip(references, predictions, strict=True)):
        if len(graded) != len(scored):
            raise ValueError(f"row {row}: {len(graded)} grades but {len(scored)} scores: one each a product, or None")
    grades_in = [np.array([np.nan if one is None else one for one in row], dtype=np.float64) for row in references]
    used = [row for row, grades in enumerate(grades_in) if (grades >= least).any()]
    if not used:
        raise ValueError(f"none of {len(references)} queries has a product of grade {least:g} or above")
    ranked = np.full((len(used), max(len(grades_in[row]) for row in used)), -1)
    ordered = np.full(ranked.shape, np.nan)
    pairs = []
    for line, row in enumerate(used):
        values = np.array([np.nan if score is None else score for score in predictions[row]], dtype=np.float64)
        order = np.argsort(-values, kind="stable")
        order = order[~np.isnan(values[order])]
        ranked[line, : len(order)], ordered[line, : len(order)] = order, values[order]
        pairs += [(line, item, grade) for item, grade in enumerate(grades_in[row]) if not np.isnan(grade)]
    queries, items, grade = zip(*pairs, strict=True)
    judged = retrieval.Judgements.from_pairs(queries, items, grade, num_queries=len(used))
    labels = None if exact is None or substitute is None else (exact, substitute)
    found = _over_ties(ranked, ties.tie_groups(ordered), judged, k, least, labels)
    figures = {f"{name}@{k}": float(np.nanmean(value)) for name, value in found.items() if not np.isnan(value).all()}
    return {**figures, "ndcg_gain": "the grade", "queries": len(used)}


def _over_ties(
    ranked: np.ndarray,
    groups: np.ndarray,
    judged: retrieval.Judgements,
    k: int,
    least: float,
    labels: tuple[float, float] | None,
) -> dict[str, np.ndarray]:
    """What the functions of `metrics.retrieval` give, one value a query, as a mean over all orders of the ties."""
    grades = retrieval.grades_of(ranked, judged)
    places = np.argsort(np.isnan(grades), axis=1, kind="stable")  # as `condense` orders them
    condensed = ties.mean_over_ties(retrieval.condense(grades), np.take_along_axis(groups, places, axis=1))
    retrieved = (ranked[:, :k] >= 0).sum(axis=1)

    def share(chosen: np.ndarray, of: np.ndarray) -> np.ndarray:
        count = ties.mean_over_ties(chosen, groups)[:, :k].sum(axis=1)
        return np.divide(count, of, out=np.full(len(of), np.nan), where=of > 0)

    found = {
        "ndcg": retrieval.ndcg_at_k(ties.mean_over_ties(np.nan_to_num(grades), groups), judged, k),
        "condensed_ndcg": retrieval.ndcg_at_k(condensed, judged, k),
        "recall": share(grades >= least, judged.count(least)),
        "mrr": ties.mrr_over_ties(grades >= least, groups, k),
        "judged": share(~np.isnan(grades), retrieved),
    }
    if labels is not None:
        exact, both = (share(grades >= lowest, retrieved) for lowest in labels)
        found |= {"E": exact, "S": both - exact, "O": 1.0 - both, "E+S": both}
    return found


def _attribute_values(references: Any, predictions: Any) -> dict[str, float]:
    gold, said = ([[tuple(pair) for pair in row] for row in side] for side in (references, predictions))
    rates = spans.precision_recall_f1(spans.span_counts(gold, said).sum(axis=0))
    return {"precision": float(rates.precision), "recall": float(rates.recall), "f1": float(rates.f1)}


def _masked(references: Any, predictions: Any) -> dict[str, float]:
    """Ranks of the labels among the guesses; the references are the labels and only counted."""
    if (wrong := np.flatnonzero(np.asarray(predictions) < 0)).size:
        raise ValueError(f"row {wrong[0]}: the rank {predictions[wrong[0]]} is negative: 0 is the first guess")
    counts = MaskedTokenCounts()
    counts.update(np.asarray(predictions))
    return {name: value for name, value in counts.report().items() if not name.endswith("_rest")}


_INTEGER, _NUMBER, _TEXT = Value("int64"), Value("float64"), Value("string")

METRICS: dict[str, MetricSpec] = {
    "accuracy": MetricSpec(one_figure("accuracy", binary.accuracy), _INTEGER, "Share of equal classes."),
    "f1": MetricSpec(one_figure("f1", binary.binary_f1), _INTEGER, "F1 of the class 1."),
    "f1_accuracy": MetricSpec(_f1_accuracy, _INTEGER, "F1 of the class 1, and accuracy (MRPC, QQP)."),
    "matthews": MetricSpec(one_figure("matthews", binary.matthews), _INTEGER, "Matthews' correlation (CoLA)."),
    "pearson": MetricSpec(one_figure("pearson", correlation.pearson), _NUMBER, "Pearson's correlation."),
    "spearman": MetricSpec(one_figure("spearman", correlation.spearman), _NUMBER, "Spearman's rank correlation."),
    "correlations": MetricSpec(_correlations, _NUMBER, "Spearman's and Pearson's correlation (STS-B, ESCI)."),
    "classes": MetricSpec(_classes, _INTEGER, "Accuracy, micro and macro F1 of one class an example."),
    "label_sets": MetricSpec(_label_sets, List(_INTEGER), "Accuracy, micro and macro F1 of rows of 0 and 1."),
    "spans": MetricSpec(_spans, List(_TEXT), "Strict precision, recall and F1 of tagged spans."),
    "squad": MetricSpec(_squad, _TEXT, "SQuAD 1.1: exact match, F1, precision, recall.", List(_TEXT)),
    "ranking": MetricSpec(_ranking, List(_NUMBER), "nDCG, recall, MRR, judged; E/S/O with exact and substitute."),
    "attribute_values": MetricSpec(_attribute_values, List(List(_TEXT)), "F1 of (attribute, value) pairs."),
    "masked_tokens": MetricSpec(_masked, _INTEGER, "Accuracy@1/3/5 from the ranks of the masked tokens."),
}
"""By name; add a line for a new one."""
