"""Folders that a process writes under a name that ends with its number, and what dead processes left of them."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

logger = logging.getLogger(__name__)


def remove_left_over(parent: Path, prefix: str) -> None:
    """Remove the folders of dead processes of this machine.

    Args:
        parent: where they lie.
        prefix: of their names, with the name of this machine; the rest is the number of the process. What has another
            rest is not of this machine (`node-0` after `node`), and stays.
    """
    for left in parent.glob(f"{prefix}*"):
        pid = left.name.removeprefix(prefix)
        if pid.isdigit() and not is_alive(int(pid)):
            logger.info("removing %s, left behind by a killed run", left)
            shutil.rmtree(left, ignore_errors=True)


def is_alive(pid: int) -> bool:
    """Whether another process has this number; in containers a new run often has that of the killed one.

    Args:
        pid: number of a process.

    Example:
        >>> is_alive(os.getpid()), is_alive(os.getppid())
        (False, True)
    """
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
