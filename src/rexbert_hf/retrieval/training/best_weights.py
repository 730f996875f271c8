"""The folder with the best weights of a search training so far, and what it says of them."""

from __future__ import annotations

import json
from pathlib import Path

from rexbert_hf.training import checkpoint as ckpt

BEST = "best"
"""Folder of the model with the best validation figure."""
_FIGURE = "figure.json"
"""In that folder: its step and its figure. A run that was killed may have kept a model that it did not resume with."""


def is_own(folder: Path) -> bool:
    """Whether a search training of this package wrote a folder of best weights: one of another trainer has no figure.

    Args:
        folder: of the best model; it may be missing.
    """
    return (folder / _FIGURE).is_file()


def note_figure(folder: Path, step: int, figure: float) -> None:
    """Write step and figure beside the weights.

    Args:
        folder: of the best model.
        step: after which it was measured.
        figure: that it reached.
    """
    (folder / _FIGURE).write_text(json.dumps({"step": step, "figure": float(figure)}), encoding="utf-8")


def kept_figure(folder: Path) -> tuple[int, float] | None:
    """Step and figure of a best model; None where a version wrote it that did not say.

    Args:
        folder: of the best model.

    Raises:
        ValueError: if what is written there cannot be read.
    """
    path = folder / _FIGURE
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return int(found["step"]), float(found["figure"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): train again in another output_dir") from None


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint is there and as it was written.

    Args:
        checkpoint: its folder.
    """
    try:
        ckpt.verify(checkpoint)
    except (ValueError, OSError):
        return False
    return True
