"""The tasks of `evaluation` as measures: a row's encoder is fine-tuned by the task's protocol and measured on its test.

    measures:
      - {name: aspects, kind: task, alike: true, options: {task: aspect_extraction, caps: [600, 150, 500]}}
      - {name: aspects_paper, kind: task, alike: true, options: {task: aspect_extraction, budget: full}}

Values are the task's own figures: aspects.f1, aspects.precision, ... The seed is the row's. Where the recipe's data
folder does not exist, the task reads the sample shop; where its data are not there, the row has no such values.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from rexbert_hf.evaluation.registry import make_task
from rexbert_hf.evaluation.runner import check_result
from rexbert_hf.evaluation.settings import DataSettings
from rexbert_hf.evaluation.task import DataMissing, TaskSource
from rexbert_hf.evaluation.task_splits import TaskData
from rexbert_hf.reproduction.jobs import Job
from rexbert_hf.settings import from_dict

logger = logging.getLogger(__name__)


def measure_task(job: Job, task: str, caps: Sequence[int] | None = None, **options: Any) -> dict[str, float]:
    """Fine-tune a row's model on a task and measure it.

    Args:
        job: a finished run.
        task: name of the task (docs/tasks.md).
        caps: most rows of train, dev and test, below those of the budget; None for those.
        **options: of the evaluation: budget, tuning, max_length, resplit, datasets, ...

    Returns:
        The task's figures; none where its data are not there, which a warning says.

    Raises:
        ValueError: if there is no such task, or it has no rows to cap.
        SettingsError: for an unknown option.
    """
    own: dict[str, Any] = {"data_dir": job.recipe.data_dir}
    own |= {"device": "cpu"} if job.recipe.trainer.use_cpu else {}
    settings = from_dict(DataSettings, {**own, **options}, f"measure of task '{task}'")
    made = make_task(task)
    try:
        data = _data(task, settings.source(task), None if caps is None else tuple(caps))
    except DataMissing as reason:
        logger.warning("task left out: %s", reason)
        return {}
    result = made.run(str(job.folder), data, job.seed, settings.options())
    check_result(made, result)
    return dict(result.metrics)


@lru_cache(maxsize=8)  # every row reads the same data
def _data(task: str, source: TaskSource, caps: tuple[int, ...] | None) -> Any:
    data = make_task(task).load(source)
    if caps is None:
        return data
    if not isinstance(data, TaskData) or len(caps) != 3:
        raise ValueError(f"task {task}: caps are three numbers, rows of train, dev and test, for tasks that fine-tune")
    return data.capped(*caps)
