"""The tasks by name; a task's module is imported when the task is asked for, so optional packages stay optional."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Sequence

from rexbert_hf.evaluation.task import Task

TASKS: dict[str, str] = {
    "product_search": "rexbert_hf.evaluation.product_search:ProductSearch",
    "product_search_tuned": "rexbert_hf.evaluation.product_search_tuned:ProductSearchTuned",
    "grid_retrieval": "rexbert_hf.evaluation.grid_retrieval:GridRetrieval",
    "review_qa": "rexbert_hf.evaluation.review_qa:ReviewQA",
    "review_qa_electronics": "rexbert_hf.evaluation.review_qa:ElectronicsQA",
    "aspect_extraction": "rexbert_hf.evaluation.aspects:AspectExtraction",
    "aspect_sentiment": "rexbert_hf.evaluation.sentiment:AspectSentiment",
    "product_classification": "rexbert_hf.evaluation.classification:ProductClassification",
    "offer_classification": "rexbert_hf.evaluation.classification:OfferClassification",
    "attribute_extraction": "rexbert_hf.evaluation.attributes:AttributeExtraction",
    "chinese_review_category": "rexbert_hf.evaluation.chinese:ChineseReviews",
    "query_category": "rexbert_hf.evaluation.query_category:QueryCategory",
    "product_matching": "rexbert_hf.evaluation.matching:ProductMatching",
    "offer_matching_pricerunner": "rexbert_hf.evaluation.matching:PriceRunnerMatching",
    "offer_matching_shopee": "rexbert_hf.evaluation.matching:ShopeeMatching",
    "esci_similarity": "rexbert_hf.evaluation.esci:EsciSimilarity",
    "masked_recovery": "rexbert_hf.evaluation.masked_recovery:MaskedRecovery",
    "glue_cola": "rexbert_hf.evaluation.glue:CoLA",
    "glue_sst2": "rexbert_hf.evaluation.glue:SST2",
    "glue_mrpc": "rexbert_hf.evaluation.glue:MRPC",
    "glue_stsb": "rexbert_hf.evaluation.glue:STSB",
    "glue_qqp": "rexbert_hf.evaluation.glue:QQP",
    "glue_mnli": "rexbert_hf.evaluation.glue:MNLI",
    "glue_qnli": "rexbert_hf.evaluation.glue:QNLI",
    "glue_rte": "rexbert_hf.evaluation.glue:RTE",
    "glue_wnli": "rexbert_hf.evaluation.glue:WNLI",
}
"""Task name -> "module:Class" with the module's full dotted name; the order is that of reports."""

ALL = "all"


def make_task(name: str) -> Task:
    """The task of this name.

    Args:
        name: a key of `TASKS`.

    Raises:
        ValueError: if there is no such task.

    Example:
        >>> make_task("nothing")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: no task 'nothing'; there are: ...
    """
    if name not in TASKS:
        raise ValueError(f"no task {name!r}; {hint([name], TASKS)}")
    module, _, class_name = TASKS[name].partition(":")
    made: Task = getattr(importlib.import_module(module), class_name)()
    if made.name != name:
        raise ValueError(f"{TASKS[name]} calls itself {made.name!r}, and the registry calls it {name!r}")
    return made


def task_names(wanted: Sequence[str]) -> list[str]:
    """Names of tasks, in the order of reports, with "all" spelled out.

    Args:
        wanted: task names, or "all".

    Raises:
        ValueError: if one is unknown.

    Example:
        >>> task_names(["all"]) == list(TASKS)
        True
    """
    unknown = [name for name in wanted if name not in TASKS and name != ALL]
    if unknown or not wanted:
        raise ValueError(f"no task {', '.join(map(repr, unknown))}; {hint(unknown, [ALL, *TASKS])}")
    return [name for name in TASKS if ALL in wanted or name in wanted]


def hint(unknown: Sequence[str], names: Iterable[str]) -> str:
    """What an error says after names that do not exist: those that begin so or are alike, or else all that there are.

    Args:
        unknown: as they were given.
        names: that exist.

    Example:
        >>> hint(["Glue"], ["glue_rte", "glue_cola", "review_qa"]), hint(["reviewqa"], ["review_qa"])
        ('did you mean glue_rte or glue_cola?', 'did you mean review_qa?')
        >>> hint(["nothing"], ["glue_rte", "review_qa"])
        'there are: glue_rte, review_qa'
    """
    known = list(names)
    near: list[str] = []
    for name in (one.lower() for one in unknown):
        begin = [one for one in known if name and one.startswith(name)]
        near += begin or difflib.get_close_matches(name, known, 3, 0.7)
    return f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else f"there are: {', '.join(known)}"
