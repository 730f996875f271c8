"""Processes and what they have started, as /proc tells: launchers start ranks in sessions of their own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")


def _stat(pid: int) -> tuple[str, int, int]:
    """State, parent and group of a process; its name, which may hold anything, is passed over."""
    state, parent, group = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[:3]
    return state, int(parent), int(group)


def _all() -> dict[int, tuple[str, int, int]]:
    found = {}
    for entry in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found[int(entry.name)] = _stat(int(entry.name))
    return found


def alive_in(groups: Iterable[int]) -> list[str]:
    """Command lines of the processes of some groups; dead ones that nobody has asked how do not count."""
    wanted, found = set(groups), []
    for pid, (state, _, group) in _all().items():
        if group in wanted and state not in "ZX":
            with contextlib.suppress(OSError):
                found.append((PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
    return [line[:200] for line in found]


def groups_of(pid: int) -> set[int]:
    """The groups of a process and of all that it has started, directly or not."""
    everybody = _all()
    family, new = {pid}, {pid}
    while new:
        new = {child for child, (_, parent, _) in everybody.items() if parent in new} - family
        family |= new
    return {pid, *(everybody[member][2] for member in family if member in everybody)}


def ranks_of(launcher: int) -> dict[int, int]:
    """Numbers of the processes of a launcher, by rank."""
    found = {}
    for pid, (state, parent, _) in _all().items():
        if parent == launcher and state not in "ZX":
            with contextlib.suppress(OSError):
                environment = (PROC / str(pid) / "environ").read_bytes().split(b"\0")
                found |= {int(value[5:]): pid for value in environment if value.startswith(b"RANK=")}
    return found


def is_of(pid: int, ancestor: int) -> bool:
    """Whether a process is the other one, or was started by it."""
    with contextlib.suppress(OSError):
        while pid > 1 and pid != ancestor:
            pid = _stat(pid)[1]
        return pid == ancestor
    return False


def signal_all(groups: Iterable[int], signum: int) -> None:
    """Send a signal to all processes of some groups that are left."""
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signum)
