"""Compile the encoder's feed-forward blocks, if this machine can; else one line says why it goes on without.

The blocks depend on the number of tokens alone, so one compilation with free shapes serves the whole run. Attention
depends on the documents of the batch: compiled, it is compiled again until torch's limit is reached. On an accelerator
its rotation, the softmax of the head (on CPU both have code of their own) and residual sums with the norms after them
are fused too.
"""

from __future__ import annotations

import logging

import torch
from transformers import PreTrainedModel

from rexbert_hf.models.fused_rexbert import fuse

logger = logging.getLogger(__name__)


def prepare_layers(model: PreTrainedModel, device: torch.device, wanted: bool) -> bool:
    """Compile what a run asks for, and nothing that an earlier run of this process asked for.

    Args:
        model: as in `compile_layers`.
        device: likewise.
        wanted: whether to compile.

    Returns:
        Whether anything is compiled.
    """
    fuse(False)
    return wanted and compile_layers(model, device)


def compile_layers(model: PreTrainedModel, device: torch.device) -> bool:
    """Compile the feed-forward block of each layer in place (the layer itself where it has no such block).

    A small function is compiled first: a missing C++ compiler or Triton shows there, and not in the first step.

    Args:
        model: its parameter names stay as they are.
        device: where it will run.

    Returns:
        Whether anything is compiled.
    """
    base = model.base_model
    layers = getattr(base, "layers", None) or getattr(getattr(base, "encoder", None), "layer", None)
    if layers is None:
        logger.warning("torch_compile: %s has no list of layers to compile: goes on without", type(model).__name__)
        return False
    try:
        torch.compile(lambda x: torch.sin(x) + x)(torch.ones(8, device=device))
    except Exception as error:  # of many kinds: whatever the compiler lacks
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        logger.warning("torch_compile: nothing can be compiled here (%s): goes on without", reason)
        return False
    for layer in layers:
        getattr(layer, "mlp", layer).compile(dynamic=True)
    if device.type != "cpu":
        fuse()
    return True
