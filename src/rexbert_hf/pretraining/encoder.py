"""The tokenizer and the model that a recipe asks for: new, grown, or continued from any masked-LM checkpoint."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from rexbert_hf.hub import resolve
from rexbert_hf.models import RexBertConfig, RexBertForMaskedLM
from rexbert_hf.pretraining.corpora import read_source, source_key
from rexbert_hf.pretraining.settings import PretrainSettings

logger = logging.getLogger(__name__)


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
    if place is None:
        tokenizer = _trained(settings, cache_dir)
    else:
        revision = settings.model.revision if settings.tokenizer.path is None else None
        tokenizer = _load(place, revision)
    if tokenizer.mask_token_id is None:
        raise ValueError(f"the tokenizer {place} has no mask token: add one, or use the tokenizer of a masked-LM model")
    if not tokenizer.is_fast:
        raise ValueError(f"the tokenizer {place} is a slow one: convert it to a fast tokenizer (tokenizer.json)")
    return tokenizer


def _load(place: str, revision: str | None) -> PreTrainedTokenizerBase:
    folder = resolve(place, revision=revision, allow_patterns=["*.json", "*.txt", "*.model", "*.jinja"])
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ValueError(f"{place}: no tokenizer can be loaded from it ({error}); set tokenizer.path") from error
    return tokenizer


def _trained(settings: PretrainSettings, cache_dir: Path) -> PreTrainedTokenizerBase:
    from rexbert_hf.data.vocabulary import train_tokenizer

    keys = [source_key(source, settings.data_dir) for source in settings.sources.values()]
    identity = json.dumps([keys, settings.tokenizer.vocab_size, settings.tokenizer.max_documents])
    folder = cache_dir / f"tokenizer-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    if not (folder / "tokenizer.json").exists():
        logger.info("training a tokenizer of %d tokens on the sources", settings.tokenizer.vocab_size)
        tokenizer = train_tokenizer(_texts(settings), settings.tokenizer.vocab_size)
        staging = folder.with_name(folder.name + ".staging")
        tokenizer.save_pretrained(staging)
        staging.rename(folder)
    return _load(str(folder), None)


def _texts(settings: PretrainSettings) -> Iterator[str]:
    """Documents of all sources, spread evenly over each."""
    for source in settings.sources.values():
        texts = read_source(source, settings.data_dir)["text"]
        stride = max(1, len(texts) // settings.tokenizer.max_documents)
        yield from texts[::stride][: settings.tokenizer.max_documents]


def load_model(settings: PretrainSettings, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The model of a run, its vocabulary checked against the tokenizer's.

    A stock ModernBERT checkpoint becomes a RexBERT; other architectures stay what they are and train on padded batches.

    Args:
        settings: the recipe.
        tokenizer: of the run.

    Raises:
        FileNotFoundError: if there is no checkpoint at the path.
        ValueError: if the tokenizer has more tokens than the checkpoint's embedding has rows.
    """
    wanted = settings.model
    options: dict[str, Any] = {}
    if wanted.attn_implementation:
        options["attn_implementation"] = wanted.attn_implementation
    if wanted.init_from is None:
        model = _new(settings, tokenizer)
        if wanted.attn_implementation:
            model.set_attn_implementation(wanted.attn_implementation)
        return model
    folder = resolve(wanted.init_from, revision=wanted.revision)
    kind = AutoConfig.from_pretrained(folder).model_type
    loader = RexBertForMaskedLM if kind in ("rexbert", "modernbert") else AutoModelForMaskedLM
    continued: PreTrainedModel = loader.from_pretrained(folder, **options)
    embedding = continued.get_input_embeddings()
    assert isinstance(embedding, torch.nn.Embedding)
    rows = embedding.num_embeddings
    if len(tokenizer) > rows:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens, the embedding of {wanted.init_from} {rows} rows: use the"
            " checkpoint's own tokenizer, or resize its embeddings first"
        )
    return continued


def _new(settings: PretrainSettings, tokenizer: PreTrainedTokenizerBase) -> RexBertForMaskedLM:
    torch.manual_seed(settings.seed)
    names = ("pad", "cls", "sep", "bos", "eos")
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in names}
    ids["bos_token_id"] = ids["cls_token_id"] if ids["bos_token_id"] is None else ids["bos_token_id"]
    ids["eos_token_id"] = ids["sep_token_id"] if ids["eos_token_id"] is None else ids["eos_token_id"]
    longest = max(phase.seq_length for phase in settings.phases)
    fields: dict[str, Any] = {
        "vocab_size": -(-len(tokenizer) // 64) * 64,
        "max_position_embeddings": max(8192, longest),
        **ids,
        **settings.model.overrides,
    }
    if fields["vocab_size"] < len(tokenizer):
        raise ValueError(
            f"model.overrides.vocab_size={fields['vocab_size']} is smaller than the tokenizer's {len(tokenizer)} tokens"
        )
    config = RexBertConfig.from_size(settings.model.size, **fields)
    if settings.model.grow_from is None:
        return RexBertForMaskedLM(config)
    from rexbert_hf.models.growth import grow

    small = RexBertForMaskedLM.from_pretrained(resolve(settings.model.grow_from))
    return grow(small, config)
