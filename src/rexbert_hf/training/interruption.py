"""Stop on SIGTERM or SIGINT after the step in progress, with a checkpoint, and exit with the signal's own status.

The exit status is 128 + signal (143 for SIGTERM), never 0: 0 says that the work is done. A second SIGINT interrupts at
once.
"""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

logger = logging.getLogger(__name__)


class TrainingInterrupted(SystemExit):
    """Training stopped by a signal after saving; left alone it ends the process with 128 + signal.

    Attributes:
        signum: the signal.
        step: global steps done.

    Example:
        >>> TrainingInterrupted(signal.SIGTERM, 10).code
        143
    """

    def __init__(self, signum: int, step: int) -> None:
        super().__init__(128 + signum)
        self.signum, self.step = signum, step


class StopSignal:
    """Context that notes SIGTERM and SIGINT in place of dying of them.

    Outside the main thread it does nothing, because Python delivers signals there only.

    Example:
        >>> import os
        >>> with StopSignal() as stop:
        ...     os.kill(os.getpid(), signal.SIGTERM)
        >>> stop.received == signal.SIGTERM
        True
    """

    def __init__(self) -> None:
        self.received = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGTERM, signal.SIGINT):
                self._previous[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous.clear()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.received and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signum
        logger.warning("%s: saving a checkpoint after this step, then stopping", signal.Signals(signum).name)


def ignore_in_worker(worker_id: int) -> None:
    """Let loader workers survive a signal sent to the whole process group: the main process stops them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
