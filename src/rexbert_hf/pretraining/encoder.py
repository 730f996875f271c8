"""The tokenizer and the model that a recipe asks for: new, grown, or continued from any masked-LM checkpoint."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import Dataset
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rexbert_hf.catalog import split_of
from rexbert_hf.data.languages import UNKNOWN, balanced_texts
from rexbert_hf.data.vocabulary import special_ids
from rexbert_hf.hub import read_run, resolve, resolve_model
from rexbert_hf.hub.loading import first_line, loading
from rexbert_hf.hub.pull import TOKENIZER_FILES
from rexbert_hf.models import RexBertConfig, RexBertForMaskedLM, RexBertForPreTraining
from rexbert_hf.models.matryoshka_rexbert import Grid
from rexbert_hf.models.vocabulary_transfer import transfer_vocabulary
from rexbert_hf.pretraining.languages import split_languages
from rexbert_hf.pretraining.new_encoder import built, check_attention, check_overrides, sized
from rexbert_hf.pretraining.settings import MatryoshkaSettings, PretrainSettings
from rexbert_hf.pretraining.sources import read_source, room, source_key, texts_of, working_folder

logger = logging.getLogger(__name__)

_OWN_TOKENIZER = ("*token*", "*vocab*", "merges.txt", "*.model")
"""Files that a checkpoint with a tokenizer has."""


def load_tokenizer(settings: PretrainSettings, cache_dir: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a run: the one named, the checkpoint's, or one trained on the sources (kept in `cache_dir`).

    Args:
        settings: the recipe.
        cache_dir: where a trained tokenizer is kept.

    Raises:
        FileNotFoundError: if there is none at the path.
        ValueError: if it has no mask token, or is a slow one.
    """
    place = settings.tokenizer.path or settings.model.init_from or settings.model.grow_from
    if place is None or settings.tokenizer.train:
        return _trained(settings, cache_dir)
    return open_tokenizer(place, settings.model.revision if settings.tokenizer.path is None else None)


