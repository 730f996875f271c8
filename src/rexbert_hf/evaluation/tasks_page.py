"""`docs/tasks.md`: what there is to evaluate, as the registry has it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from rexbert_hf.evaluation.fine_tuning import fine_tune
from rexbert_hf.evaluation.registry import TASKS, make_task
from rexbert_hf.evaluation.report_page import table
from rexbert_hf.evaluation.searchers import MAX_TOKENS
from rexbert_hf.evaluation.task import BUDGETS, Task, TaskOptions, TuningChanges

COMMAND = "python -m rexbert_hf.evaluation tasks docs/tasks.md"
_COLUMNS = (
    *("task", "what it is", "paper", "the paper's data", "local stand-in", "`datasets` name or columns"),
    *("split", "figure", "comparable"),
)
_POOLING = {
    **dict.fromkeys(("sequence", "regression", "multi_label", "match"), "a text's vector"),
    "token": "first token of each word",
    "span": "every token",
}
_EMBEDS = ("information-retrieval", "sentence-similarity")


def tasks_page() -> str:
    """The page, rendered from all tasks of the registry."""
    tasks = [make_task(name) for name in TASKS]
    parts = [
        "# Tasks",
        f"Rendered by `{COMMAND}` from the tasks themselves; edit those.",
        "`recipes/evaluate.py` runs them, and [evaluation.md](evaluation.md) says how. With `--data_dir DIR` a task "
        "reads raw public files in the folder named below; with `--datasets.TASK NAME` a "
        "`datasets` name or a folder in the columns named here; with neither the built-in sample shop (GLUE's "
        'tasks are then skipped). "Comparable" '
        "says whether a figure may stand beside the paper's.",
        *_group("Product tasks", [task for task in tasks if task.domain]),
        *_group("General tasks", [task for task in tasks if not task.domain]),
        "## Hyper-parameters",
        _training(),
        table(("task", "pooling", "tokens", "rows, small", *BUDGETS), [_hyper_parameters(task) for task in tasks]),
        "## Protocols",
        *(f"### {task.name}\n\n{_protocol(task)}" for task in tasks if task.domain),
        *_shared([task for task in tasks if not task.domain]),
        *(f"### {task.name}\n\n{_protocol(task)}" for task in tasks if not task.domain),
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


def _shared(tasks: list[Task]) -> list[str]:
    """What the general tasks have in common stands in their module."""
    texts = dict.fromkeys(inspect.getdoc(inspect.getmodule(type(task))) for task in tasks)
    return [f"### all general tasks\n\n{text}" for text in texts if text]


def _training() -> str:
    given = {name: one.default for name, one in inspect.signature(fine_tune).parameters.items()}
    rising = f"{100 * given['warmup']:.0f} % of the steps"
    return (
        "Rows that the small budget takes at most (train / dev / test), then peak learning rate, epochs and batch of "
        "both budgets. Inputs are cut at so many tokens, or read in windows (review QA). `--tuning.learning_rates`, "
        "`--tuning.epochs`, `--tuning.batch_size`, `--max_length` and `--pooling` change all that.\n\n"
        f"Heads are trained with AdamW: the rate rises for {rising} and falls linearly to the end, weight decay is "
        f"{given['weight_decay']:g}, gradients are clipped at 1, the best epoch on dev is kept. A text's vector is "
        "what the architecture's classifier reads: the mean or the first token as `classifier_pooling` says (RexBERT: "
        "the mean), else its own (BERT: the pooler over [CLS]). Embeddings are pooled as the model says, by the mean "
        "where it says nothing; how they are trained is in the task's protocol."
    )


def _hyper_parameters(task: Task) -> list[str]:
    caps = getattr(task, "caps", ())
    return [
        f"`{task.name}`",
        _pooling(task),
        str(_length(task) or ""),
        " / ".join(f"{cap:,}" for cap in caps),
        *(_tuned(task, budget) for budget in BUDGETS),
    ]


def _pooling(task: Task) -> str:
    if task.hub_task in _EMBEDS:
        return "embedding"
    return _POOLING.get(str(getattr(task, "head", "")), "every token")


def _length(task: Task) -> int | None:
    """Longest input in tokens: an attribute of tasks with a head, a constant of the module or of search for others."""
    module: Any = inspect.getmodule(type(task))
    search = MAX_TOKENS if task.hub_task in _EMBEDS else None
    known = (getattr(task, "max_length", None), *(getattr(module, name, None) for name in ("MAX_TOKENS", "BLOCK")))
    return next((one for one in known if one is not None), search)


def _tuned(task: Task, budget: str) -> str:
    """Grid of a task as its results are keyed by, with that of a baseline that trains too."""
    if not task.trains:
        return "nothing is trained"
    config = task.config(TaskOptions(tuning=TuningChanges(), budget=budget))
    own = _cells(config["tuning"])
    return own + (f"; dssm {_cells(config['dssm'])}" if "dssm" in config else "")


def _cells(grid: tuple[Sequence[float], Sequence[int], int]) -> str:
    rates, epochs, batch = grid
    shown = " or ".join(np.format_float_scientific(rate, trim="-", exp_digits=1) for rate in rates)
    return f"{shown}, {' or '.join(map(str, epochs))} epochs, batches of {batch}"
