"""Position tables that begin behind the padding id: RoBERTa, XLM-R, CamemBERT, Longformer and their kin.

These models number the positions of a text from `pad_token_id + 1` on, so the table holds that many rows less than
`max_position_embeddings` says, and another padding id would read every position from another row.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForMaskedLM, PretrainedConfig, PreTrainedModel


def padded_table(model: nn.Module) -> tuple[nn.Module, nn.Embedding] | None:
    """The module with the position table that begins behind the padding id, and the table; None for other models.

    Args:
        model: of any architecture.

    Example:
        >>> padded_table(torch.nn.Linear(1, 1)) is None
        True
    """
    for module in model.modules():
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, nn.Embedding) and table.padding_idx is not None:
            return module, table
    return None


def longest_text(model: nn.Module) -> int | None:
    """Most tokens of a text that the model has positions for; None if its configuration names no limit.

    Args:
        model: of any architecture.

    Example:
        >>> from transformers import RobertaConfig, RobertaForMaskedLM
        >>> with torch.device("meta"):
        ...     longest_text(RobertaForMaskedLM(RobertaConfig(max_position_embeddings=514, num_hidden_layers=1)))
        512
    """
    limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if not isinstance(limit, int):
        return None
    found = padded_table(model)
    if found is None or found[1].padding_idx is None:
        return limit
    return found[1].num_embeddings - found[1].padding_idx - 1


def check_padding(model: PreTrainedModel, pad_id: int | None) -> None:
    """Refuse a padding id that the model's positions cannot begin behind.

    Args:
        model: of any architecture; it may lie on the meta device.
        pad_id: of the tokenizer that it is to go on with.

    Raises:
        ValueError: if the table ends before it, or the model takes one id for padding whatever its configuration says.
    """
    found = padded_table(model)
    if found is None or pad_id is None or found[1].padding_idx == pad_id:
        return
    rows, name = found[1].num_embeddings, type(model).__name__
    if pad_id > rows - 2:
        raise ValueError(
            f"tokenizer.path: its padding token has the id {pad_id}, and {name} counts positions from that id on, in a"
            f" table of {rows} rows: take a tokenizer whose padding id is at most {rows - 1} less seq_length (the"
            f" model's own is {found[1].padding_idx})"
        )
    config: Any = copy.deepcopy(model.config)
    config.pad_token_id, config.vocab_size = pad_id, max(config.vocab_size, pad_id + 1)
    with torch.device("meta"):
        again = padded_table(type(model)(config))
    if again is None or again[1].padding_idx != pad_id:
        raise ValueError(
            f"tokenizer.path: its padding token has the id {pad_id}, and {name} knows no other than"
            f" {found[1].padding_idx}: take a tokenizer with that one"
        )


def check_padding_of(config: PretrainedConfig, pad_id: int | None) -> None:
    """`check_padding` before there is a model.

    Args:
        config: of any architecture.
        pad_id: of the tokenizer that its model is to go on with.

    Raises:
        ValueError: likewise.
    """
    if config.model_type not in ("rexbert", "modernbert"):
        with torch.device("meta"):
            check_padding(AutoModelForMaskedLM.from_config(config), pad_id)


@torch.no_grad()
def move_positions(model: PreTrainedModel, pad_id: int | None) -> None:
    """Have the positions begin behind another padding id, each with the row that it had.

    Of a higher id the last positions are lost; of a lower one the last row stands for those that come to it.

    Args:
        model: that `check_padding` let through; changed in place.
        pad_id: the new padding id.
    """
    found = padded_table(model)
    if found is None or pad_id is None or found[1].padding_idx == pad_id:
        return
    module: Any = found[0]
    table = found[1]
    assert table.padding_idx is not None
    source = torch.arange(table.num_embeddings, device=table.weight.device) + table.padding_idx - pad_id
    table.weight.copy_(table.weight[source.clamp(0, table.num_embeddings - 1)])
    table.weight[: pad_id + 1] = 0
    table.padding_idx = pad_id
    if hasattr(module, "padding_idx"):
        module.padding_idx = pad_id
