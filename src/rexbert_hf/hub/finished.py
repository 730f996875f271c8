"""Whether a folder holds a finished model: its run file can be read, and its weights are whole.

A start that takes a folder for finished does nothing, so what was damaged after the end would stay so for ever.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rexbert_hf.hub.module_folders import module_folders
from rexbert_hf.hub.run_file import read_run

logger = logging.getLogger(__name__)

_STOCK = "modernbert"
_INDEX = "model.safetensors.index.json"
_OF_WEIGHTS = ("model_type", "in_features")
"""Keys of a `config.json` beside which weights lie: a transformer's, and a dense layer's."""


def run_of_finished(folder: Path) -> dict[str, Any] | None:
    """The `run.json` of a finished folder; None, with a warning, if it says nothing that a start can go by.

    Args:
        folder: with a `run.json`.
    """
    try:
        run = read_run(folder)
    except ValueError as error:
        logger.warning("%s: the result is written again", error)
        return None
    if not isinstance(run.get("results"), dict) or not isinstance(run.get("config"), dict):
        logger.warning("%s has no config or no results: the result is written again", folder / "run.json")
        return None
    return run


def weights_are_whole(folder: Path) -> bool:
    """Whether the weights of a finished folder are there and as long as their headers say; else a warning says which.

    Args:
        folder: of a model, or of a sentence-transformers one with its modules below; its stock form counts too.
    """
    from safetensors import safe_open

    found = False
    try:
        for place in _places(folder):
            for file in _weights(place):
                found = True
                with safe_open(file, framework="numpy"):
                    pass
    except Exception as error:  # safetensors has an exception of its own
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        logger.warning("%s: weights cannot be read (%s): the result is written again", folder, reason)
        return False
    return found


def _places(folder: Path) -> Iterator[Path]:
    """The folder, its modules', and those of its stock form; not those of checkpoints and of other runs within it."""
    for root in (folder, folder / _STOCK):
        if root.is_dir():
            yield from (root / name for name in ("", *module_folders(root)))


def _weights(place: Path) -> list[Path]:
    """All files of weights that are in a folder, or should be."""
    files = set(place.glob("model*.safetensors"))
    if (place / _INDEX).is_file():
        wanted = set(json.loads((place / _INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        files |= {place / name for name in wanted}
    elif (place / "config.json").is_file():
        config = json.loads((place / "config.json").read_text(encoding="utf-8"))
        if any(key in config for key in _OF_WEIGHTS):
            files.add(place / "model.safetensors")
    return sorted(files)
