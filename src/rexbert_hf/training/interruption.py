"""Stop on SIGTERM or SIGINT after the step in progress, with a checkpoint, and exit with the signal's own status.

The exit status is 128 + signal (143 for SIGTERM), never 0: 0 says that the work is done. A second SIGINT interrupts at
once.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""What stops a run after a checkpoint."""


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
            for signum in SIGNALS:
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


class WorkerSignals:
    """`worker_init_fn` that keeps loader workers alive through a signal sent to the whole process group.

    `timeout`, Slurm and Ctrl-C signal every process of a job, but the step in progress may still need its batches. Only
    after `release`, when training is over, does SIGTERM end a worker (Python's own exit handler sends one).

    Args:
        context: start method of the workers, as the `DataLoader` gets it.
    """

    def __init__(self, context: str | None = None) -> None:
        self._over = multiprocessing.get_context(context).Event()

    def __call__(self, worker_id: int) -> None:
        """Install the handlers in a worker."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._terminate)

    def _terminate(self, signum: int, frame: FrameType | None) -> None:
        if self._over.is_set():
            os._exit(0)

    def release(self) -> None:
        """Let the workers die of SIGTERM from now on."""
        self._over.set()
