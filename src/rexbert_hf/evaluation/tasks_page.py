"""`docs/tasks.md`: what there is to evaluate, as the registry has it."""

from __future__ import annotations

import inspect

from rexbert_hf.evaluation.registry import TASKS, make_task
from rexbert_hf.evaluation.report_page import table
from rexbert_hf.evaluation.task import Task

COMMAND = "python -m rexbert_hf.evaluation tasks docs/tasks.md"
_COLUMNS = (
    *("task", "what it is", "paper", "the paper's data", "local stand-in", "`datasets` name or columns"),
    *("split", "figure", "comparable"),
)


def tasks_page() -> str:
    """The page, rendered from all tasks of the registry."""
    tasks = [make_task(name) for name in TASKS]
    parts = [
        "# Tasks",
        f"Rendered by `{COMMAND}` from the tasks themselves; edit those.",
        "`recipes/evaluate.py` runs them, and [evaluation.md](evaluation.md) says how. With `--data_dir DIR` a task "
        "reads raw public files in the folder named below; with `--datasets.TASK NAME` a "
        '`datasets` name or a folder in the columns named here; with neither the built-in sample shop. "Comparable" '
        "says whether a figure may stand beside the paper's.",
        *_group("Product tasks", [task for task in tasks if task.domain]),
        *_group("General tasks", [task for task in tasks if not task.domain]),
        "## Protocols",
        *(f"### {task.name}\n\n{_protocol(task)}" for task in tasks),
    ]
    return "\n\n".join(parts) + "\n"


def _group(title: str, tasks: list[Task]) -> list[str]:
    return [f"## {title}", table(_COLUMNS, [_row(task) for task in tasks])] if tasks else []


def _row(task: Task) -> list[str]:
    kind = "fine-tuned" if task.trains else "as it is"
    words = f"; baselines {', '.join(task.baselines)}" if task.baselines else ""
    return [
        f"`{task.name}`",
        f"{task.title} ({kind}{words})",
        task.paper,
        task.data,
        f"`{task.folder}`" if task.folder else "",
        task.dataset_name,
        task.split,
        task.metric,
        task.comparable,
    ]


def _protocol(task: Task) -> str:
    text = inspect.getdoc(type(task)) or ""
    return text.partition("\n\nExample:")[0].partition("\n\nArgs:")[0]
