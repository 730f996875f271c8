"""What killed writers leave behind: it is known by its age, for their process ids say nothing on other machines."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

LEFT_SECONDS = 24 * 3_600
"""Nobody goes on with a file that has not been written to for so long."""


def remove_left(folder: Path, pattern: str) -> None:
    """Remove files and folders of a pattern in which nothing was written for a day.

    Args:
        folder: where they lie.
        pattern: of their names.
    """
    for path in folder.glob(pattern):
        try:
            newest = max(part.stat().st_mtime for part in (path, *path.rglob("*")))
        except OSError:  # its writer goes on with it, or somebody else removes it
            continue
        if time.time() - newest < LEFT_SECONDS:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
