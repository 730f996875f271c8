"""Stage 3: fine-tune a bi-encoder on judged pairs, from settings to a finished folder.

The folder holds a sentence-transformers model, `run.json` and a card. The model that had the best R@100 on validation
queries is the one that stays; the test queries are searched once, with it, over the whole catalogue.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments
from sentence_transformers.base.modules import Router
from sentence_transformers.sentence_transformer.losses import CoSENTLoss
from torch import nn
from transformers import set_seed

from rexbert_hf.hub import push_run
from rexbert_hf.models.matryoshka_rexbert import Grid
from rexbert_hf.pretraining.arguments import trackers
from rexbert_hf.pretraining.processes import check_launcher, check_processes, fast_bfloat16
from rexbert_hf.pretraining.threads import set_threads
from rexbert_hf.retrieval.training.biencoder import load_biencoder
from rexbert_hf.retrieval.training.cpu_training import prepare_for_cpu
from rexbert_hf.retrieval.training.evaluator import SearchEvaluator, validation_queries
from rexbert_hf.retrieval.training.finetune_settings import (
    ROW_KINDS,
    FinetuneSettings,
    LossSettings,
    SearchTrainerSettings,
)
from rexbert_hf.retrieval.training.grid_evaluator import GridEvaluator, cell_name, means_of
from rexbert_hf.retrieval.training.grid_losses import GridLoss, stock_grid_loss
from rexbert_hf.retrieval.training.grid_settings import fine_tuning_grid
from rexbert_hf.retrieval.training.losses import KnownPositives, MaskedRankingLoss, ThreePartHingeLoss
from rexbert_hf.retrieval.training.mining_callback import Mining
from rexbert_hf.retrieval.training.search_batches import SearchBatches, SearchCollator
from rexbert_hf.retrieval.training.search_data import TEST, TRAIN, SearchData, load_search_data
from rexbert_hf.retrieval.training.search_finish import (
    check_folder,
    description,
    finish,
    finished_results,
    made_of,
    with_test_figures,
)
from rexbert_hf.retrieval.training.search_trainer import SearchTrainer
from rexbert_hf.settings import sole_run
from rexbert_hf.training.cpu import tune_cpu
from rexbert_hf.training.precision import choose_bfloat16

logger = logging.getLogger(__name__)

_DECIDING = ("seed", "model", "loss", "rows", "mining", "trainer", "validation", "matryoshka")
"""Settings that decide the weights."""


@sole_run()
def finetune_search(settings: FinetuneSettings) -> dict[str, Any]:
    """Run a fine-tuning recipe to its end, or on from where it stopped; a finished run is left as it is.

    Args:
        settings: the recipe.

    Returns:
        The `results` of `run.json`: validation history, test figures, speed.

    Raises:
        ValueError: for settings that contradict each other or the data; if the folder holds a run with another plan, or
            the model that is fine-tuned.
        FileNotFoundError: for a missing file or model.
        TrainingInterrupted: after a signal, once a checkpoint is written.
    """
    start, output = time.perf_counter(), Path(settings.output_dir)
    check_folder(output, "loss", settings.model.base)
    check_launcher()
    prepare_device(settings.trainer)
    data = load_search_data(settings.data)
    contents = made_of(data, settings.model)
    results = finished_results(output, settings, contents)
    if results is None:
        set_seed(settings.seed)  # a new model's weights are drawn
        model = load_biencoder(settings.model, training_texts(data))
        results = train_and_measure(settings, data, model, contents)
        # Of a run in several sittings only the last one's time is known: it would pass for the whole.
        whole = results["resumed_from_step"] is None
        results["seconds" if whole else "seconds_of_this_start"] = round(time.perf_counter() - start, 1)
        results["made_of"] = contents
        if results.pop("is_first_process"):
            finish(output, settings, model, data, results)
    else:
        results = with_test_figures(output, settings, data, results, partial(_test_finished, settings, data))
    if settings.push_to_hub and PartialState().is_main_process:
        results["url"] = push_run(output, settings.push_to_hub, private=settings.private)
    return results


def prepare_device(chosen: SearchTrainerSettings) -> None:
    """Set what the whole process computes with.

    Args:
        chosen: the settings.
    """
    if chosen.use_cpu or not torch.cuda.is_available():
        tune_cpu()
        set_threads(chosen.cpu_threads)


def train_and_measure(
    settings: FinetuneSettings, data: SearchData, model: SentenceTransformer, contents: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Train, take the best model, and search the test queries with it.

    Args:
        settings: the recipe.
        data: catalogue, queries, judgements.
        model: the bi-encoder; it is the best one afterwards.
        contents: what `search_finish.made_of` gave; None for the data alone.
    """
    bf16 = uses_bf16(settings.trainer)
    batches = SearchBatches(data, ROW_KINDS[settings.loss.name], settings.rows, 0, settings.seed)
    grid = fine_tuning_grid(settings.matryoshka, model)
    loss = _loss(settings, model, data, grid)
    evaluator = _evaluator(settings, data, bf16, grid)
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    prepare_for_cpu(model, bf16, ranks)
    if ranks > 1 and isinstance(model[0], Router):
        freeze_unused(model)
    epoch = -(-batches.epoch_steps // ranks)
    args = training_arguments(settings, epoch, evaluator is not None, bf16, separate=isinstance(model[0], Router))
    batches.num_steps = args.max_steps * args.world_size
    check_processes(args.world_size, None)
    chosen = settings.trainer
    trainer = SearchTrainer(
        model, args, batches, SearchCollator(model), loss, evaluator=evaluator,
        warmup=chosen.warmup, final=chosen.final, max_minutes=chosen.max_minutes,
        patience=settings.validation.patience,
        description=description(settings, _DECIDING, contents or {"data": data.fingerprint}),
    )  # fmt: skip
    if settings.mining is not None:
        trainer.add_callback(Mining(trainer, batches, data, settings, epoch, bf16))
    before = evaluator(model) if evaluator is not None else {}
    results = trainer.train_to_best(batches.epoch_steps)
    results["is_first_process"] = trainer.is_world_process_zero()
    if evaluator is not None:
        results["validation_queries"] = len(evaluator.queries)
        results["validation_products"] = len(evaluator.products)
        results["validation_before"] = before[str(evaluator.primary_metric)]
    if settings.validation.test and trainer.is_world_process_zero():
        results |= _test(settings, data, model, grid)
    return results


def _loss(settings: FinetuneSettings, model: SentenceTransformer, data: SearchData, grid: Grid | None) -> nn.Module:
    wanted = settings.matryoshka
    if wanted is not None and wanted.way == "matryoshka2d":
        assert grid is not None
        return stock_grid_loss(model, grid, settings.loss.scale)
    if grid is not None and settings.loss.name == "cosent":
        raise ValueError(
            f"the base is cut to {grid.cells[-1][1]} dimensions, and loss.name cosent trains all: use ranking or hinge"
        )
    loss = make_loss(settings.loss, model, data)
    if grid is None or not isinstance(loss, MaskedRankingLoss | ThreePartHingeLoss):
        return loss
    return GridLoss(model, loss, grid, wanted.sample if wanted is not None else 0)


def make_loss(chosen: LossSettings, model: SentenceTransformer, data: SearchData) -> nn.Module:
    """The loss of a recipe.

    Args:
        chosen: its settings.
        model: the bi-encoder.
        data: what answers which query.
    """
    blocks: dict[str, Any] = {"block_size": chosen.block_size, "cached": chosen.cached}
    if chosen.name == "hinge":
        thresholds = (chosen.positive, chosen.hard_upper, chosen.hard_lower, chosen.random_upper)
        return ThreePartHingeLoss(model, *thresholds, **blocks)
    if chosen.name == "cosent":
        loss: nn.Module = CoSENTLoss(model, scale=chosen.scale)
        return loss
    known = KnownPositives(data.groups, data.judged, data.relevant, data.neither)
    return MaskedRankingLoss(model, known, chosen.scale, chosen.symmetric, chosen.margin, **blocks)


def training_arguments(
    settings: Any, epoch_steps: int, validates: bool, bf16: bool, separate: bool = False
) -> SentenceTransformerTrainingArguments:
    """Stock training arguments for a recipe with `trainer`, `rows` and `validation` settings.

    Args:
        settings: of the recipe.
        epoch_steps: steps of an epoch.
        validates: whether there is an evaluator.
        bf16: autocast.
        separate: whether queries and products have an encoder each.
    """
    chosen = settings.trainer
    steps = max(1, round(chosen.epochs * epoch_steps))
    steps = steps if chosen.max_steps is None else min(steps, chosen.max_steps)
    return SentenceTransformerTrainingArguments(
        output_dir=settings.output_dir,
        max_steps=steps,
        per_device_train_batch_size=settings.rows.batch_size,
        learning_rate=chosen.learning_rate,
        weight_decay=chosen.weight_decay,
        max_grad_norm=chosen.max_grad_norm,
        bf16=bf16,
        logging_steps=chosen.logging_steps,
        save_strategy="steps",
        save_steps=max(1, round(chosen.save_epochs * epoch_steps)),
        save_total_limit=chosen.save_total_limit,
        eval_strategy="steps" if validates else "no",
        eval_steps=max(1, round(settings.validation.every_epochs * epoch_steps)),
        report_to=trackers(chosen.report_to),
        use_cpu=chosen.use_cpu or not torch.cuda.is_available(),
        seed=settings.seed,
        disable_tqdm=True,
        accelerator_config={"dispatch_batches": False, "split_batches": False},
        # Looked for, they would be those of the last forward pass alone: a pass over products, and so all of the
        # queries' encoder.
        ddp_find_unused_parameters=False if separate else None,
    )


def freeze_unused(model: SentenceTransformer) -> None:
    """Take the weights that no embedding depends on (BERT's pooler) out of training; they never got a gradient.

    Several processes that do not look for such weights would wait for their gradients.

    Args:
        model: the bi-encoder.
    """
    training = model.training
    model.eval()
    with torch.enable_grad():
        for task in ("query", "document"):
            features = {**model.preprocess(["a"], task=task), "task": task}
            features = {k: v.to(model.device) if isinstance(v, torch.Tensor) else v for k, v in features.items()}
            model(features)["sentence_embedding"].sum().backward()
    model.train(training)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.grad is not None)
    model.zero_grad()


