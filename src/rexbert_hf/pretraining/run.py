"""One pre-training run from settings to a finished folder: data, model, curriculum, evaluation, card, Hub."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rexbert_hf.data import CurriculumDataset, TokenisedDataset
from rexbert_hf.hub import card_of_run, loss_plot, push_run, write_card, write_run
from rexbert_hf.masking import GuidedMLMCollator
from rexbert_hf.models.modeling_rexbert import RexBertPreTrainedModel
from rexbert_hf.phrases import InverseDocumentFrequency
from rexbert_hf.pretraining.baselines import batches_of, count_baselines
from rexbert_hf.pretraining.corpora import Corpus, prepare, tokenizer_key
from rexbert_hf.pretraining.encoder import load_model, load_tokenizer
from rexbert_hf.pretraining.processes import check_processes, fast_bfloat16
from rexbert_hf.pretraining.settings import PretrainSettings
from rexbert_hf.settings import to_dict
from rexbert_hf.training import CurriculumArguments, CurriculumTrainer, Plan, evaluate_masked, resolve
from rexbert_hf.training.collation import MASKINGS, register_masking

logger = logging.getLogger(__name__)


def pretrain(settings: PretrainSettings) -> dict[str, Any]:
    """Run a pre-training recipe to its end, or on from where it stopped.

    Writes into `output_dir`: the model (RexBERT form with its code), its stock form in `modernbert/`, the tokenizer,
    `run.json`, the card and the loss plot, and checkpoints on the way.

    Args:
        settings: the recipe.

    Returns:
        The `results` of `run.json`: held-out masked accuracy before and after each phase, speed, packing.

    Raises:
        ValueError: for settings that contradict each other or the data; if the folder holds a run with another plan.
        FileNotFoundError: for a missing file or checkpoint.
        TrainingInterrupted: after a signal, once a checkpoint is written.
    """
    start = time.perf_counter()
    output = Path(settings.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    args = make_arguments(settings)
    check_processes(args.world_size, settings.trainer.num_processes)
    cache = Path(settings.cache_dir) if settings.cache_dir else output / "cache"
    with args.main_process_first(desc="preparing the data"):
        tokenizer = load_tokenizer(settings, cache)
        corpora = prepare(settings, tokenizer, cache, num_proc=max(1, (os.cpu_count() or 2) // 2))
    model = load_model(settings, tokenizer)
    if settings.trainer.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    stores = {name: corpus.train for name, corpus in corpora.items()}
    plan = resolve(settings.curriculum(), stores, args.world_size)
    with _masking_tables(settings, stores, tokenizer):
        trainer = CurriculumTrainer(
            model,
            args,
            plan,
            CurriculumDataset(plan.orders, stores),
            tokenizer,
            eval_dataset={name: corpus.held_out for name, corpus in corpora.items() if corpus.held_out is not None}
            or None,
            description=_description(settings, corpora, tokenizer),
        )
    logger.info("%d steps in %d phases; ready in %.1f s", plan.total_steps, len(plan.phases), _since(start))
    trainer.train()
    results = _results(settings, trainer, plan, corpora, tokenizer)
    results["seconds"] = round(_since(start), 1)
    if trainer.is_world_process_zero():
        finish(settings, trainer, tokenizer, corpora, results)
    return results


def _since(start: float) -> float:
    return time.perf_counter() - start


def make_arguments(settings: PretrainSettings) -> CurriculumArguments:
    """The training arguments of a recipe.

    Args:
        settings: the recipe.

    Raises:
        ValueError: if `trainer.extra` names an argument that does not exist or that the recipe decides itself.
    """
    chosen, evaluation = settings.trainer, settings.evaluation
    if chosen.cpu_threads is not None:
        torch.set_num_threads(chosen.cpu_threads)
    longest = max(phase.seq_length for phase in settings.phases)
    use_cpu = chosen.use_cpu or not torch.cuda.is_available()
    fields: dict[str, Any] = {
        "output_dir": settings.output_dir,
        "seed": settings.seed,
        "bf16": fast_bfloat16(use_cpu) if chosen.bf16 == "auto" else chosen.bf16,
        "weight_decay": chosen.weight_decay,
        "max_grad_norm": chosen.max_grad_norm,
        "dataloader_num_workers": chosen.num_workers,
        "logging_steps": chosen.logging_steps,
        "save_steps": chosen.save_steps,
        "save_total_limit": chosen.save_total_limit,
        "report_to": chosen.report_to,
        "use_cpu": use_cpu,
        "eval_max_tokens": evaluation.max_tokens,
        "eval_seq_length": evaluation.seq_length or longest,
        "eval_batch_tokens": max(settings.micro_batch_tokens, longest),
    }
    known = {field.name for field in dataclasses.fields(CurriculumArguments)}
    for name in chosen.extra:
        if name not in known:
            raise ValueError(f"trainer.extra.{name}: transformers' TrainingArguments has no such field")
        if name in fields:
            raise ValueError(f"trainer.extra.{name}: the recipe has its own key for it")
    return CurriculumArguments(**fields, **chosen.extra)


@contextmanager
def _masking_tables(
    settings: PretrainSettings, stores: Mapping[str, TokenisedDataset], tokenizer: PreTrainedTokenizerBase
) -> Iterator[None]:
    """Guided masking with the inverse document frequencies of the training text, where the recipe asks for them."""
    if not settings.guides.idf or not settings.needs_guides:
        yield
        return
    rows = (batch for store in stores.values() for batch in batches_of(store, 5_000_000))
    frequencies = InverseDocumentFrequency.fit(rows, len(tokenizer), tokenizer.all_special_ids)
    plain = MASKINGS["guided"]

    def build(masking: Any, *rest: Any) -> GuidedMLMCollator:
        options = {**masking.options, "token_weights": frequencies.table}
        collator = plain(dataclasses.replace(masking, options=options), *rest)
        assert isinstance(collator, GuidedMLMCollator)
        return collator

    register_masking("guided", build)
    try:
        yield
    finally:
        register_masking("guided", plain)


def _description(
    settings: PretrainSettings, corpora: Mapping[str, Corpus], tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    """What else decides the weights: a run's folder is resumed only if this is equal too."""
    model = {f"model.{name}": value for name, value in to_dict(settings.model).items()}
    data = {f"data.{name}": corpus.report["fingerprint"] for name, corpus in corpora.items()}
    return {**model, **data, "tokenizer": tokenizer_key(tokenizer), "guides.idf": settings.guides.idf}


