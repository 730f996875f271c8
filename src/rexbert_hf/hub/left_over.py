"""Files and folders under a name with the number of the process that writes them, and what dead processes left of them.

A temporary folder goes with its process, unless that is killed at once (SIGKILL). Its name says whose it was, so that
the next one that makes such a folder, or starts a run, removes it.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
import tempfile
import time
import uuid
from pathlib import Path

logger = logging.getLogger(__name__)

_START = uuid.uuid4().hex[:8]
"""Tells this process from an earlier one of its number: in containers a new run often has that of the killed one."""

LEFT_SECONDS = 24 * 3_600
"""Nobody goes on with a file that has not been written to for so long."""

# Earlier versions wrote no start; what has another form is of another machine, node-0 after node.
_STAGED = re.compile(r"(?P<pid>\d+)(-(?P<start>[0-9a-f]{8}))?-[0-9a-f]{8}")


def temporary_folder(
    folder: str | os.PathLike[str] | None = None, prefix: str = ""
) -> tempfile.TemporaryDirectory[str]:
    """A folder that goes when it is closed, when the process ends, or with the next start if the process was killed.

    Args:
        folder: where it lies; by default $TMPDIR.
        prefix: of its name in `folder`, if a run that holds `folder` removes what begins with it. In $TMPDIR there is
            none, since every start removes there what begins with this package's name.

    Example:
        >>> with temporary_folder() as place:
        ...     remove_temporary_left()
        ...     Path(place).is_dir()
        True
        >>> Path(place).exists()
        False
    """
    prefix = prefix if folder is not None else ""
    remove_temporary_left(folder, prefix)
    own = f"{prefix}{_temporary_prefix()}{os.getpid()}-{_START}-"
    return tempfile.TemporaryDirectory(dir=folder, prefix=own, ignore_cleanup_errors=True)


def remove_temporary_left(folder: str | os.PathLike[str] | None = None, prefix: str = "") -> None:
    """Remove the temporary folders of dead processes of this machine.

    Args:
        folder: where they lie; by default $TMPDIR.
        prefix: of their names, as `temporary_folder` got it.
    """
    prefix += _temporary_prefix()
    for left in Path(folder or tempfile.gettempdir()).glob(f"{prefix}*"):
        pid, *rest = left.name.removeprefix(prefix).split("-")
        if not pid.isdigit() or len(rest) != 2:  # of another machine: node-0 after node
            continue
        if not is_alive(int(pid)) and (int(pid), rest[0]) != (os.getpid(), _START):
            _remove(left)


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
            _remove(left)


def staged_name(prefix: str) -> str:
    """A name for what this process is writing where other machines may write too, which `remove_left` knows.

    Args:
        prefix: its beginning.
    """
    return f"{prefix}{socket.gethostname()}-{os.getpid()}-{_START}-{uuid.uuid4().hex[:8]}"


def remove_left(folder: Path, prefix: str) -> None:
    """Remove files and folders of dead processes of this machine, and those in which nothing was written for a day.

    Args:
        folder: where they lie.
        prefix: of their names, as `staged_name` got it.
    """
    own = f"{prefix}{socket.gethostname()}-"
    for path in folder.glob(f"{own}*"):
        written = _STAGED.fullmatch(path.name.removeprefix(own))
        if written is None:
            continue
        pid = int(written["pid"])
        if not is_alive(pid) and (pid, written["start"]) != (os.getpid(), _START):
            _remove(path)
    for path in folder.glob(f"{prefix}*"):
        try:
            newest = max(part.stat().st_mtime for part in (path, *path.rglob("*")))
        except OSError:  # its writer goes on with it, or somebody else removes it
            continue
        if time.time() - newest >= LEFT_SECONDS:
            _remove(path)


def _remove(path: Path) -> None:
    logger.info("removing %s, left behind by a killed run", path)
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


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
