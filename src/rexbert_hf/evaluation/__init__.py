"""Evaluation: every task of the four papers, one report.

Names are loaded when they are first used, because the parts need different packages (seqeval, bm25s, ...).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

# One line a name, sorted by module: name -> module of this room.
_LAZY = {
    "FineTuned": "fine_tuning",
    "fine_tune": "fine_tuning",
    "Row": "fine_tuning_rows",
    "load_metric": "hf_metrics",
    "TASKS": "registry",
    "make_task": "registry",
    "task_names": "registry",
    "DataMissing": "task",
    "ModelUnfit": "task",
    "Task": "task",
    "TaskOptions": "task",
    "TaskResult": "task",
    "TaskSource": "task",
    "content_hash": "task",
    "Tuning": "tuning",
}

__all__ = list(_LAZY)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
