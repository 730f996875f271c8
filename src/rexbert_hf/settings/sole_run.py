"""One run at a time in an output folder.

A run holds a POSIX record lock on `OUTPUT/.lock`. The system drops it when the process ends, however it ends, and
worker processes do not inherit it, so a killed run never keeps the next one out. The file goes when the run ends.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import logging
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from rexbert_hf.hub.left_over import remove_temporary_left
from rexbert_hf.settings.memory import OutOfMemoryToldError, is_out_of_memory, what_takes_less

try:
    import fcntl
except ImportError:  # not on this platform
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"
RUN_LEFTOVERS = (".run.json.*", ".README.md.*")
"""What a kill in the middle of writing `run.json` or the card leaves."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_HALF_WRITTEN = re.compile(r"\d+ requested and \d+ written")
"""What numpy says, whatever the reason."""
_NEXT_TO_NOTHING = 1 << 15

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

_held: dict[str, int] = {}
"""How often this process holds a folder: a run may be part of another one in the same folder."""


class FolderInUseError(OSError):
    """Another process is at work in the folder."""


def sole_run(*leftovers: str) -> Callable[[Callable[Concatenate[S, P], R]], Callable[Concatenate[S, P], R]]:
    """Decorate the function behind a recipe, whose first argument has `output_dir`, so that it runs alone there.

    `output_dir` may be text where the settings declare a path, as on the command line. An error for want of room names
    the folder, one for want of memory the recipe's keys: what libraries say often does not.

    Args:
        leftovers: patterns of temporary files and folders in `output_dir` that a killed run may have left; they are
            removed when the lock is there, for then nobody uses them.
    """

    def decorate(function: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
        @functools.wraps(function)
        def alone(settings: S, *args: P.args, **kwargs: P.kwargs) -> R:
            settings = _with_path(settings)
            folder: Any = settings.output_dir  # type: ignore[attr-defined]
            with hold_folder(folder, leftovers):
                try:
                    return function(settings, *args, **kwargs)
                except Exception as error:  # safetensors and tokenizers have exceptions of their own
                    if is_out_of_memory(error) and not isinstance(error, OutOfMemoryToldError):
                        raise _out_of_memory(folder, settings, error) from error
                    told = any(words in str(error) for words in (str(folder), "make room"))
                    if told or isinstance(error, ValueError | ArithmeticError) or not is_full(error, folder):
                        raise
                    reason = next(iter(str(error).splitlines()), type(error).__name__)
                    raise OSError(f"{folder}: no room left ({reason}): make room, then start again") from error

        return alone

    return decorate


def _out_of_memory(folder: Any, settings: Any, error: BaseException) -> OutOfMemoryToldError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    good = "; the last checkpoint is good" if any(Path(folder).glob("checkpoint-*")) else ""
    return OutOfMemoryToldError(f"{folder}: out of memory ({reason}): {what_takes_less(settings)}{good}")


def _with_path(settings: S) -> S:
    given: Any = settings.output_dir  # type: ignore[attr-defined]
    if not (dataclasses.is_dataclass(settings) and isinstance(given, str)):
        return settings
    if given.startswith("~"):  # what transformers writes goes to the home folder, and so does the rest
        given = os.path.expanduser(given)
        settings = dataclasses.replace(settings, output_dir=given)  # type: ignore
    declared = next(one.default for one in dataclasses.fields(settings) if one.name == "output_dir")  # type: ignore
    return dataclasses.replace(settings, output_dir=Path(given)) if isinstance(declared, Path) else settings  # type: ignore


def is_full(error: BaseException, folder: str | os.PathLike[str]) -> bool:
    """Whether an error is one of a full disk, quota or file-size limit.

    Args:
        error: any.
        folder: on the disk that may be full.

    Example:
        >>> is_full(OSError(errno.ENOSPC, "No space left on device"), "."), is_full(ValueError("no"), ".")
        (True, False)
    """
    text = str(error)
    told = any(f"(os error {code})" in text or f"({os.strerror(code)})" in text for code in _FULL)  # Rust's; FAISS's
    if getattr(error, "errno", None) in _FULL or told or "No space left" in text or _HALF_WRITTEN.search(text):
        return True
    try:
        return isinstance(error, OSError) and shutil.disk_usage(folder).free < _NEXT_TO_NOTHING
    except OSError:
        return False


@contextmanager
def hold_folder(folder: str | os.PathLike[str], leftovers: tuple[str, ...] = ()) -> Iterator[None]:
    """Keep other processes' runs out of a folder; of several ranks the first one does it for all.

    A folder that was made for it and is still empty at the end is removed.

    Args:
        folder: made when missing.
        leftovers: as in `sole_run`.

    Raises:
        FolderInUseError: if another run is at work there.
        OSError: if the folder cannot be made or written.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with hold_folder(folder):
        ...     (folder / ".lock").exists()
        True
        >>> (folder / ".lock").exists()
        False
    """
    if os.environ.get("RANK", "0") != "0" or fcntl is None:
        yield
        return
    path = Path(folder)
    existed = path.exists()
    key = str(path.resolve())
    handle = None if key in _held else _acquire(path)
    _held[key] = _held.get(key, 0) + 1
    try:
        if _held[key] == 1:
            remove_temporary_left()
            remove_leftovers(path, (*RUN_LEFTOVERS, *leftovers))
        yield
    finally:
        _held[key] -= 1
        if not _held[key]:
            del _held[key]
            _release(path, handle)
            if not existed:
                with suppress(OSError):  # not empty: the result is in it, or another run has just come
                    path.rmdir()


def _open(folder: Path) -> int:
    """A handle of the folder's lock file; both are made when missing."""
    for trials_left in reversed(range(100)):
        step = "made"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            step = "written"
            return os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            # A run that ends removes the folder it made and left empty, which may be between any two calls here.
            if not trials_left or not isinstance(error, FileNotFoundError | FileExistsError):
                raise OSError(f"output_dir {folder} cannot be {step} ({error.strerror}): set another one") from error
    raise AssertionError("the last trial returns or raises")


def _acquire(folder: Path) -> int | None:
    """A locked handle of the lock file; None where the file system knows no locks."""
    path = folder / LOCK_FILE
    while True:
        handle = _open(folder)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            who = os.read(handle, 200).decode("utf-8", "replace").strip()
            os.close(handle)
            raise FolderInUseError(
                f"{folder}: another run is at work in this folder{f' ({who})' if who else ''}: wait for its end, or "
                "choose another output_dir"
            ) from None
        except OSError as error:
            os.close(handle)
            path.unlink(missing_ok=True)
            logger.warning("%s: its file system has no locks (%s): do not start a second run there", folder, error)
            return None
        if _same_file(handle, path):  # else the run before has just ended and removed the file
            try:
                os.ftruncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            except OSError as error:
                _release(folder, handle)
                raise OSError(f"{folder}: no room left ({error.strerror}): make room, then start again") from error
            return handle
        os.close(handle)


def _same_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _release(folder: Path, handle: int | None) -> None:
    if handle is not None:
        (folder / LOCK_FILE).unlink(missing_ok=True)  # before the lock: a file that is not ours any more must stay
        os.close(handle)


def remove_leftovers(folder: Path, patterns: tuple[str, ...]) -> list[str]:
    """Remove what a killed run left in a folder; names of it.

    Args:
        folder: whose lock is held.
        patterns: globs relative to it.
    """
    found = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    names = [path.relative_to(folder).as_posix() for path in found]
    if names:
        logger.warning("%s: removed what an interrupted run left: %s", folder, ", ".join(names))
    return names
