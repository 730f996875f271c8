"""A new encoder of a recipe: its configuration and its construction, with every refusal in one line."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoModelForMaskedLM, PretrainedConfig
from transformers.activations import ACT2FN

from rexbert_hf.hub.loading import first_line
from rexbert_hf.models import RexBertConfig, RexBertForMaskedLM
from rexbert_hf.pretraining.settings import PretrainSettings
from rexbert_hf.settings.memory import is_out_of_memory
from rexbert_hf.settings.tree import closest, one_line

_ALSO_KNOWN = ("global_rope_theta", "local_rope_theta", "global_attn_every_n_layers")
"""Fields of a configuration that become others."""
_MOST_CHARACTERS = 300


def check_overrides(overrides: Mapping[str, Any]) -> None:
    """Refuse names that a configuration does not have: it takes any and keeps it for nothing, so none would show.

    Args:
        overrides: of the recipe.

    Raises:
        ValueError: with the nearest name.
    """
    known = [*(field.name for field in dataclasses.fields(RexBertConfig)), *_ALSO_KNOWN]
    for name in overrides:
        if name not in known:
            near = closest(name, known)
            raise ValueError(
                f"model.overrides.{name}: the configuration of a RexBERT has no such field"
                + (f"; did you mean '{near}'?" if near else "; RexBertConfig lists them")
            )


def sized(settings: PretrainSettings, fields: Mapping[str, Any]) -> RexBertConfig:
    """The configuration of a new model.

    Args:
        settings: the recipe, with a size.
        fields: in place of those of the size.

    Raises:
        ValueError: if there can be no such model.
    """
    check_overrides(settings.model.overrides)
    assert settings.model.size is not None
    with _overriding():
        config = RexBertConfig.from_size(settings.model.size, **fields)
        for name in ("hidden_activation", "classifier_activation"):
            if getattr(config, name) not in ACT2FN:
                near = closest(str(getattr(config, name)), list(ACT2FN))
                raise ValueError(
                    f"{name}={getattr(config, name)!r} is no activation that transformers has"
                    + (f"; did you mean '{near}'?" if near else "; 'gelu' is ModernBERT's")
                )
    return config


def built(kind: type[RexBertForMaskedLM], config: RexBertConfig) -> RexBertForMaskedLM:
    """A new model.

    Args:
        kind: its class.
        config: what `sized` returned.

    Raises:
        ValueError: if it cannot be made.
    """
    with _overriding():
        return kind(config)


@contextmanager
def _overriding() -> Iterator[None]:
    """Turn what a configuration or a model raises for its values into one line, whole: the reason comes last."""
    try:
        yield
    except Exception as error:  # the strict configuration has exceptions of its own
        if is_out_of_memory(error):
            raise
        reason = one_line(error)[:_MOST_CHARACTERS]
        name = type(error).__name__
        kind = "" if reason and (isinstance(error, ValueError) or name.startswith("Strict")) else f"{name}: "
        raise ValueError(f"model.overrides: {kind}{reason}") from error


def check_attention(config: PretrainedConfig, implementation: str) -> None:
    """Refuse an attention back-end that is not installed, or that the model does not have.

    Args:
        config: of the model.
        implementation: `model.attn_implementation`.

    Raises:
        ValueError: for either.
    """
    try:
        with torch.device("meta"):
            AutoModelForMaskedLM.from_config(config, attn_implementation=implementation)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"model.attn_implementation: {implementation} cannot be used ({first_line(error)}): use sdpa"
        ) from error