def _results(
    settings: PretrainSettings,
    trainer: CurriculumTrainer,
    plan: Plan,
    corpora: Mapping[str, Corpus],
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, Any]:
    readings = trainer.held_out_results()
    phases = []
    for phase in plan.phases:
        logs = [entry for entry in trainer.state.log_history if entry.get("phase") == phase.index and "loss" in entry]
        report = phase.order.report(range(min(phase.order.num_groups, 8)))
        found: dict[str, Any] = {
            "name": phase.name,
            "tokens": phase.max_tokens,
            "steps": phase.num_steps,
            "fill": round(report.fill, 5),
            "dropped_share": round(report.dropped_share, 6),
        }
        speeds = [entry["tokens_per_second"] for entry in logs if "tokens_per_second" in entry]
        shares = [entry["mfu"] for entry in logs if "mfu" in entry]
        if logs:
            found["loss"] = logs[-1]["loss"]
        if speeds:
            found["tokens_per_second"] = round(sum(speeds) / len(speeds), 1)
        if shares:
            found["mfu"] = round(sum(shares) / len(shares), 4)
        for reading in readings:
            if reading["phase"] == phase.name:
                found |= _accuracies(reading, reading["when"])
        phases.append(found)
    results: dict[str, Any] = {"phases": phases}
    held_out = {name: corpus.held_out for name, corpus in corpora.items() if corpus.held_out is not None}
    if held_out and settings.evaluation.position_edges:
        results["by_position"] = _by_position(settings, trainer, held_out, tokenizer)
    if held_out and settings.evaluation.baselines and trainer.is_world_process_zero():
        results["baselines"] = count_baselines(
            [corpus.train for corpus in corpora.values()],
            held_out,
            tokenizer,
            trainer.args.eval_mlm_probability,
            settings.evaluation.baseline_tokens,
            settings.evaluation.max_tokens,
        )
    return results


