"""Folders under a name with the number of the process that writes them, and what dead processes left of them.

A temporary folder goes with its process, unless that is killed at once (SIGKILL). Its name says whose it was, so that
the next one that makes such a folder, or starts a run, removes it.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
import uuid
from pathlib import Path

logger = logging.getLogger(__name__)

_START = uuid.uuid4().hex[:8]
"""Tells this process from an earlier one of its number: in containers a new run often has that of the killed one."""


def temporary_folder(
    folder: str | os.PathLike[str] | None = None, prefix: str = ""
) -> tempfile.TemporaryDirectory[str]:
    """A folder that goes when it is closed, when the process ends, or with the next start if the process was killed.

    Args:
        folder: where it lies, if a run that holds this folder removes what begins with the prefix; by default $TMPDIR.
        prefix: of its name in `folder`.

    Example:
        >>> with temporary_folder() as place:
        ...     remove_temporary_left()
        ...     Path(place).is_dir()
        True
        >>> Path(place).exists()
        False
    """
    if folder is not None:
        return tempfile.TemporaryDirectory(dir=folder, prefix=prefix, ignore_cleanup_errors=True)
    remove_temporary_left()
    own = f"{_temporary_prefix()}{os.getpid()}-{_START}-"
    return tempfile.TemporaryDirectory(prefix=own, ignore_cleanup_errors=True)


def remove_temporary_left() -> None:
    """Remove from $TMPDIR the temporary folders of dead processes of this machine."""
    prefix = _temporary_prefix()
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        pid, *rest = left.name.removeprefix(prefix).split("-")
        if not pid.isdigit() or len(rest) != 2:  # of another machine: node-0 after node
            continue
        if not is_alive(int(pid)) and (int(pid), rest[0]) != (os.getpid(), _START):
            logger.info("removing %s, left behind by a killed run", left)
            shutil.rmtree(left, ignore_errors=True)


def _temporary_prefix() -> str:
    return f"rexbert-{socket.gethostname()}-"


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
