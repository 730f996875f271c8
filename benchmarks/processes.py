"""A command that ends whole: nothing that it started runs on beside the next one, which is measured then."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ended:
    """A command that is over.

    Attributes:
        status: its exit status; None if it was stopped.
        said: on its standard output, so far as it got.
        complaint: on its standard error.
    """

    status: int | None
    said: str
    complaint: str


def run_group(command: Sequence[str], seconds: float) -> Ended:
    """Run a command in a process group of its own, which ends with it.

    Args:
        command: the program and its words.
        seconds: after which it is stopped, its workers too.
    """
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    status = None
    try:
        said, complaint = process.communicate(timeout=seconds)
        status = process.returncode
    except BaseException as error:  # an interruption of this script ends the command too
        os.killpg(process.pid, signal.SIGKILL)
        said, complaint = process.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
    finally:
        with contextlib.suppress(ProcessLookupError):  # workers that do not hold its outputs
            os.killpg(process.pid, signal.SIGKILL)
    return Ended(status, said, complaint)
