"""An encoder with a new head: loaded so that nothing but the head is drawn, or refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedTokenizerBase
from transformers.utils import logging

from rexbert_hf.evaluation.fine_tuning_heads import SequenceHead

_ATTENTION_DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout")
"""Set to 0: with it, attention leaves the fast kernels of the CPU. Dropout of the hidden states stays."""


def load_head_model(
    folder: Path, head: SequenceHead, tokenizer: PreTrainedTokenizerBase, pooling: str | None = None
) -> nn.Module:
    """Load an encoder with a head of drawn weights.

    Args:
        folder: of any encoder or masked-LM model.
        head: which one.
        tokenizer: of it.
        pooling: "cls" or "mean" where the architecture leaves the choice.

    Raises:
        ValueError: if the architecture has no such head or choice, weights of the encoder are missing, or there is no
            padding token.
    """
    fields = {**head.config(), "dtype": torch.float32}
    try:
        config = AutoConfig.from_pretrained(folder)
        fields |= {name: 0.0 for name in _ATTENTION_DROPOUTS if hasattr(config, name)}
        if pooling is not None:
            if not hasattr(config, "classifier_pooling") or pooling not in ("cls", "mean"):
                raise ValueError(f"{config.model_type} pools in its own way: leave pooling={pooling!r} out")
            fields["classifier_pooling"] = pooling
        with quiet_loading():
            model, report = head.auto.from_pretrained(folder, output_loading_info=True, **fields)
    except Exception as error:  # transformers raises what it likes
        raise ValueError(f"{folder}: no {head.name} head for it ({first_line(error)})") from error
    missing = missing_weights(model, report)
    if missing:
        raise ValueError(f"{folder}: {len(missing)} weights of the encoder are missing, {missing[0]} among them")
    if tokenizer.pad_token_id is None:
        raise ValueError(f"{folder}: its tokenizer has no padding token")
    found: nn.Module = model
    return found


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Without transformers' report on weights that a new head lacks, which `missing_weights` checks instead."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def missing_weights(model: Any, report: dict[str, Any], but: str = r"pooler\.") -> list[str]:
    """Names of the encoder's own weights that the checkpoint lacked and transformers drew.

    Args:
        model: with an encoder of the name `base_model_prefix`.
        report: of `from_pretrained(output_loading_info=True)`.
        but: pattern of weights that may be missing: a pooler belongs to the head.
    """
    prefix = f"{model.base_model_prefix}."
    names = sorted(name for name in report["missing_keys"] if name.startswith(prefix))
    return [name for name in names if not re.match(but, name[len(prefix) :])]


def first_line(error: Exception) -> str:
    """The first line of a message, or the kind of error where there is none.

    Args:
        error: any.
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
