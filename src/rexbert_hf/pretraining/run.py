"""One pre-training run from settings to a finished folder: data, model, curriculum, evaluation, card, Hub."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rexbert_hf.catalog.sources import with_home
from rexbert_hf.data import CurriculumDataset, TokenisedDataset
from rexbert_hf.hub import resolve_model
from rexbert_hf.hub.own_folder import check_own_folder, has_own_checkpoint
from rexbert_hf.hub.run_file import KEPT_STEPS, checksum
from rexbert_hf.masking import GuidedMLMCollator
from rexbert_hf.phrases import InverseDocumentFrequency
from rexbert_hf.pretraining.arguments import make_arguments
from rexbert_hf.pretraining.associations import Associations, load_associations
from rexbert_hf.pretraining.baselines import batches_of
from rexbert_hf.pretraining.corpora import Corpus, prepare, tokenizer_key
from rexbert_hf.pretraining.encoder import load_model, load_tokenizer
from rexbert_hf.pretraining.finish import finish, finished_results, measure, push, save_model
from rexbert_hf.pretraining.processes import check_launcher, check_processes
from rexbert_hf.pretraining.settings import PretrainSettings
from rexbert_hf.pretraining.threads import usable_cores
from rexbert_hf.pretraining.unread import warn_of_unread
from rexbert_hf.settings import sole_run, to_dict
from rexbert_hf.training import CurriculumTrainer, NeighborDataset, Plan, resolve
from rexbert_hf.training.checkpoint import micro_batches_of
from rexbert_hf.training.collation import MASKINGS, check_maskings, register_masking
from rexbert_hf.training.compiling import prepare_layers
from rexbert_hf.training.cpu import tune_cpu
from rexbert_hf.training.heldout import accepts_flat
from rexbert_hf.training.languages import tokens_by_language
from rexbert_hf.training.resumable import STARTING_WEIGHTS

__all__ = ["finish", "make_arguments", "pretrain", "save_model"]

logger = logging.getLogger(__name__)


@sole_run()
def pretrain(
    settings: PretrainSettings,
    make_model: Callable[[PretrainSettings, PreTrainedTokenizerBase], PreTrainedModel] = load_model,
    make_trainer: Callable[..., CurriculumTrainer] = CurriculumTrainer,
    further: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run a pre-training recipe to its end, or on from where it stopped; a finished run is left as it is.

    Writes into `output_dir`: the model (RexBERT form with its code), its stock form in `modernbert/`, the tokenizer,
    `run.json`, the card and the loss plot, and checkpoints on the way.

    Args:
        settings: the recipe.
        make_model: makes the model from settings and tokenizer, where a recipe trains another head.
        make_trainer: makes the trainer, where a recipe evaluates or stops in its own way.
        further: results to record beside the run's own.

    Returns:
        The `results` of `run.json`: held-out masked accuracy before and after each phase, speed, packing.

    Raises:
        ValueError: for settings that contradict each other or the data; if the folder holds another run or a model.
        FileNotFoundError: for a missing file or checkpoint.
        OSError: if something cannot be written; the last checkpoint stays whole.
        NonFiniteLossError: if the loss or a gradient became NaN or infinite.
        TrainingInterrupted: after a signal, once a checkpoint is written.
    """
    start = time.perf_counter()
    output = Path(settings.output_dir)
    check_launcher()
    args = make_arguments(settings)
    if args.device.type == "cpu":
        tune_cpu()  # before torch starts its threads, which take the setting over
    check_processes(args.world_size, settings.trainer.num_processes)
    make_folder(output, settings.model.init_from or settings.model.grow_from)
    cache = with_home(settings.cache_dir) if settings.cache_dir else output / "cache"
    with args.main_process_first(desc="the tokenizer"):
        tokenizer = load_tokenizer(settings, cache)
    with args.main_process_first(desc="the model"):  # before the data: what is wrong with it shows at once
        model = _checked_model(make_model, settings, tokenizer)
    with args.main_process_first(desc="the data"):
        corpora = prepare(settings, tokenizer, cache, num_proc=usable_cores())
    if settings.trainer.gradient_checkpointing:
        _recompute_activations(model)
    compiled = prepare_layers(model, args.device, settings.trainer.torch_compile)
    stores = {name: corpus.train for name, corpus in corpora.items()}
    plan = resolve(settings.curriculum(), stores, args.world_size, micro_batches_of(output))
    associations = associations_of(settings, stores)
    with _masking_tables(settings, [stores[name] for name in plan.sources], tokenizer):
        trainer = make_trainer(
            model,
            args,
            plan,
            CurriculumDataset(plan.orders, stores)
            if associations is None
            else NeighborDataset(plan, stores, associations.contents),
            tokenizer,
            eval_dataset={name: corpus.held_out for name, corpus in corpora.items() if corpus.held_out is not None}
            or None,
            description=description(settings, corpora, tokenizer, compiled, associations) | starting_weights(settings),
        )
    results = finished_results(settings, trainer)
    if results is None:
        _report(settings, plan, stores, trainer)
        logger.info("%d steps in %d phases; ready in %.1f s", plan.total_steps, len(plan.phases), _since(start))
        trainer.train()
        results = measure(settings, trainer, plan, corpora, tokenizer)
        results |= {**trainer.further_results(), **(further or {})}
        if associations is not None:
            results["associations"] = associations.report
        # Of a run in several sittings only the last one's time is known: it would pass for the whole.
        results["seconds_of_this_start" if trainer.resumed_from_step else "seconds"] = round(_since(start), 1)
        if trainer.is_world_process_zero():
            finish(settings, trainer, tokenizer, corpora, results)
    else:
        logger.info("%s holds this run, finished: nothing to train", output)
    if trainer.is_world_process_zero():
        push(settings, results)
    return results


