"""One stage with one seed: how it is trained and measured. Papers add their own functions by name."""

from __future__ import annotations

import importlib
import json
import logging
import statistics
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForMaskedLM, PreTrainedTokenizerBase

from rexbert_hf.data import TokenisedDataset
from rexbert_hf.data.order import Draw
from rexbert_hf.data.rows import RowBatch
from rexbert_hf.models import RexBertForMaskedLM
from rexbert_hf.objectives import TripletRows
from rexbert_hf.pretraining import PretrainSettings, make_arguments, pretrain
from rexbert_hf.pretraining.associations import load_associations
from rexbert_hf.pretraining.corpora import Corpus, prepare
from rexbert_hf.pretraining.encoder import load_tokenizer
from rexbert_hf.reproduction.budgets import STEPS, TOKENS
from rexbert_hf.reproduction.downstream import run_step
from rexbert_hf.reproduction.stages import Recipe, Stage
from rexbert_hf.training import NeighborDataset, last_complete_checkpoint, resolve
from rexbert_hf.training.span_accuracy import evaluate_spans

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A stage with one seed, ready to run.

    Attributes:
        stage: what.
        seed: which repetition.
        recipe: its settings with seed, scale, folders, tokenizer and the model to start from.
        measured: the recipe whose sources and spans it is measured on, which is the same for all stages; None for its
            own.
        downstream: of a downstream stage: the settings of its kind with seed, steps and folders; else None.
        step: of a downstream stage: the recipe that it names.
    """

    stage: Stage
    seed: int
    recipe: PretrainSettings
    measured: PretrainSettings | None = None
    downstream: Any = None
    step: Recipe | None = None

    @property
    def folder(self) -> Path:
        """Where its model lies."""
        return Path(self.recipe.output_dir)


@dataclass(frozen=True)
class Ran:
    """What a run was.

    Attributes:
        amount: tokens that went through the encoder in training, special ones included; of a downstream stage: steps.
        seconds: wall clock (after an interruption: of the last part).
        speed: amount a second while training; 0 if it is not known.
        unit: tokens or steps.
        parameters: of the model, where its run says it.
    """

    amount: int
    seconds: float
    speed: float
    unit: str = TOKENS
    parameters: int | None = None


Runner = Callable[[Job], Ran]
Measurer = Callable[..., dict[str, float]]


def run_job(job: Job) -> Ran:
    """Train a job: phases by the function that its stage names, a downstream step by its kind's.

    Args:
        job: what to train.
    """
    if job.step is None:
        return RUNS[job.stage.run](job)
    results, seconds = run_step(job.step, job.downstream)
    return Ran(int(results["steps"]), seconds, float(results["steps_per_second"]), STEPS, results.get("num_parameters"))


def run_pretrain(job: Job, train: Callable[[Any], Any] = pretrain) -> Ran:
    """Train by `rexbert_hf.pretraining`; goes on from its own checkpoints after an interruption.

    Args:
        job: what to train.
        train: another function that trains phases into a folder.
    """
    start = time.perf_counter()
    train(job.recipe)
    seconds = time.perf_counter() - start
    tokens, special = count_tokens(job.recipe, {name: corpus.train for name, corpus in corpora_of(job.recipe).items()})
    real_share = (tokens - special) / max(tokens, 1)
    return Ran(tokens, seconds, _logged_speed(job.folder) / real_share)


def _logged_speed(folder: Path) -> float:
    """Median of the logged tokens/s (special ones not counted) over the second half of a run."""
    checkpoint = last_complete_checkpoint(folder)
    if checkpoint is None:
        return 0.0
    history = json.loads((checkpoint.path / "trainer_state.json").read_text())["log_history"]
    speeds = [entry["tokens_per_second"] for entry in history if "tokens_per_second" in entry]
    return statistics.median(speeds[len(speeds) // 2 :]) if speeds else 0.0


def corpora_of(recipe: PretrainSettings, also_trained: Collection[str] = ()) -> dict[str, Corpus]:
    """The tokenised sources of a recipe; found in its cache after the first time.

    Args:
        recipe: whose.
        also_trained: names of sources that another recipe may train on.
    """
    cache = Path(recipe.cache_dir or recipe.output_dir)
    return prepare(recipe, load_tokenizer(recipe, cache), cache, also_trained=also_trained)


def measured_corpora(job: Job) -> dict[str, Corpus]:
    """The sources that a job is measured on; what they hold out no source nearly repeats, since a row may mix any.

    Args:
        job: a finished run.
    """
    recipe = job.measured or job.recipe
    return corpora_of(recipe, recipe.sources)


def count_tokens(recipe: PretrainSettings, stores: Mapping[str, TokenisedDataset]) -> tuple[int, int]:
    """Tokens that a recipe sends through the encoder, from the batches themselves, and the special ones among them.

    The budget is met in expectation only; this replays which pieces of which documents every step takes. Further
    encodings of neighbour product reconstruction count.

    Args:
        recipe: the run.
        stores: its training data.
    """
    plan = resolve(recipe.curriculum(), stores)
    triplets: NeighborDataset | None = None
    if recipe.needs_associations:
        assert recipe.associations is not None
        triplets = NeighborDataset(
            plan, stores, load_associations(recipe.associations, stores, recipe.data_dir).contents
        )
    tokens = special = 0
    for phase in plan.phases:
        for step in range(phase.num_steps):
            for micro in range(plan.micro_batches):
                if triplets is not None and "npr" in phase.phase.objectives:
                    found = _count_rows(triplets[phase.first_step + step, micro], stores)
                else:
                    found = _count_draws(phase.order.micro(step, micro), stores)
                tokens, special = tokens + found[0], special + found[1]
    return tokens, special


def _count_draws(draws: Iterable[Draw], stores: Mapping[str, TokenisedDataset]) -> tuple[int, int]:
    tokens = special = 0
    for draw in draws:
        store = stores[draw.source]
        bodies = np.minimum(draw.stops, store.lengths[draw.indices] - store.num_special) - draw.starts
        tokens += int(bodies.sum()) + store.num_special * len(bodies)
        special += store.num_special * len(bodies)
    return tokens, special


def _count_rows(rows: RowBatch, stores: Mapping[str, TokenisedDataset]) -> tuple[int, int]:
    """Tokens of rows and, where triplets have contents of their own, of those."""
    num_special = next(iter(stores.values())).num_special
    clean = rows.clean if isinstance(rows, TripletRows) else None
    parts = [rows] if clean is None else [rows, clean]
    return sum(len(part.input_ids) for part in parts), sum(num_special * len(part) for part in parts)


def measure_spans(job: Job, source: str = "shop", **options: Any) -> dict[str, float]:
    """Masked accuracy inside guided spans and outside them, on a source's held-out documents.

    Args:
        job: a finished run.
        source: which source.
        **options: of `evaluate_spans`.

    Raises:
        ValueError: if the source has no held-out documents.
    """
    held_out = measured_corpora(job)[source].held_out
    if held_out is None:
        raise ValueError(f"source '{source}' has no held-out documents: raise evaluation.held_out")
    model, tokenizer = load_job_model(job)
    precision = torch.autocast(model.device.type, torch.bfloat16) if make_arguments(job.recipe).bf16 else nullcontext()
    with precision:
        return evaluate_spans(model, held_out, tokenizer, **options)


def load_job_model(job: Job) -> tuple[Any, PreTrainedTokenizerBase]:
    """The masked-LM model that a job trained, in evaluation mode on the device of its recipe, and its tokenizer.

    Args:
        job: a finished run.
    """
    stock = json.loads((job.folder / "config.json").read_text()).get("model_type") not in ("rexbert", "modernbert")
    loader: Any = AutoModelForMaskedLM if stock else RexBertForMaskedLM
    model = loader.from_pretrained(job.folder).to(make_arguments(job.recipe).device).eval()
    return model, load_tokenizer(job.recipe, job.folder)


def _later(module: str, name: str) -> Any:
    """A function of a module that is imported when it is called: it needs optional packages, or much time."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(f"rexbert_hf.reproduction.{module}"), name)(*args, **kwargs)

    return call


RUNS: dict[str, Runner] = {
    "pretrain": run_pretrain,
    "qpi": _later("pair_stages", "run_qpi_stage"),
    "relevance": _later("pair_stages", "run_relevance_stage"),
}
MEASURES: dict[str, Measurer] = {
    "spans": measure_spans,
    "masked_cells": _later("grid_cells", "measure_masked_cells"),
    "search": _later("search_quality", "measure_search"),
    "search_cells": _later("grid_cells", "measure_search_cells"),
    "results": _later("search_quality", "measure_results"),
    "task": _later("tasks", "measure_task"),
}


def register_run(name: str, run: Runner) -> None:
    """Make a way to train available to `Stage.run`.

    Args:
        name: its name.
        run: trains a job into its folder; called again after an interruption.
    """
    RUNS[name] = run


def register_measure(name: str, measure: Measurer) -> None:
    """Make a measurement available to `Measure.kind`.

    Args:
        name: its name.
        measure: `(job, **options) -> values by key`.
    """
    MEASURES[name] = measure