def open_tokenizer(place: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """A tokenizer that a masked-LM model can be trained with.

    Args:
        place: folder or Hub id.
        revision: on the Hub.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it has no mask token, is a slow one, or cannot be loaded.
    """
    tokenizer = _load(place, revision)
    if tokenizer.mask_token_id is None:
        raise ValueError(f"the tokenizer {place} has no mask token: add one, or use the tokenizer of a masked-LM model")
    if not tokenizer.is_fast:
        raise ValueError(f"the tokenizer {place} is a slow one: convert it to a fast tokenizer (tokenizer.json)")
    return tokenizer


def _load(place: str, revision: str | None) -> PreTrainedTokenizerBase:
    folder = resolve(place, revision=revision, allow_patterns=TOKENIZER_FILES)
    with loading("tokenizer", place, "set tokenizer.path to one"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return tokenizer


def _trained(settings: PretrainSettings, cache_dir: Path) -> PreTrainedTokenizerBase:
    from rexbert_hf.data.vocabulary import train_tokenizer

    keys = [source_key(source, settings.data_dir) for source in settings.sources.values()]
    chosen = settings.tokenizer
    parts: list[Any] = [keys, chosen.vocab_size, chosen.max_documents, settings.evaluation.held_out]
    if chosen.temperature is not None:
        parts.append(chosen.temperature)
    identity = json.dumps(parts)
    folder = cache_dir / f"tokenizer-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    if (found := made_before(folder)) is not None:
        return found
    logger.info("training a tokenizer of %d tokens on the sources", chosen.vocab_size)
    with room("no room for the tokenizer and its text", cache_dir), working_folder(cache_dir) as work:
        tokenizer = train_tokenizer(_texts(settings, work), chosen.vocab_size)
        tokenizer.save_pretrained(work / "tokenizer")
        try:
            (work / "tokenizer").rename(folder)
        except OSError:  # another run was faster with the same one
            if not (folder / "tokenizer.json").exists():
                raise
    return _load(str(folder), None)


def made_before(folder: Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer that an earlier run made; None if there is none, or none that can be loaded: that one is removed.

    Args:
        folder: that this package writes and may remove.
    """
    if not folder.exists():
        return None
    try:
        if (folder / "tokenizer.json").exists():
            return _load(str(folder), None)
        reason = "no tokenizer.json"
    except ValueError as error:
        reason = first_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)
    logger.warning("%s cannot be read (%s): the tokenizer is made again", folder, reason)
    shutil.rmtree(folder)
    return None


def _texts(settings: PretrainSettings, work_dir: Path) -> Iterator[str]:
    """Documents of all sources that are not held out, spread evenly over each source, or weighed by language."""
    temperature = settings.tokenizer.temperature
    if temperature is None:
        for _, texts in _texts_by_language(settings, work_dir):
            yield from texts
        return
    found: dict[str, list[str]] = {}
    for code, texts in _texts_by_language(settings, work_dir):
        found.setdefault(code, []).extend(texts)
    yield from balanced_texts(found, temperature)


def _texts_by_language(settings: PretrainSettings, work_dir: Path) -> Iterator[tuple[str, Iterator[str]]]:
    """Language and documents of each source, of a source in several languages one after the other."""
    most = settings.tokenizer.max_documents
    for name, source in settings.sources.items():
        place = work_dir / name
        place.mkdir()
        dataset = read_source(source, settings.data_dir, work_dir=place)
        by_language = source.splits_languages and settings.tokenizer.temperature is not None
        parts = split_languages(name, source, dataset) if by_language else {source.language or UNKNOWN: dataset}
        for code, part in parts.items():
            count = min(most, len(part))
            # No generator: `datasets` cannot hash one for its cache, and says so in three lines.
            chosen = part.select([number * len(part) // count for number in range(count)])
            yield code, _on_training_side(chosen, settings.held_out)


def _on_training_side(documents: Dataset, held_out: float) -> Iterator[str]:
    return (text for text in texts_of(documents) if split_of(text, held_out) == "train")


def load_model(settings: PretrainSettings, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The model of a run, its vocabulary checked against the tokenizer's.

    A stock ModernBERT checkpoint becomes a RexBERT; other architectures stay what they are and train on padded batches.

    Args:
        settings: the recipe.
        tokenizer: of the run.

    Raises:
        FileNotFoundError: if there is no checkpoint at the path.
        ValueError: if the tokenizer has more tokens than the checkpoint's embedding has rows, or there can be no such
            model, or not with its `attn_implementation`.
    """
    if settings.model.attn_implementation:
        check_attention(starting_config(settings), settings.model.attn_implementation)
    torch.manual_seed(settings.seed)
    model = _new(settings, tokenizer) if settings.model.init_from is None else _continued(settings, tokenizer)
    _set_grid(settings, model)
    # Tied weights are stored once: naming them keeps a resumed run from reporting the copies as missing.
    model._keys_to_ignore_on_save = set(model.all_tied_weights_keys) or None
    return model


def _continued(settings: PretrainSettings, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    wanted = settings.model
    assert wanted.init_from is not None
    # Half-precision checkpoints become float32: the optimizer's small steps vanish in bfloat16 weights.
    options: dict[str, Any] = {"dtype": torch.float32, "trust_remote_code": False}
    if wanted.attn_implementation:
        options["attn_implementation"] = wanted.attn_implementation
    folder = resolve_model(wanted.init_from, wanted.revision)
    with loading("masked-LM model", wanted.init_from, "set model.init_from to a complete masked-LM checkpoint"):
        kind = AutoConfig.from_pretrained(folder, trust_remote_code=False).model_type
        if kind in ("rexbert", "modernbert"):
            del options["trust_remote_code"]
            model: PreTrainedModel = _model_class(settings).from_pretrained(folder, **options)
        else:
            model = AutoModelForMaskedLM.from_pretrained(folder, **options)
    if settings.tokenizer.path is not None or settings.tokenizer.train:
        _change_vocabulary(model, wanted.init_from, folder, tokenizer)
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, torch.nn.Embedding)
    rows = embedding.num_embeddings
    if len(tokenizer) > rows:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens, the embedding of {wanted.init_from} {rows} rows: use the"
            " checkpoint's own tokenizer, or resize its embeddings first"
        )
    _warn_of_second_warmup(settings, folder)
    return model


def _change_vocabulary(model: PreTrainedModel, name: str, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Move a checkpoint to the tokenizer that the recipe names, where that is not the checkpoint's own."""
    if not any(file.is_file() for pattern in _OWN_TOKENIZER for file in folder.glob(pattern)):
        logger.warning("%s has no tokenizer of its own: its rows are taken for those of the run's", folder)
        return
    # One that is there but cannot be read is not passed over: which row is whose would be a guess.
    with loading("tokenizer", name, "take its files again, or remove them if it has the run's"):
        own = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if own.get_vocab() == tokenizer.get_vocab():
        return
    found = transfer_vocabulary(model, own, tokenizer)
    logger.info(
        "the vocabulary changes from %d to %d tokens: %d keep their rows, %d start from their pieces, %d from the mean",
        len(own),
        len(tokenizer),
        found.kept,
        found.composed,
        found.unknown,
    )


def starting_config(settings: PretrainSettings) -> PretrainedConfig:
    """Configuration of the model that a run starts from, as it is before the recipe's grid.

    Args:
        settings: the recipe.

    Raises:
        ValueError: if there is no configuration, or a new model cannot have it.
        FileNotFoundError: if there is no checkpoint at the path.
    """
    wanted = settings.model
    if wanted.init_from is None:
        return sized(settings, {"max_position_embeddings": positions_for(settings), **wanted.overrides})
    folder = resolve_model(wanted.init_from, wanted.revision)
    with loading("model", wanted.init_from, "set model.init_from to a complete checkpoint"):
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        ours = config.model_type in ("rexbert", "modernbert")
        return RexBertConfig.from_pretrained(folder) if ours else config


def positions_for(settings: PretrainSettings) -> int:
    """Tokens of the longest input that a new model is made for, unless the recipe's `model.overrides` say it."""
    return max(8192, *(phase.seq_length for phase in settings.phases))


def _set_grid(settings: PretrainSettings, model: PreTrainedModel) -> None:
    """Have the model train the recipe's grid of sub-models; without one that of its checkpoint, unless it is off."""
    wanted = settings.model.matryoshka
    config: Any = model.config if isinstance(model, RexBertForMaskedLM) else None
    grid = set_grid(config, wanted, type(model).__name__)
    if grid is not None and wanted is None:
        cells = ", ".join(f"{layers}x{dim}" for layers, dim in grid.cells)
        logger.info(
            "%s brings a grid of sub-models, which is trained on: %s (--model.matryoshka off trains the whole model"
            " only)",
            settings.model.init_from or "the configuration",
            cells,
        )


def set_grid(config: Any, wanted: MatryoshkaSettings | Literal["off"] | None, name: str) -> Grid | None:
    """Write a recipe's grid into a configuration; the grid that it then has.

    Args:
        config: of a RexBERT; any other has no sub-models.
        wanted: what the recipe says.
        name: of the model, in messages.

    Raises:
        ValueError: for another architecture, cells that the model does not have, or a grid without the whole model.
    """
    if not isinstance(config, RexBertConfig):
        if isinstance(wanted, MatryoshkaSettings):
            raise ValueError(f"model.matryoshka: {name} has no sub-models: start from a RexBERT or ModernBERT")
        return None
    if wanted == "off":
        config.leave_matryoshka()
        return None
    for field, value in wanted.fields().items() if wanted is not None else ():
        setattr(config, field, value)
    if wanted is not None:
        config.truncate_dim = None  # of a base that was cut: its cells say now what may be read
    try:
        config.check_matryoshka()
        grid = Grid.of(config)
    except ValueError as error:
        raise ValueError(f"model.matryoshka: {error}") from None
    if grid is None and wanted is not None:
        raise ValueError("model.matryoshka: name layers, dims or cells")
    config.matryoshka_stale = False
    return grid


def _model_class(settings: PretrainSettings) -> type[RexBertForMaskedLM]:
    """The class that computes all losses of the run; weights are the same for both."""
    return RexBertForPreTraining if settings.needs_associations else RexBertForMaskedLM


def _warn_of_second_warmup(settings: PretrainSettings, folder: Path) -> None:
    """Warming up again from a checkpoint whose rate had decayed undoes part of what the decay won."""
    first = settings.phases[0]
    try:
        last = read_run(folder)["config"]["phases"][-1]
        schedule = last["schedule"]
        flat = schedule["name"] == "constant" or (
            schedule["name"] == "warmup_stable_decay" and not schedule["decay_tokens"]
        )
        end = last["learning_rate"] * (1.0 if flat else schedule["alpha_f"])
    except (FileNotFoundError, ValueError, KeyError, IndexError, TypeError):
        return  # not a run of ours
    if first.schedule.warmup_tokens and not flat and first.learning_rate > end:
        logger.warning(
            "%s ended its run at a learning rate of %.2g; phase '%s' warms up to %.2g again, which undoes part of the"
            " decay: continue from a checkpoint before the decay, or set schedule.warmup_tokens to 0",
            settings.model.init_from,
            end,
            first.name,
            first.learning_rate,
        )


def _new(settings: PretrainSettings, tokenizer: PreTrainedTokenizerBase) -> RexBertForMaskedLM:
    check_overrides(settings.model.overrides)
    small = None
    if settings.model.grow_from is not None:
        folder = resolve_model(settings.model.grow_from)
        with loading("RexBERT", settings.model.grow_from, "set model.grow_from to a complete checkpoint"):
            small = RexBertForMaskedLM.from_pretrained(folder, dtype=torch.float32)
        if settings.tokenizer.path is not None or settings.tokenizer.train:
            _change_vocabulary(small, settings.model.grow_from, folder, tokenizer)
    fields: dict[str, Any] = {
        "vocab_size": small.config.vocab_size if small is not None else -(-len(tokenizer) // 64) * 64,
        "max_position_embeddings": positions_for(settings),
        **special_ids(tokenizer),
        **settings.model.overrides,
    }
    if fields["vocab_size"] < len(tokenizer):
        raise ValueError(
            f"the vocab_size of the model is {fields['vocab_size']}, smaller than the tokenizer's {len(tokenizer)}"
            " tokens: raise model.overrides.vocab_size, or use the tokenizer of model.grow_from"
        )
    config = sized(settings, fields)
    if small is not None:
        from rexbert_hf.models.growth import grow

        model = built(_model_class(settings), config)
        model.load_state_dict(grow(small, config).state_dict())
    else:
        model = built(_model_class(settings), config)
    if settings.model.attn_implementation:
        model.set_attn_implementation(settings.model.attn_implementation)
    return model