def associations_of(settings: PretrainSettings, stores: Mapping[str, TokenisedDataset]) -> Associations | None:
    """What neighbours are reconstructed from; None where no phase does.

    Args:
        settings: the recipe.
        stores: the prepared sources.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if no association of two products of the sources is left.
    """
    if not settings.needs_associations:
        return None
    assert settings.associations is not None
    return load_associations(settings.associations, stores, settings.data_dir)


def _checked_model(
    make_model: Callable[[PretrainSettings, PreTrainedTokenizerBase], PreTrainedModel],
    settings: PretrainSettings,
    tokenizer: PreTrainedTokenizerBase,
) -> PreTrainedModel:
    """The model; masking is looked at before it is loaded, and for padded batches once it is known to need them."""
    check_maskings(settings.phases, tokenizer)
    model = make_model(settings, tokenizer)
    if not accepts_flat(model):
        check_maskings(settings.phases, tokenizer, flat=False)
    return model


def _recompute_activations(model: PreTrainedModel) -> None:
    # transformers 5.23 renamed it; older versions have the first name only.
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()


def make_folder(output: Path, model: str | None = None) -> None:
    """Make the folder of a run, or take the one that a run of this recipe was stopped in.

    Args:
        output: the folder.
        model: folder or Hub id of the model that the run starts from.

    Raises:
        ValueError: if it holds another recipe's run, a model or checkpoints that are not of this recipe, or the model
            that the run starts from.
        OSError: if it cannot be made.
    """
    stopped = has_own_checkpoint(output)  # the last one is there before the model is
    check_own_folder(output, "phases", model=model, makes_model=stopped, checkpoints=True)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"output_dir {output} cannot be made ({error.strerror}): set another one") from error


def _since(start: float) -> float:
    return time.perf_counter() - start


def _report(
    settings: PretrainSettings, plan: Plan, stores: Mapping[str, TokenisedDataset], trainer: CurriculumTrainer
) -> None:
    """Say what a user would otherwise miss: settings not read, documents cut, that nothing will be evaluated."""
    if not trainer.is_world_process_zero():
        return
    warn_of_unread(settings)
    for phase in plan.phases:
        for name in phase.order.names:
            longer = int(np.count_nonzero(stores[name].lengths > phase.phase.seq_length))
            if longer:
                logger.info(
                    "phase %s: %d of %d documents of %s are longer than %d tokens and are cut into pieces",
                    phase.name,
                    longer,
                    len(stores[name]),
                    name,
                    phase.phase.seq_length,
                )
        if phase.languages:
            seen = tokens_by_language(phase.order, phase.languages)
            parts = (f"{code} {of['tokens']} tokens ({of['epochs']:.3g} epochs)" for code, of in seen.items())
            logger.info("phase %s: %s", phase.name, ", ".join(parts))
    if trainer.eval_dataset is None:
        logger.warning(
            "no document is held out: no masked accuracy will be measured; raise evaluation.held_out for one"
        )


@contextmanager
def _masking_tables(
    settings: PretrainSettings, stores: Sequence[TokenisedDataset], tokenizer: PreTrainedTokenizerBase
) -> Iterator[None]:
    """Guided masking with the inverse document frequencies of the training text, where the recipe asks for them."""
    if not settings.guides.idf or not settings.needs_guides:
        yield
        return
    rows = (batch for store in stores for batch in batches_of(store, 5_000_000))
    frequencies = InverseDocumentFrequency.fit(rows, len(tokenizer), tokenizer.all_special_ids)
    weights = frequencies.table
    plain = MASKINGS["guided"]

    def build(masking: Any, *rest: Any) -> GuidedMLMCollator:
        options = {**masking.options, "token_weights": weights}
        collator = plain(dataclasses.replace(masking, options=options), *rest)
        assert isinstance(collator, GuidedMLMCollator)
        return collator

    register_masking("guided", build)
    try:
        yield
    finally:
        register_masking("guided", plain)


def description(
    settings: PretrainSettings,
    corpora: Mapping[str, Corpus],
    tokenizer: PreTrainedTokenizerBase,
    compiled: bool,
    associations: Associations | None = None,
) -> dict[str, Any]:
    """What decides the weights beside the plan: a run's folder is resumed only if this is equal too.

    Args:
        settings: the recipe.
        corpora: what it is trained on.
        tokenizer: of the run.
        compiled: whether layers are compiled.
        associations: of phases with the objective "npr".
    """
    model = {f"model.{name}": value for name, value in to_dict(settings.model).items()}
    data = {f"data.{name}": corpus.report["fingerprint"] for name, corpus in corpora.items()}
    found = {**model, **data, "tokenizer": tokenizer_key(tokenizer), "guides.idf": settings.guides.idf}
    if associations is not None:
        found["associations"] = associations.report["fingerprint"]
    return found | ({"torch_compile": True} if compiled else {})


def starting_weights(settings: PretrainSettings) -> dict[str, str]:
    """Name of the weights that the model starts from: a folder keeps its own when what lies in it was made again.

    Args:
        settings: the recipe.

    Raises:
        FileNotFoundError: if there is no checkpoint at the path.
    """
    place = settings.model.init_from or settings.model.grow_from
    if place is None:
        return {}
    folder = resolve_model(place, settings.model.revision)
    files = {*folder.glob("*.safetensors")} - {*folder.glob(KEPT_STEPS)} or {*folder.glob("pytorch_model*.bin")}
    sums = [(file.name, checksum(file)) for file in sorted(files)]
    return {STARTING_WEIGHTS: hashlib.sha256(json.dumps(sums).encode()).hexdigest()[:16]}
