"""What killed writers leave behind: known by the number of the process, and by its age if it is of another machine."""

from __future__ import annotations

import os
import shutil
import socket
import time
import uuid
from pathlib import Path

from rexbert_hf.hub.left_over import is_alive

LEFT_SECONDS = 24 * 3_600
"""Nobody goes on with a file that has not been written to for so long."""


def staged_name(prefix: str) -> str:
    """A name for what this process is writing, which `remove_left` knows.

    Args:
        prefix: its beginning.
    """
    return f"{prefix}{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def remove_left(folder: Path, prefix: str) -> None:
    """Remove files and folders of dead processes of this machine, and those in which nothing was written for a day.

    Args:
        folder: where they lie.
        prefix: of their names.
    """
    own = f"{prefix}{socket.gethostname()}-"
    for path in folder.glob(f"{own}*"):
        number, *rest = path.name.removeprefix(own).split("-")
        its_own = number.isdigit() and len(rest) == 1  # else of another machine, node-0 after node
        if its_own and int(number) != os.getpid() and not is_alive(int(number)):
            _remove(path)
    for path in folder.glob(f"{prefix}*"):
        try:
            newest = max(part.stat().st_mtime for part in (path, *path.rglob("*")))
        except OSError:  # its writer goes on with it, or somebody else removes it
            continue
        if time.time() - newest < LEFT_SECONDS:
            continue
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
