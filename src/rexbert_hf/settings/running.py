"""How a recipe ends: status 0 when the work is done, else one line on stderr.

Status 2 is a configuration that cannot be used, 1 is bad input met on the way, 130 an interrupt, 143 a SIGTERM.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, NoReturn

from rexbert_hf.hub.redaction import redact, redact_logs
from rexbert_hf.settings.tree import SettingsError, one_line

NOISY = (
    "httpx",
    "httpx2",
    "datasets",
    "huggingface_hub",
    "filelock",
    "fsspec",
    "matplotlib",
    "datatrove",
    "sentence_transformers",
)
"""Loggers of libraries that tell about every request or file."""
_AGAIN_SECONDS = 0.05


def start_logging(level: int = logging.INFO) -> bool:
    """Have the package's messages printed on stderr, secrets apart, and libraries keep to warnings and no bars.

    Args:
        level: of the messages; of all but the first of several processes only warnings are shown.

    Returns:
        Whether this is the first of the processes that a launcher started.
    """
    from transformers.utils.logging import disable_progress_bar

    first = os.environ.get("RANK", "0") == "0"
    level = level if first else logging.WARNING
    redact_logs()
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    disable_progress_bar()
    return first


def run_recipe(main: Callable[[], Any]) -> NoReturn:
    """Run a recipe's `main` and leave the process with its status.

    `SettingsError` gives status 2; `ValueError`, `OSError`, `FloatingPointError` and `MemoryError` (bad data, a full
    disk, a loss that is no number, see `settings.memory`) give status 1, and so does an `ImportError` that names the
    extra to install; all print one line `error: ...`. Other exceptions are defects and keep their traceback.
    `REXBERT_DEBUG=1` keeps all tracebacks. Secrets are taken out of what is printed, for users put them in wrong places
    and errors repeat them. SIGTERM unwinds the stack, so that temporary folders go, and gives status
    143; training takes the signal over and saves a checkpoint first. Work that ends in order leaves the group of its
    processes.

    Args:
        main: returns None or 0 when done, or another exit status.

    Raises:
        SystemExit: always.
    """
    main_thread = threading.current_thread() is threading.main_thread()
    handler = _Terminate() if main_thread else None
    before = signal.signal(signal.SIGTERM, handler) if handler else None
    try:
        try:
            status, stopped = main(), False
        except SystemExit as stop:  # a run that stopped on a signal, on all processes at once; its traceback ends here
            status, stopped = stop.code, True
        leave_group()
    except (ValueError, OSError, FloatingPointError, ImportError, MemoryError) as error:
        lacking = isinstance(error, ImportError) and "pip install" in str(error)  # an extra; others are defects
        if os.environ.get("REXBERT_DEBUG") == "1" or (isinstance(error, ImportError) and not lacking):
            _redact_traceback()
            raise
        where = "" if isinstance(error, SettingsError) else " (REXBERT_DEBUG=1 shows where)"
        sys.stderr.write(f"error: {redact(one_line(error)) or type(error).__name__}{where}\n")
        raise SystemExit(2 if isinstance(error, SettingsError) else 1) from None
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        raise SystemExit(130) from None
    except Exception:
        _redact_traceback()
        raise
    finally:
        if handler:
            sys.unraisablehook = handler.before
        if before is not None:
            signal.signal(signal.SIGTERM, before)
    raise SystemExit(status if stopped or isinstance(status, int) else 0)


def leave_group() -> None:
    """Leave the group of processes that torch.distributed made, if there is one.

    Left to the interpreter's end, the group's threads can outlive it, and a finished process aborts (status -6). They
    end with the last object that holds the group, and a trainer and its model hold each other.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        # Freed by DDP's reducer, the group would wait for its threads with Python's lock held, and they for that lock.
        # Its Python object gives the lock up before it waits, so that is the last to go.
        group = distributed.group.WORLD
        distributed.destroy_process_group()
        gc.collect()
        del group


def _redact_traceback() -> None:
    """Have the traceback that ends this process printed without secrets."""

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))

    sys.excepthook = show


class _Terminated(SystemExit):
    """A SIGTERM, on its way up the stack."""


def _swallows(frame: FrameType | None) -> bool:
    """Whether what is raised here would be lost, or end half way what the frame cleans up.

    Python ignores exceptions of `__del__` and of a `weakref.finalize` that garbage collection called, and an extension
    module that is being imported may turn one into an `ImportError`, which looks like a package that is missing.
    """
    while frame is not None:
        name, module = frame.f_code.co_name, frame.f_globals.get("__name__")
        if name == "__del__" or (name == "__call__" and module == "weakref") or module == "importlib._bootstrap":
            return True
        frame = frame.f_back
    return False


class _Terminate:
    """A handler that leaves the recipe's process in order; workers that were forked from it die at once, as always."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.told = False
        self.before = sys.unraisablehook
        sys.unraisablehook = self.unraisable

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() == self.owner and _swallows(frame):
            self.ask_again(signum)
            return
        signal.signal(signum, signal.SIG_DFL)
        if os.getpid() != self.owner:
            os.kill(os.getpid(), signum)
        if not self.told:
            sys.stderr.write("error: terminated: start again to go on\n")
        self.told = True
        raise _Terminated(128 + signum)

    def ask_again(self, signum: int) -> None:
        """Send the signal once more, a little later."""
        again = threading.Timer(_AGAIN_SECONDS, os.kill, (self.owner, signum))
        again.daemon = True
        again.start()

    def unraisable(self, lost: sys.UnraisableHookArgs) -> None:
        """Python has ignored an exception: the callback of a weak reference raised it, which no frame shows."""
        if isinstance(lost.exc_value, _Terminated) and os.getpid() == self.owner:
            signal.signal(signal.SIGTERM, self)
            self.ask_again(signal.SIGTERM)
        else:
            self.before(lost)
