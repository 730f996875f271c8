"""The tasks by name; a task's module is imported when the task is asked for, so optional packages stay optional."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from rexbert_hf.evaluation.task import Task

TASKS: dict[str, str] = {
    "product_search": "rexbert_hf.evaluation.product_search:ProductSearch",
    "product_search_tuned": "rexbert_hf.evaluation.product_search_tuned:ProductSearchTuned",
    "grid_retrieval": "rexbert_hf.evaluation.grid_retrieval:GridRetrieval",
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
        raise ValueError(f"no task {name!r}; there are: {', '.join(TASKS)}")
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
        raise ValueError(f"no task {', '.join(map(repr, unknown))}; there are: all, {', '.join(TASKS)}")
    return [name for name in TASKS if ALL in wanted or name in wanted]