def uses_bf16(chosen: SearchTrainerSettings) -> bool:
    """Whether forward passes run in bfloat16.

    Args:
        chosen: the settings.

    Raises:
        ValueError: if the launcher set another precision.
    """
    use_cpu = chosen.use_cpu or not torch.cuda.is_available()
    return choose_bfloat16(chosen.bf16, lambda: fast_bfloat16(use_cpu))


def training_texts(data: SearchData) -> list[str]:
    """What a new tokenizer learns from: the catalogue and the training queries.

    Args:
        data: catalogue and queries.
    """
    return [text for text in data.texts if text] + [data.queries[i] for i in data.of(TRAIN, with_relevant=False)]


def _evaluator(settings: FinetuneSettings, data: SearchData, bf16: bool, grid: Grid | None) -> SearchEvaluator | None:
    chosen = settings.validation
    queries = validation_queries(data, chosen.max_queries)
    if not len(queries):
        logger.warning("no validation query has a relevant product: the last model is taken, not the best one")
        return None
    options: dict[str, Any] = {"name": "validation"}
    arguments = data, queries, chosen.max_products, settings.loss.block_size, bf16
    if settings.matryoshka is None or grid is None:
        return SearchEvaluator(*arguments, **options)
    return GridEvaluator(grid.cells, *arguments, **options)


def _test(
    settings: FinetuneSettings, data: SearchData, model: SentenceTransformer, grid: Grid | None
) -> dict[str, Any]:
    """In float32, as it will serve; of a grid each cell too."""
    queries = data.of(TEST)
    if not len(queries):
        return {"test": {}}
    if settings.matryoshka is None or grid is None:
        return {"test": SearchEvaluator(data, queries, None, settings.loss.block_size)(model)}
    evaluator = GridEvaluator(grid.cells, data, queries, None, settings.loss.block_size)
    found = {cell: means_of(values) for cell, values in evaluator.by_cell(model).items()}
    return {"test": found[evaluator.cells[-1]], "cells": {cell_name(cell): means for cell, means in found.items()}}


def _test_finished(settings: FinetuneSettings, data: SearchData, model: SentenceTransformer) -> dict[str, Any]:
    wanted = settings.matryoshka
    return _test(settings, data, model, None if wanted is None else wanted.grid(model))
