"""One model fine-tuned on one task, kept with its figures and card: the task's own class does the work."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rexbert_hf.evaluation.models import ModelUnderTest, find_model
from rexbert_hf.evaluation.registry import make_task
from rexbert_hf.evaluation.report import card_metric
from rexbert_hf.evaluation.runner import check_result, comparison, set_by_hand, where
from rexbert_hf.evaluation.settings import FinetuneTaskSettings
from rexbert_hf.evaluation.task import DataMissing, Task
from rexbert_hf.hub import push_run, read_run, write_card, write_run
from rexbert_hf.hub.evaluated import files_key
from rexbert_hf.hub.manifest_names import stays_inside
from rexbert_hf.hub.own_folder import check_own_folder
from rexbert_hf.hub.redaction import redact, redacted_alike
from rexbert_hf.hub.run_file import plain
from rexbert_hf.pretraining.processes import one_process
from rexbert_hf.settings import sole_run, to_dict

logger = logging.getLogger(__name__)

_NO_RESULT = ("push_to_hub", "private", "output_dir")
_STAGED = "cache/.training-model"
"""Below the run's folder: the fitted model until all of it is there, so that no folder holds parts of two."""


@dataclass(frozen=True)
class _Work:
    """What decides a run: the task and its data, the model, and the hash of both."""

    task: Task
    data: Any
    model: ModelUnderTest
    fingerprint: str

    def decided(self) -> dict[str, Any]:
        """As `run.json` has it."""
        return {"base_key": self.model.key, "data_key": self.fingerprint, "task_version": self.task.version}


@sole_run("cache/.training-*")
def finetune_task(settings: FinetuneTaskSettings) -> dict[str, Any]:
    """Fine-tune, measure and keep; a folder that holds this run, finished, is left as it is.

    A finished run of the same settings whose model or data have changed since is trained again.

    Args:
        settings: of the recipe.

    Returns:
        The `results` of `run.json`.

    Raises:
        ValueError: if the task trains nothing, its data are not there, the folder holds something else, or several
            processes were started.
        FileNotFoundError: if there is no such model.
    """
    one_process("fine-tuning on a task")
    output = Path(settings.output_dir)
    check_own_folder(output, "task", model=settings.model)
    work = _work(settings)
    results = _finished(output, settings, work)
    if results is None:
        results = _run(output, settings, work)
    if settings.push_to_hub:
        results["url"] = push_run(output, settings.push_to_hub, private=settings.private)
    return results


def _work(settings: FinetuneTaskSettings) -> _Work:
    task = make_task(settings.task)
    if not task.trains:
        raise ValueError(f"task {task.name} trains nothing: recipes/evaluate.py measures it")
    model = find_model(settings.model)
    if model.is_word:
        raise ValueError(f"{model.name} is a baseline: give a folder or a Hub name to keep a model of")
    try:
        data = task.load(settings.source(task.name))
    except DataMissing as reason:
        said = str(reason).removeprefix(f"{task.name}: ")
        raise ValueError(f"{task.name}: {said}") from None
    return _Work(task, data, model, task.fingerprint(data))


def _finished(output: Path, settings: FinetuneTaskSettings, work: _Work) -> dict[str, Any] | None:
    """Results of this very run; None where it has to be trained.

    Raises:
        ValueError: if the folder holds a run with other settings.
    """
    if not (output / "run.json").is_file():
        return None
    run = read_run(output)
    before, config = redacted_alike(dict(run.get("config") or {}), redact(plain(to_dict(settings))))
    if {**before, **{name: config[name] for name in _NO_RESULT}} != config:
        changed = [name for name in config if name not in _NO_RESULT and before.get(name) != config[name]]
        names = ", ".join(changed) or "other settings"
        raise ValueError(f"{output} holds another run ({names} differ): choose another output_dir, or delete it")
    decided = work.decided()
    if {name: run.get(name) for name in decided} != decided:
        logger.info("%s holds a run with another state of model, data or task: trained again", output)
        return None
    if run.get("model_key") != files_key(output, _named(run)) or not (output / "README.md").is_file():
        return None
    logger.info("%s holds this run, finished: nothing to train", output)
    found: dict[str, Any] = run["results"]
    return found


