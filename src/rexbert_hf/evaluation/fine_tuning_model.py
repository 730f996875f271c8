"""An encoder with a new head: loaded so that nothing but the head is drawn, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

from rexbert_hf.evaluation.fine_tuning_heads import SequenceHead
from rexbert_hf.evaluation.task import ModelUnfit
from rexbert_hf.models import use_onednn
from rexbert_hf.settings.tree import one_line

POOLER_DRAWN = "a model came without weights of its pooler: they were drawn like the head's"

_ATTENTION_DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout")
"""Set to 0: with it, attention leaves the fast kernels of the CPU. Dropout of the hidden states stays."""


def load_head_model(
    folder: Path, head: SequenceHead, tokenizer: PreTrainedTokenizerBase, pooling: str | None = None
) -> tuple[nn.Module, tuple[str, ...]]:
    """Load an encoder with a head of drawn weights, and what a reader must know of what was drawn.

    Args:
        folder: of any encoder or masked-LM model.
        head: which one.
        tokenizer: of it.
        pooling: "cls" or "mean" where the architecture leaves the choice.

    Raises:
        ModelUnfit: if the architecture has no such head or choice, or there is no padding token.
        ValueError: if weights of the encoder are missing.
    """
    config = read_config(folder)
    fields = {**head.config(), **{name: 0.0 for name in _ATTENTION_DROPOUTS if hasattr(config, name)}}
    if pooling is not None:
        if not hasattr(config, "classifier_pooling") or pooling not in ("cls", "mean"):
            raise ModelUnfit(f"{config.model_type} pools in its own way: leave pooling={pooling!r} out")
        fields["classifier_pooling"] = pooling
    if tokenizer.pad_token_id is None:
        raise ModelUnfit(f"{folder}: its tokenizer has no padding token")
    model, report = load_as(head.auto, folder, config, **fields)
    missing, pooler = missing_weights(model, report)
    if missing:
        raise ValueError(f"{folder}: {len(missing)} weights of the encoder are missing, {missing[0]} among them")
    use_onednn(model)
    return model, (POOLER_DRAWN,) if pooler else ()


def read_config(folder: Path) -> Any:
    """Configuration of a model.

    Args:
        folder: of it.

    Raises:
        ValueError: if it cannot be loaded.
    """
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers raises what it likes
        raise ValueError(f"{folder}: cannot be loaded ({first_line(error)})") from error


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Tokenizer of a model.

    Args:
        folder: of it.

    Raises:
        ValueError: if it cannot be loaded.
    """
    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers raises what it likes
        raise ValueError(f"{folder}: its tokenizer cannot be loaded ({one_line(error)})") from error
    return found


def load_as(auto: Any, folder: Path, config: Any, **fields: Any) -> tuple[Any, dict[str, Any]]:
    """A model in float32, and transformers' report on the weights that it lacked.

    Args:
        auto: an `AutoModelFor...` class.
        folder: of the model.
        config: of it.
        fields: of the configuration, changed.

    Raises:
        ModelUnfit: if the architecture has no such head.
        ValueError: if it cannot be loaded.
    """
    if type(config) not in auto._model_mapping:
        raise ModelUnfit(f"{folder}: transformers has no {auto.__name__} of the type {config.model_type}")
    try:
        with quiet_loading():
            options = {"dtype": torch.float32, "output_loading_info": True, "trust_remote_code": False}
            model, report = auto.from_pretrained(folder, **options, **fields)
    except Exception as error:  # transformers raises what it likes
        raise ValueError(f"{folder}: cannot be loaded ({first_line(error)})") from error
    return model, report


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Without transformers' report on weights that a new head lacks, which `missing_weights` checks instead."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def missing_weights(model: Any, report: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Names of the encoder's own weights that the checkpoint lacked and transformers drew, and of its pooler's.

    A pooler belongs to the head: masked-LM checkpoints have none, and it may be drawn.

    Args:
        model: with an encoder of the name `base_model_prefix`.
        report: of `from_pretrained(output_loading_info=True)`.
    """
    prefix = f"{model.base_model_prefix}."
    names = sorted(name for name in report["missing_keys"] if name.startswith(prefix))
    pooler = [name for name in names if name.startswith(f"{prefix}pooler.")]
    return [name for name in names if name not in pooler], pooler


def first_line(error: Exception) -> str:
    """The first line of a message, or the kind of error where there is none.

    Args:
        error: any.
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
