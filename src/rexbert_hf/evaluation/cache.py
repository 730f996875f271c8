"""Results on disk, one a cell (model, task, seed), found by the hash of all that decides them.

Two files a result: the examples first, then the figures, each written whole. A result counts once its figures are
there, so a kill at any moment loses the cell at hand and nothing else.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rexbert_hf.evaluation.task import Task, TaskOptions, TaskResult, content_hash
from rexbert_hf.hub.run_file import write_whole

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """One measured result, and what it took.

    Attributes:
        task: name of the task.
        model: name of the model, as the user gave it.
        seed: of the run.
        result: what was measured.
        seconds: that it took when it was measured.
        cached: whether that was in an earlier run.
        measured: when, where and with what (`provenance.measured_now`); empty for cells of versions that kept none.
    """

    task: str
    model: str
    seed: int
    result: TaskResult
    seconds: float
    cached: bool = False
    measured: Mapping[str, Any] = field(default_factory=dict)


def cell_key(task: Task, model_key: str, fingerprint: str, seed: int, options: TaskOptions) -> str:
    """Hash of all that decides a result.

    Args:
        task: with its name and version.
        model_key: of the model.
        fingerprint: of the task's data.
        seed: of the run.
        options: of the run.
    """
    return content_hash(task.name, task.version, model_key, fingerprint, seed, task.config(options), *_device(options))


def _device(options: TaskOptions) -> list[str]:
    """The kind of device: accelerators compute in bfloat16, so their figures are others. Nothing for the CPU.

    A task that takes bfloat16 on CPUs that have it says so in its `config`.
    """
    named = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = torch.device(named).type
    return [] if kind == "cpu" else [kind]


class ResultCache:
    """Results by key.

    Args:
        folder: made when the first result is put.

    Example:
        >>> import tempfile
        >>> cache = ResultCache(Path(tempfile.mkdtemp()))
        >>> cache.put("toy", "k", TaskResult({"accuracy": 0.5}, np.array([0.0, 1.0])), 2.0)
        >>> result, seconds, measured = cache.get("toy", "k")
        >>> result.metrics, seconds, measured, cache.get("toy", "other")
        ({'accuracy': 0.5}, 2.0, {}, None)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, task: str, key: str) -> tuple[TaskResult, float, dict[str, Any]] | None:
        """A result, the seconds it took and its provenance; None if there is none, or it cannot be read.

        Args:
            task: name of the task.
            key: of the cell.
        """
        figures, examples = self._paths(task, key)
        if not figures.exists():
            return None
        try:
            record = json.loads(figures.read_text(encoding="utf-8"))
            rows = np.load(examples, allow_pickle=False)
            result = TaskResult(record["metrics"], rows, record["counts"], record["slices"], tuple(record["notes"]))
            return result, float(record["seconds"]), dict(record.get("measured", {}))
        except (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError) as error:
            logger.warning("%s cannot be read (%s): it is measured again", figures, error)
            return None

    def put(
        self, task: str, key: str, result: TaskResult, seconds: float, measured: Mapping[str, Any] | None = None
    ) -> None:
        """Keep a result.

        Args:
            task: name of the task.
            key: of the cell.
            result: what was measured.
            seconds: that it took.
            measured: its provenance.

        Raises:
            OSError: if it cannot be written.
        """
        figures, examples = self._paths(task, key)
        figures.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.save(buffer, result.examples, allow_pickle=False)
        write_whole(examples, buffer.getvalue())
        record: dict[str, Any] = {
            "metrics": {name: float(value) for name, value in result.metrics.items()},
            "counts": {name: int(value) for name, value in result.counts.items()},
            "slices": {name: float(value) for name, value in result.slices.items()},
            "notes": list(result.notes),
            "seconds": round(seconds, 2),
            "measured": dict(measured or {}),
        }
        write_whole(figures, (json.dumps(record, indent=1) + "\n").encode())

    def _paths(self, task: str, key: str) -> tuple[Path, Path]:
        return self.folder / task / f"{key}.json", self.folder / task / f"{key}.npy"