def _run(output: Path, settings: FinetuneTaskSettings, work: _Work) -> dict[str, Any]:
    task, start, staged = work.task, time.perf_counter(), output / _STAGED
    staged.mkdir(parents=True, exist_ok=True)
    options = settings.options(cache_dir=output / "cache", keep=staged)
    result = task.run(work.model.path, work.data, settings.seed, options)
    check_result(task, result)
    work.model.check_unchanged()
    if not any(staged.rglob("*.safetensors")):
        raise ValueError(f"task {task.name} left no model: it keeps none")
    source = settings.source(task.name)
    data_name = where(task, source)
    args: dict[str, Any] = {"budget": settings.budget, "seed": settings.seed, "test_examples": result.tested}
    args |= set_by_hand(task, source, options)
    results: dict[str, Any] = {
        "test": result.metrics,
        "slices": result.slices,
        "counts": result.counts,
        "notes": list(result.notes),
        "metrics": [card_metric(task, result.metrics[task.metric], data_name, task.measured_split(source), args)],
        "seconds": round(time.perf_counter() - start, 1),
    }
    data = [{"name": data_name, "fingerprint": work.fingerprint}]
    keys: dict[str, Any] = {**work.decided(), "model_key": files_key(staged)}
    card = _card(work, settings, staged)
    files = sorted(path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file())
    _remove_earlier(output, files)
    write_run(output, config=to_dict(settings), results=results, data=data, card=card, files=files, **keys)
    for name in files:
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (staged / name).replace(output / name)
    shutil.rmtree(staged)
    write_card(output)
    return results


def _named(run: Mapping[str, Any]) -> list[str] | None:
    """Files of a run's model as its `run.json` names them; None of one that an earlier version wrote."""
    files = run.get("files")
    return [name for name in files if stays_inside(name)] if isinstance(files, list) else None


def _remove_earlier(output: Path, files: Sequence[str]) -> None:
    """Remove what an earlier result of this recipe wrote and the new one lacks; everything else is the user's.

    Before the new `run.json`, which names the new files only: a kill in between leaves a result that is made again.
    """
    if not (output / "run.json").is_file():
        return
    for name in set(_named(read_run(output)) or []) - set(files):
        (output / name).unlink(missing_ok=True)


def _card(work: _Work, settings: FinetuneTaskSettings, folder: Path) -> dict[str, Any]:
    """Fields of the card: a search model has a template of its own."""
    task, search = work.task, (folder / "modules.json").is_file()
    comparable = comparison(task, settings.source(task.name), settings.options())
    summary = f"{Path(settings.model).name} fine-tuned on the task {task.title.lower()} with rexbert_hf."
    text = f"```python\n{_use(work, any(folder.glob('*.py')))}\n```"
    return {
        "template": "search_card.md" if search else "plain_card.md",
        "library_name": "sentence-transformers" if search else "transformers",
        "pipeline_tag": "sentence-similarity" if search else task.hub_task,
        "base_model": settings.model,
        "summary": summary,
        "sections": [] if search else [{"title": "How to use", "text": text}],
        "limits": [f"Protocol: {task.paper}; {task.split}; comparable with the paper: {comparable}."],
    }


def _use(work: _Work, remote_code: bool) -> str:
    """Code that runs the model with its head; the card puts in the repository's name."""
    trust = ", trust_remote_code=True" if remote_code else ""
    if work.task.hub_task == "question-answering":  # transformers 5 has no pipeline for it
        return _QA_USE.replace("TRUST", trust)
    examples: Any = getattr(work.data, "test", ())
    paired = bool(examples) and examples[0].row.pair is not None
    asked = '{"text": "usb c cable", "text_pair": "usb-c charging cable 2 m"}' if paired else '"usb-c cable 2 m"'
    made = f'answer = pipeline("{work.task.hub_task}", model="{{{{ repo }}}}"{trust})'
    return f"from transformers import pipeline\n\n{made}\nprint(answer({asked}))"


_QA_USE = """import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{{ repo }}")
model = AutoModelForQuestionAnswering.from_pretrained("{{ repo }}"TRUST)
inputs = tokenizer("How is the screen?", "The screen is bright and large.", return_tensors="pt")
with torch.no_grad():
    found = model(**inputs)
print(tokenizer.decode(inputs["input_ids"][0][found.start_logits.argmax() : found.end_logits.argmax() + 1]))"""
