"""Whose folder it is: a recipe goes on in its own, and never writes over another run or over a model.

A run is known by one key of the configuration in its `run.json` that only its recipe has: other keys come and go with
versions.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rexbert_hf.hub.json_file import read_json_object
from rexbert_hf.hub.run_file import KEPT_STEPS, RUN_FILE

_OF_A_MODEL = (
    *("config.json", "modules.json", "adapter_config.json", "model*.safetensors", "adapter*.safetensors"),
    *("pytorch_model*.bin", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "tokenizer.model", "spiece.model"),
)
"""Names of a model or tokenizer, of this package or of any other."""
MARKER = "checkpoint_complete.json"
"""The file that makes a folder a checkpoint of this package; no other trainer writes it."""
_CHECKPOINT = re.compile(r"checkpoint-\d+")
_WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".distcp"})
"""Endings of files of weights, or of an optimizer's state, as trainers write them."""


def has_own_checkpoint(folder: str | os.PathLike[str]) -> bool:
    """Whether a run of this package left a checkpoint in a folder; one that is torn has its marker too.

    Args:
        folder: of a run; it may be missing.
    """
    return any(Path(folder).glob(f"checkpoint-*/{MARKER}"))


def check_own_folder(
    folder: str | os.PathLike[str],
    key: str,
    *,
    model: str | None = None,
    makes_model: bool = False,
    writes: Sequence[str] = (),
    checkpoints: bool = False,
) -> None:
    """Refuse a folder that holds another recipe's run, the model it reads, or a model or checkpoints of somebody else.

    A recipe that writes a model, and is stopped between two files, leaves a sign that they are its own: a `run.json`
    that was written before them, or something else by which the caller knows.

    Args:
        folder: `output_dir`; it may be missing.
        key: of the recipe's configuration, which no other recipe has.
        model: folder or Hub id of a model that the recipe reads and must not write over.
        makes_model: whether a model without `run.json` may be the recipe's own, as a sign of it is there.
        writes: names of a model's files that may be, where others may not.
        checkpoints: whether the recipe writes checkpoints, so that those of another trainer may not be there.

    Raises:
        ValueError: if nothing may be written there; a damaged `run.json` is named.

    Example:
        >>> import tempfile
        >>> from rexbert_hf.hub import write_run
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = write_run(folder, config={"phases": []}, results={})
        >>> check_own_folder(folder, "phases")
        >>> check_own_folder(folder, "ratio")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: ... holds another run: choose another output_dir
    """
    place = Path(folder)
    if model is not None and Path(model).is_dir() and place.is_dir() and os.path.samefile(model, place):
        raise ValueError(f"{place} is the folder of the model itself: choose another output_dir")
    config, damage = None, ""
    if (place / RUN_FILE).is_file():
        way_out = "restore it, or choose another output_dir"
        try:
            config = read_json_object(place / RUN_FILE, way_out, ("config",))["config"]
        except ValueError as error:
            damage = str(error)  # it says nothing of whose the rest is
    if isinstance(config, Mapping) and config:
        if key not in config:
            raise ValueError(f"{place} holds another run: choose another output_dir")
        return
    found = {path.name for name in _OF_A_MODEL for path in place.glob(name)} - {*writes}
    found -= {path.name for path in place.glob(KEPT_STEPS)}
    if found and not makes_model and damage:
        raise ValueError(f"{place} holds a model ({min(found)}) and nothing says whose it is: {damage}")
    if found and not makes_model:
        raise ValueError(
            f"{place} holds a model that this recipe did not make ({min(found)}): choose another output_dir"
        )
    if checkpoints and (theirs := _checkpoint_of_others(place)):
        raise ValueError(
            f"{place} holds a checkpoint that this recipe did not write ({theirs} has no {MARKER}): choose another"
            " output_dir, or move it away"
        )


def _checkpoint_of_others(place: Path) -> str | None:
    """Name of a checkpoint with weights, in a folder where none has the marker of this package; None without one."""
    if has_own_checkpoint(place):
        return None  # the marker of the others was lost: a run passes over them, and never deletes one
    folders = sorted(path for path in place.glob("checkpoint-*") if _CHECKPOINT.fullmatch(path.name))
    inside = ((folder.name, path) for folder in folders for path in folder.rglob("*"))
    return next((name for name, path in inside if path.suffix in _WEIGHTS), None)
