"""The evaluation recipe from settings to a finished folder: cells, comparisons, report, plot, cards."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from rexbert_hf.evaluation.comparing import compare
from rexbert_hf.evaluation.plots import intervals, plot_figures
from rexbert_hf.evaluation.report import names_in, results_of, update_cards, write_results
from rexbert_hf.evaluation.runner import run_tasks
from rexbert_hf.evaluation.settings import EvaluateSettings
from rexbert_hf.hub import write_run
from rexbert_hf.hub.own_folder import check_own_folder
from rexbert_hf.pretraining.processes import one_process
from rexbert_hf.settings import sole_run, to_dict

logger = logging.getLogger(__name__)


@sole_run("cache/shared/.training-*")
def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Run an evaluation to its end, or on from where it stopped.

    Args:
        settings: of the recipe.

    Returns:
        The content of `results.json`.

    Raises:
        ValueError: if no model can be had, two are one folder, the folder holds another run or a model, or several
            processes were started.
        OSError: if a result cannot be written.
    """
    one_process("the evaluation")
    check_own_folder(settings.output_dir, "resamples")
    outcome = run_tasks(settings)
    folder = Path(settings.output_dir)
    examples = {
        (task.name, model.name): [cell.result.examples for cell in outcome.of(task.name, model.name)]
        for task in outcome.tasks
        for model in outcome.models
        if outcome.of(task.name, model.name)
    }
    pairs = settings.compared([model.name for model in outcome.models])
    over = {
        (task.name, model.name): task.averaged_over(cell.result)
        for task in outcome.tasks
        for model in outcome.models
        for cell in outcome.of(task.name, model.name)[:1]
    }
    comparisons = compare(outcome.tasks, examples, pairs, settings.resamples, folder / "cache", over, outcome.groups)
    results = results_of(settings, outcome, comparisons)
    values = intervals(outcome.tasks, examples, folder / "cache", outcome.groups)
    name_of = names_in(outcome, results)
    named = {(task, name_of[model]): value for (task, model), value in values.items()}
    titles = {task.name: task.title for task in outcome.tasks}
    plot = plot_figures(folder / "plots" / "figures.png", titles, [m["name"] for m in results["models"]], named)
    results["plot"] = None if plot is None else "plots/figures.png"
    write_results(folder, results)
    summary = {key: results[key] for key in ("table", "comparisons")}
    summary |= {key: [f"{what}: {why}" for what, why in results[key].items()] for key in ("skipped", "failed")}
    write_run(folder, config=to_dict(settings), results=summary)
    if settings.update_cards:
        for path in update_cards(outcome, results):
            logger.info("wrote %s", path)
    return results


def status_of(settings: EvaluateSettings, results: dict[str, Any]) -> int:
    """Exit status: 0 when nothing failed, every model wanted could be had, and something was measured.

    Args:
        settings: of the recipe.
        results: what `evaluate` gave.
    """
    lost = any(what.startswith("model ") for what in results["skipped"]) and settings.missing_models == "fail"
    return int(bool(results["failed"]) or lost or not results["table"])
