"""The report of an evaluation: `results.json`, `report.md`, and the figures that cards show.

Everything comes from the cells; the mean is over seeds, the spread is their sample standard deviation, and what was
skipped or failed stands in the report like what was measured.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rexbert_hf.evaluation.cache import Cell
from rexbert_hf.evaluation.comparing import Comparison
from rexbert_hf.evaluation.models import labels
from rexbert_hf.evaluation.provenance import together
from rexbert_hf.evaluation.runner import Outcome
from rexbert_hf.evaluation.settings import EvaluateSettings
from rexbert_hf.evaluation.task import Task
from rexbert_hf.hub import git_commit, hardware, redact, versions
from rexbert_hf.hub.evaluated import BESIDE, slug, write_evaluation
from rexbert_hf.hub.redaction import redact_texts
from rexbert_hf.hub.run_file import plain, portable, write_whole
from rexbert_hf.settings import to_dict

RESULTS, REPORT = "results.json", "report.md"


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and sample standard deviation where there are two values or more.

    Args:
        values: of the seeds.

    Example:
        >>> mean_and_spread([0.5]), mean_and_spread([0.4, 0.6])[0]
        ((0.5, None), 0.5)
    """
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def results_of(settings: EvaluateSettings, outcome: Outcome, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """The content of `results.json`.

    Args:
        settings: of the recipe.
        outcome: what was measured.
        comparisons: of pairs of models.
    """
    tasks = {task.name: _task_facts(task, outcome) for task in outcome.tasks}
    name_of = labels(outcome.models)
    found = {
        "config": redact(plain(to_dict(settings))),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "hardware": hardware(),
        "versions": versions(),
        "git_commit": git_commit(),
        "measured": together([cell.measured for cell in outcome.cells]),
        "models": [{"name": name_of[model.name], "key": model.key} for model in outcome.models],
        "tasks": tasks,
        "table": table_rows(outcome),
        "comparisons": [
            {**vars(row), "first": name_of[row.first], "second": name_of[row.second], "real": row.real}
            for row in comparisons
        ],
        "skipped": _skipped(outcome),
        "failed": outcome.failed,
        "cells": [_cell_facts(cell, name_of[cell.model]) for cell in outcome.cells],
        "model_index": {
            name_of[model.name]: model_index(outcome, model.name, settings.budget) for model in outcome.models
        },
    }
    # Outside the configuration a name with "token" in it is a task's or a model's; a reason may repeat a secret.
    whole: dict[str, Any] = redact_texts(portable(plain(found), settings.output_dir))
    return whole


def names_in(outcome: Outcome, results: dict[str, Any]) -> dict[str, str]:
    """What the results call each model.

    Args:
        outcome: what was measured.
        results: what `results_of` made of it.
    """
    return {model.name: told["name"] for model, told in zip(outcome.models, results["models"], strict=True)}


def _skipped(outcome: Outcome) -> dict[str, str]:
    models = {f"model {name}": reason for name, reason in outcome.missing.items()}
    words = {f"baseline {word}": f"none for {', '.join(names)}" for word, names in outcome.unknown_words.items()}
    return outcome.skipped | models | words


def table_rows(outcome: Outcome) -> list[dict[str, Any]]:
    """One row a task and model: mean and spread of every figure over seeds.

    Args:
        outcome: what was measured.
    """
    rows, name_of = [], labels(outcome.models)
    for task in outcome.tasks:
        for model in outcome.models:
            cells = outcome.of(task.name, model.name)
            if not cells:
                continue
            names = [name for name in cells[0].result.metrics if all(name in cell.result.metrics for cell in cells)]
            figures = {name: mean_and_spread([cell.result.metrics[name] for cell in cells]) for name in names}
            rows.append(
                {
                    "task": task.name,
                    "model": name_of[model.name],
                    "metric": task.metric,
                    "mean": figures[task.metric][0],
                    "spread": figures[task.metric][1],
                    "seeds": len(cells),
                    "over": _over(task, cells[0]),
                    "all": {name: {"mean": mean, "spread": spread} for name, (mean, spread) in figures.items()},
                    "slices": _slices(cells),
                }
            )
    return rows


def _over(task: Task, cell: Cell) -> list[Any]:
    """What a figure is a mean over: how many test examples, and what else; models that differ are not compared."""
    return [len(cell.result.examples), *task.averaged_over(cell.result)]


def _slices(cells: Sequence[Cell]) -> dict[str, float]:
    names = [name for name in cells[0].result.slices if all(name in cell.result.slices for cell in cells)]
    return {name: statistics.fmean(cell.result.slices[name] for cell in cells) for name in names}


def _task_facts(task: Task, outcome: Outcome) -> dict[str, Any]:
    cells = [cell for cell in outcome.cells if cell.task == task.name]
    name_of, models = labels(outcome.models), {cell.model for cell in cells}
    said: dict[str, dict[str, None]] = {}
    for cell in cells:
        for note in cell.result.notes:
            said.setdefault(note, {})[name_of[cell.model]] = None
    notes = [note if len(who) == len(models) else f"{', '.join(who)}: {note}" for note, who in said.items()]
    facts = {name: getattr(task, name) for name in ("title", "paper", "metric", "domain")}
    facts["comparable"] = outcome.comparable[task.name]
    counts = cells[0].result.counts if cells else {}
    return {**facts, "data": outcome.data[task.name], "counts": counts, "notes": notes}


def _cell_facts(cell: Cell, model: str) -> dict[str, Any]:
    result = cell.result
    facts = {"task": cell.task, "model": model, "seed": cell.seed, "metrics": result.metrics}
    more = {"slices": result.slices, "counts": result.counts, "notes": list(result.notes)}
    return {**facts, **more, "seconds": round(cell.seconds, 1), "cached": cell.cached, "measured": dict(cell.measured)}


def model_index(outcome: Outcome, model: str, budget: str) -> list[dict[str, Any]]:
    """A model's primary figures as `huggingface_hub.EvalResult` takes them.

    Args:
        outcome: what was measured.
        model: name of the model.
        budget: of the run.
    """
    found = []
    for task in outcome.tasks:
        cells = outcome.of(task.name, model)
        if not cells:
            continue
        mean, spread = mean_and_spread([cell.result.metrics[task.metric] for cell in cells])
        args: dict[str, Any] = {"budget": budget, "seeds": len(cells), "test_examples": cells[0].result.tested}
        args |= {"seed": cells[0].seed} if len(cells) == 1 else {}
        args |= {} if spread is None else {"spread_over_seeds": round(spread, 5)}
        args |= outcome.by_hand[task.name]
        found.append(card_metric(task, mean, outcome.data[task.name], outcome.splits[task.name], args))
    return found


def card_metric(task: Task, value: float, data: str, split: str, args: dict[str, Any]) -> dict[str, Any]:
    """A primary figure as `huggingface_hub.EvalResult` takes it.

    Args:
        task: whose figure it is.
        value: the figure.
        data: what it was measured on (`where`).
        split: of the data (`Task.measured_split`).
        args: how it was measured: budget, seeds, what the user set by hand, ...
    """
    return {
        "task_type": task.hub_task,
        "task_name": task.title,
        "dataset_type": task.name.replace("_", "-"),
        "dataset_config": slug(data),
        "dataset_name": data,
        "dataset_split": split,
        "metric_type": task.metric.replace("@", "_at_"),
        "metric_name": task.metric,
        "metric_value": round(value, 5),
        "metric_args": args,
    }


def write_results(folder: Path, results: dict[str, Any]) -> None:
    """Write `results.json` and `report.md`.

    Args:
        folder: of the evaluation.
        results: what `results_of` made.

    Raises:
        OSError: if they cannot be written.
    """
    from rexbert_hf.evaluation.report_page import report_page

    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(folder / RESULTS, f"{text}\n".encode())
    write_whole(folder / REPORT, report_page(results).encode())


def beside(results: dict[str, Any], task: str, model: str) -> dict[str, dict[str, Any]]:
    """Primary figures of the other models on a task, and whether they are real differences: None if not compared.

    Each has the key of its model: of another evaluation, another one may have the same name.

    A figure over other test examples or cells (`Task.averaged_over`) has no place beside this one.

    Args:
        results: what `results_of` made.
        task: name of the task.
        model: whose card they are for, as reports call it.
    """
    real = {
        ({row["first"], row["second"]} - {model}).pop(): row["real"]
        for row in results["comparisons"]
        if row["task"] == task and model in (row["first"], row["second"])
    }
    over = {row["model"]: row["over"] for row in results["table"] if row["task"] == task}
    rows = [row for row in results["table"] if row["task"] == task and row["model"] != model]
    rows = [row for row in rows if row["over"] == over.get(model)]
    keys = {told["name"]: told["key"] for told in results["models"]}
    return {
        row["model"]: {"value": round(row["mean"], 5), "real": real.get(row["model"]), "key": keys[row["model"]]}
        for row in rows
    }


def update_cards(outcome: Outcome, results: dict[str, Any]) -> list[Path]:
    """Put each local model's figures into its folder, and render its card again where there is a `run.json`.

    Args:
        outcome: what was measured.
        results: what `results_of` made.

    Returns:
        The files written.

    Raises:
        ValueError: if a folder holds another model than the one that was measured, or a file cannot be read.
        OSError: if a file cannot be written.
    """
    from rexbert_hf.hub import write_card

    written, name_of = [], names_in(outcome, results)
    for model in outcome.models:
        folder = Path(model.name)
        figures = results["model_index"].get(name_of[model.name])
        if model.is_word or not folder.is_dir() or not figures:  # a folder may have a baseline's name
            continue
        kinds = {figure["dataset_type"]: figure for figure in figures}
        peers = {task.name.replace("_", "-"): beside(results, task.name, name_of[model.name]) for task in outcome.tasks}
        cells = {task.name: outcome.of(task.name, model.name) for task in outcome.tasks}
        told = {name.replace("_", "-"): together([cell.measured for cell in found]) for name, found in cells.items()}
        written.append(
            write_evaluation(
                folder,
                [{**kinds[kind], **told[kind], **({BESIDE: peers[kind]} if peers[kind] else {})} for kind in kinds],
                key=model.key if model.has_files_key else None,
            )
        )
        if (folder / "run.json").is_file():
            written.append(write_card(folder))
    return written
