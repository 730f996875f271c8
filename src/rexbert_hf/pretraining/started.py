"""What decides the run that a folder holds, read before anything is prepared for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rexbert_hf.hub.finished import run_of_finished, weights_are_whole
from rexbert_hf.training.checkpoint import described


def description_in(output: Path) -> tuple[Path, dict[str, Any]] | None:
    """The description of the run in a folder and where it was found: its newest checkpoint, else its `run.json`.

    Args:
        output: a run's folder; it need not exist.
    """
    found = described(output)
    if found is None and (output / "run.json").exists() and weights_are_whole(output):
        run = run_of_finished(output)
        found = (output, run["plan"]) if run is not None and isinstance(run.get("plan"), dict) else None
    return found
