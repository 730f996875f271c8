"""A command that ends whole: nothing that it started runs on beside the next one, which is measured then."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

GRACE = 10.0
"""Seconds for a killed command to be gone; one that hangs in a driver for longer is left behind."""


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


def run_group(command: Sequence[str], seconds: float, env: Mapping[str, str] | None = None) -> Ended:
    """Run a command in a process group of its own, which ends with it.

    It stays in this script's session: whoever ends that ends the command too. What it says goes to files, so that no
    worker that it left can keep this function waiting.

    Args:
        command: the program and its words.
        seconds: after which it is stopped, its workers too.
        env: its environment; by default this script's.
    """
    with _text_file() as said, _text_file() as complaint:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=complaint, env=env, process_group=0
        )
        status = None
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:  # also where this script is interrupted
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        return Ended(status, _read(said), _read(complaint))


def _text_file() -> TextIO:
    return tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")


def _read(file: TextIO) -> str:
    file.seek(0)
    return file.read()