def _accuracies(reading: Mapping[str, Any], when: str) -> dict[str, Any]:
    """Masked accuracy of each held-out set at one moment, and over all of them by masked tokens."""
    names = [key[len("eval_") : -len("_accuracy")] for key in reading if key.endswith("_accuracy")]
    found = {f"masked_accuracy_{when}_{name}": reading[f"eval_{name}_accuracy"] for name in names}
    counts = {name: reading[f"eval_{name}_masked_tokens"] for name in names}
    right = sum(reading[f"eval_{name}_accuracy"] * count for name, count in counts.items())
    return {f"masked_accuracy_{when}": right / max(sum(counts.values()), 1), **found}


def _by_position(
    settings: PretrainSettings,
    trainer: CurriculumTrainer,
    held_out: Mapping[str, TokenisedDataset],
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, dict[str, float]]:
    """Masked accuracy of the finished model by position in the document."""
    args: Any = trainer.args
    return {
        name: evaluate_masked(
            trainer.model,
            store,
            tokenizer,
            mlm_probability=args.eval_mlm_probability,
            batch_tokens=args.eval_batch_tokens,
            seq_length=args.eval_seq_length,
            max_tokens=args.eval_max_tokens,
            position_edges=settings.evaluation.position_edges,
            rank=args.process_index,
            world_size=args.world_size,
            reduce=trainer.sum_over_ranks,
        )
        for name, store in held_out.items()
    }


def finish(
    settings: PretrainSettings,
    trainer: CurriculumTrainer,
    tokenizer: PreTrainedTokenizerBase,
    corpora: Mapping[str, Corpus],
    results: dict[str, Any],
) -> None:
    """Write the finished folder, and push it where the recipe says so.

    Args:
        settings: the recipe.
        trainer: after training.
        tokenizer: of the run.
        corpora: what it was trained on.
        results: measured.
    """
    output = Path(settings.output_dir)
    model = trainer.accelerator.unwrap_model(trainer.model)
    save_model(model, tokenizer, output)
    history = _history(trainer)
    phases = [{"name": phase["name"], "steps": phase["steps"]} for phase in results["phases"]]
    loss_plot(history, output / "loss.png", phases)
    data = [{key: value for key, value in corpus.report.items() if key != "stores"} for corpus in corpora.values()]
    write_run(
        output,
        config=to_dict(settings),
        results=results,
        resumed_from_step=trainer.resumed_from_step,
        data=data,
        num_parameters=model.num_parameters(),
    )
    write_card(output, card_of_run(output))
    if settings.push_to_hub:
        results["url"] = push_run(output, settings.push_to_hub, private=settings.private)


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, output: Path) -> None:
    """Save the model and its tokenizer; a RexBERT also in the stock form, in `modernbert/`.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        output: the folder.
    """
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    if isinstance(model, RexBertPreTrainedModel):
        model.save_modernbert(output / "modernbert")
        tokenizer.save_pretrained(output / "modernbert")


def _history(trainer: CurriculumTrainer) -> list[dict[str, Any]]:
    """Log records with a held-out masked accuracy over all sets, for the plot."""
    records = []
    for entry in trainer.state.log_history:
        if "loss" in entry:
            records.append({"step": entry["step"], "loss": entry["loss"]})
        elif "eval_phase" in entry:
            accuracy = _accuracies(entry, "now")["masked_accuracy_now"]
            records.append({"step": entry["step"], "eval_masked_accuracy": accuracy})
    return records
