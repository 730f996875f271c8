"""Whose folder it is: a recipe goes on in its own, and never writes over another run or over a model.

A run is known by one key of the configuration in its `run.json` that only its recipe has: other keys come and go with
versions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from rexbert_hf.hub.run_file import RUN_FILE, read_run

_OF_A_MODEL = ("config.json", "modules.json", "model*.safetensors")


def check_own_folder(
    folder: str | os.PathLike[str], key: str, *, model: str | None = None, makes_model: bool = False
) -> None:
    """Refuse a folder that holds another recipe's run, a model that the recipe did not make, or the model it reads.

    Without a `run.json` that can be read it may be this recipe's, stopped between two files, so names of its own pass.

    Args:
        folder: `output_dir`; it may be missing.
        key: of the recipe's configuration, which no other recipe has.
        model: folder or Hub id of a model that the recipe reads and must not write over.
        makes_model: whether the recipe writes a model, so that one without `run.json` may be its own.

    Raises:
        ValueError: if nothing may be written there.

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
    config = None
    if (place / RUN_FILE).is_file():
        try:
            config = read_run(place).get("config")
        except ValueError:
            config = None  # damaged: it says nothing
    if isinstance(config, Mapping) and config:
        if key not in config:
            raise ValueError(f"{place} holds another run: choose another output_dir")
        return
    if not makes_model and (found := sorted(path for name in _OF_A_MODEL for path in place.glob(name))):
        raise ValueError(f"{place} holds a model ({found[0].name}): choose another output_dir")
