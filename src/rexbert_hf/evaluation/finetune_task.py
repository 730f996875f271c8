"""One model fine-tuned on one task, kept with its figures and card: the task's own class does the work."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from rexbert_hf.evaluation.models import find_model
from rexbert_hf.evaluation.registry import make_task
from rexbert_hf.evaluation.report import card_metric
from rexbert_hf.evaluation.runner import check_result, where
from rexbert_hf.evaluation.settings import FinetuneTaskSettings
from rexbert_hf.evaluation.task import DataMissing, Task
from rexbert_hf.hub import push_run, read_run, write_card, write_run
from rexbert_hf.hub.run_file import plain, redact
from rexbert_hf.settings import sole_run, to_dict

logger = logging.getLogger(__name__)

_NO_RESULT = ("push_to_hub", "private")


@sole_run("cache/.training-*")
def finetune_task(settings: FinetuneTaskSettings) -> dict[str, Any]:
    """Fine-tune, measure and keep; a folder that holds this run, finished, is left as it is.

    Args:
        settings: of the recipe.

    Returns:
        The `results` of `run.json`.

    Raises:
        ValueError: if the task trains nothing, or its data are not there.
        FileNotFoundError: if there is no such model.
    """
    output = Path(settings.output_dir)
    results = _finished(output, settings)
    if results is None:
        results = _run(output, settings)
    if settings.push_to_hub:
        results["url"] = push_run(output, settings.push_to_hub, private=settings.private)
    return results


def _finished(output: Path, settings: FinetuneTaskSettings) -> dict[str, Any] | None:
    if not (output / "run.json").is_file() or not (output / "README.md").is_file():
        return None
    run = read_run(output)
    config = redact(plain(to_dict(settings)))
    if {**(run.get("config") or {}), **{name: config[name] for name in _NO_RESULT}} != config:
        return None
    logger.info("%s holds this run, finished: nothing to train", output)
    found: dict[str, Any] = run["results"]
    return found


def _run(output: Path, settings: FinetuneTaskSettings) -> dict[str, Any]:
    task, start = make_task(settings.task), time.perf_counter()
    if not task.trains:
        raise ValueError(f"task {task.name} trains nothing: recipes/evaluate.py measures it")
    model = find_model(settings.model)
    if model.is_word:
        raise ValueError(f"{model.name} is a baseline: give a folder or a Hub name to keep a model of")
    try:
        data = task.load(settings.source(task.name))
    except DataMissing as reason:
        raise ValueError(f"{task.name}: {reason}") from None
    output.mkdir(parents=True, exist_ok=True)
    result = task.run(model.path, data, settings.seed, settings.options(cache_dir=output / "cache", keep=output))
    check_result(task, result)
    if not any(output.rglob("*.safetensors")):
        raise ValueError(f"task {task.name} left no model in {output}: it keeps none")
    data_name = where(task, settings.source(task.name))
    results: dict[str, Any] = {
        "test": result.metrics,
        "slices": result.slices,
        "counts": result.counts,
        "notes": list(result.notes),
        "metrics": [card_metric(task, result.metrics[task.metric], data_name)],
        "seconds": round(time.perf_counter() - start, 1),
    }
    source = {"name": data_name, "fingerprint": task.fingerprint(data)}
    write_run(output, config=to_dict(settings), results=results, data=[source], card=_card(task, settings, output))
    write_card(output)
    return results


def _card(task: Task, settings: FinetuneTaskSettings, output: Path) -> dict[str, Any]:
    """Fields of the card: a search model has a template of its own."""
    search = (output / "modules.json").is_file()
    how = "sentence-transformers" if search else "transformers"
    summary = f"{Path(settings.model).name} fine-tuned on the task {task.title.lower()} with rexbert_hf."
    use = f"```python\nfrom transformers import AutoModel\n\nAutoModel.from_pretrained({str(output.name)!r})\n```"
    return {
        "template": "search_card.md" if search else "plain_card.md",
        "library_name": how,
        "pipeline_tag": "sentence-similarity" if search else task.hub_task,
        "base_model": settings.model,
        "summary": summary,
        "sections": [] if search else [{"title": "How to use", "text": use}],
        "limits": [f"Protocol: {task.paper}; {task.split}; comparable with the paper: {task.comparable}."],
    }
