"""All stages of a recipe looked at before the first one trains: a mistake in the last would show after days.

What a stage reads is prepared for it here too, since only the data say which languages they have; it lies in the cache
and is found again, so nothing is done twice.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForMaskedLM, PretrainedConfig, PreTrainedTokenizerBase

from rexbert_hf.hub.redaction import redact, redacted_alike
from rexbert_hf.hub.run_file import plain, portable
from rexbert_hf.models.padded_positions import check_padding_of, longest_text
from rexbert_hf.pretraining.arguments import make_arguments
from rexbert_hf.pretraining.corpora import prepare
from rexbert_hf.pretraining.encoder import load_tokenizer, open_tokenizer, set_grid, starting_config
from rexbert_hf.pretraining.processes import check_launcher, check_processes
from rexbert_hf.pretraining.run import associations_of, description, make_folder
from rexbert_hf.pretraining.settings import PretrainSettings
from rexbert_hf.pretraining.started import description_in
from rexbert_hf.pretraining.threads import usable_cores
from rexbert_hf.training import resolve
from rexbert_hf.training.checkpoint import micro_batches_of
from rexbert_hf.training.collation import check_maskings
from rexbert_hf.training.cpu import tune_cpu
from rexbert_hf.training.requirements import check_lengths
from rexbert_hf.training.resumable import STARTING_WEIGHTS, as_json, check_same_run


def check_stages(runs: Sequence[tuple[str, PretrainSettings]]) -> None:
    """Find what would stop a later stage: training arguments, tokenizer, grid, lengths, masking, data, plan, folder.

    Args:
        runs: names and recipes, in order; each but the first goes on from the folder of the one before.

    Raises:
        ValueError: with the name of the stage, and so the next two.
        FileNotFoundError: for a missing file or checkpoint.
        OSError: if there is no room for the tokens.
    """
    check_launcher()
    config: Any = None
    tokenizer: PreTrainedTokenizerBase | None = None
    longest: tuple[Any, str | None] | None = None
    for name, settings in runs:  # what costs nothing comes first, for all of them
        with _named(name):
            args = make_arguments(settings)
            if settings.tokenizer.path is not None:
                with args.main_process_first(desc="the tokenizer"):
                    open_tokenizer(settings.tokenizer.path)
            config = starting_config(settings) if config is None else config
            set_grid(config, settings.model.matryoshka, f"a model of the kind {config.model_type}")
            longest = longest or _longest(config)
            check_lengths(longest[0], settings.phases, args.eval_seq_length, longest[1])
    for name, settings in runs:
        with _named(name):
            tokenizer = _prepare(settings, tokenizer, config.model_type == "rexbert")
            if settings.tokenizer.path is not None or settings.tokenizer.train:
                check_padding_of(config, tokenizer.pad_token_id)
                longest = _longest(config, tokenizer.pad_token_id)
            if longest is not None and longest[1] is not None:
                seq_length = make_arguments(settings).eval_seq_length
                check_lengths(longest[0], settings.phases, seq_length, longest[1])


def _longest(config: PretrainedConfig, pad_id: int | None = None) -> tuple[Any, str | None]:
    """Most tokens of a text of a model that is not made yet, and what says so where its configuration does not.

    Args:
        config: of the model.
        pad_id: that its positions are moved to begin behind, of a tokenizer that `check_padding_of` let through.
    """
    named = getattr(config, "max_position_embeddings", None)
    if config.model_type in ("rexbert", "modernbert"):
        return named, None
    moved: Any = copy.deepcopy(config)
    if pad_id is not None:
        moved.pad_token_id, moved.vocab_size = pad_id, max(moved.vocab_size, pad_id + 1)
    try:
        with torch.device("meta"):
            model = AutoModelForMaskedLM.from_config(moved)
    except (ValueError, ImportError):  # loading it says what is wrong
        return named, None
    limit = longest_text(model)
    behind = f"the {limit} positions that {type(model).__name__} has behind its padding id"
    return limit, behind if limit != named else None


@contextmanager
def _named(stage: str) -> Iterator[None]:
    """Say in which stage something is wrong."""
    try:
        yield
    except (ValueError, OSError) as error:
        kind = next(kind for kind in (FileNotFoundError, OSError, ValueError) if isinstance(error, kind))
        raise kind(f"stage '{stage}': {error}") from error


def _prepare(settings: PretrainSettings, before: PreTrainedTokenizerBase | None, flat: bool) -> PreTrainedTokenizerBase:
    """Tokenizer, data and plan of a stage; without a tokenizer of its own it has that of the stage before."""
    args = make_arguments(settings)
    if args.device.type == "cpu":
        tune_cpu()  # as a run does, before torch starts its threads
    check_processes(args.world_size, settings.trainer.num_processes)
    output = Path(settings.output_dir)
    make_folder(output)
    cache = Path(settings.cache_dir) if settings.cache_dir else output / "cache"
    tokenizer = before
    if tokenizer is None or settings.tokenizer.path is not None or settings.tokenizer.train:
        with args.main_process_first(desc="the tokenizer"):
            tokenizer = load_tokenizer(settings, cache)
    check_maskings(settings.phases, tokenizer, flat)
    with args.main_process_first(desc="the data"):
        corpora = prepare(settings, tokenizer, cache, num_proc=usable_cores())
    stores = {name: corpus.train for name, corpus in corpora.items()}
    plan = resolve(settings.curriculum(), stores, args.world_size, micro_batches_of(output))
    associations = associations_of(settings, stores)
    own = description(settings, corpora, tokenizer, compiled=False, associations=associations)
    _check_folder(output, as_json(plan.description() | own))
    return tokenizer


def _check_folder(output: Path, now: Mapping[str, Any]) -> None:
    """Stop where the folder of a stage holds another run, as `output_dir` does where a stage was added at the end."""
    held = description_in(output)
    if held is not None:
        place, before = held
        parts = {key.partition(".")[0] for key in now}  # optimizer, precision and starting weights show later
        known = {key: value for key, value in before.items() if key.partition(".")[0] in parts}
        known.pop(STARTING_WEIGHTS, None)
        check_same_run(place, *redacted_alike(*(portable(redact(plain(one)), output) for one in (known, now))))
