"""How many threads torch computes with on CPU, where a launcher has settled on one.

`accelerate launch` and `torchrun` set OMP_NUM_THREADS to 1 for processes that were given no number: safe where many run
on a machine, but a single one then trains on one core without a word.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_LAUNCHERS = ("ACCELERATE_", "TORCHELASTIC_")
"""What the variables begin with that a launcher leaves in the environment of its processes."""


def set_threads(wanted: int | None) -> None:
    """Set torch's threads: those wanted, else a fair share of the cores where only a launcher chose.

    A number that the user gave (`OMP_NUM_THREADS`, `--num_cpu_threads_per_process`, `torch.set_num_threads`) stays, and
    so does torch's own choice where there is no launcher.

    Args:
        wanted: `trainer.cpu_threads`.

    Example:
        >>> before = torch.get_num_threads()
        >>> set_threads(before)
        >>> torch.get_num_threads() == before
        True
    """
    if wanted is not None:
        torch.set_num_threads(wanted)
        return
    if not launcher_chose():
        return
    local, cores = local_processes(), usable_cores()
    threads = max(cores // local, 1)
    if threads == torch.get_num_threads():
        return
    logger.info(
        "the launcher left OMP_NUM_THREADS at %s: %d torch threads instead (cores here: %d, processes: %d); set"
        " OMP_NUM_THREADS or trainer.cpu_threads for another number",
        os.environ["OMP_NUM_THREADS"],
        threads,
        cores,
        local,
    )
    torch.set_num_threads(threads)


def launcher_chose() -> bool:
    """Whether the number of threads is a launcher's default: nobody asked for it, and nobody changed it since."""
    value = os.environ.get("OMP_NUM_THREADS", "")
    if not any(name.startswith(_LAUNCHERS) for name in os.environ) or value != str(torch.get_num_threads()):
        return False
    launcher = _launcher()
    if launcher is None:  # no /proc: 1 is what the launchers choose
        return value == "1"
    words, variables = launcher
    asked = any(word.replace("-", "_").startswith("__num_cpu_threads_per_process") for word in words)
    return not asked and not any(name in variables for name in _VARIABLES)


def _launcher() -> tuple[list[str], set[str]] | None:
    """Words and variables that the parent process was started with; None where the system does not tell."""
    folder = Path(f"/proc/{os.getppid()}")
    try:
        words = (folder / "cmdline").read_text(errors="replace").split("\0")
        entries = (folder / "environ").read_text(errors="replace").split("\0")
    except OSError:
        return None
    return words, {entry.split("=", 1)[0] for entry in entries}


def local_processes() -> int:
    """Training processes on this machine, as the launcher numbers them."""
    value = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return int(value) if value.isdigit() and int(value) > 0 else 1


def usable_cores() -> int:
    """Cores that this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
