"""Disks that are small, full or read-only, for tests: a real file system where mounting is allowed, else limits.

Where nothing can be mounted, or REXBERT_NO_MOUNT=1 is set, no file that a started process writes may grow beyond a
size, and folders are read-only by their modes; for that an administrator's process gives up the right to ignore them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TIMEOUT_SECONDS = 280
_DROP_RIGHT, _IGNORE_MODES = 24, (1, 2)
"""PR_CAPBSET_DROP; CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""


@contextlib.contextmanager
def file_limit(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: the write that would fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Disk:
    """A small file system at `folder`."""

    mounted = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Take all room that is left."""
        with contextlib.suppress(OSError), self._filler.open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()

    def grow(self, size: int, file_size: int) -> None:
        """Make room.

        Args:
            size: of the disk.
            file_size: of a file, where a limit stands in for the disk.
        """
        self._filler.unlink(missing_ok=True)
        mount("-o", f"remount,size={size}", str(self.folder))

    def read_only(self) -> None:
        """Let nobody write."""
        mount("-o", "remount,ro", str(self.folder))

    def here(self) -> contextlib.AbstractContextManager[None]:
        """Within it, this process has no more room than the disk."""
        return contextlib.nullcontext()

    def run(self, command: list[str]) -> tuple[int, str]:
        """Status and stderr of a command."""
        return run(command)


class Limits(Disk):
    """A folder of a large file system; the processes that write into it are limited."""

    mounted = False

    def __init__(self, folder: Path, file_size: int) -> None:
        super().__init__(folder)
        self.file_size, self._frozen = file_size, False

    def fill(self) -> None:
        """No file may hold more than what Python writes to find a temporary folder, which libraries do as they load."""
        self.file_size = len(b"blat")

    def grow(self, size: int, file_size: int) -> None:
        """Files may be so large."""
        self.file_size = file_size

    def read_only(self) -> None:
        """By the modes of all folders; skipped where this process may write in spite of them."""
        self._frozen = True
        self._set_modes(0o555)
        try:
            if not subprocess.run(["touch", str(self.folder / "probe")], preexec_fn=self._limit).returncode:
                pytest.skip("skipped: nothing may be mounted, and an administrator's rights cannot be given up")
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"skipped: nothing may be mounted, and no process limited ({error})")

    def here(self) -> contextlib.AbstractContextManager[None]:
        """A limit of this process."""
        return file_limit(self.file_size)

    def run(self, command: list[str]) -> tuple[int, str]:
        """Status and stderr of a command with the limits."""
        return run(command, self._limit)

    def thaw(self) -> None:
        """Let this process remove what is there."""
        self._set_modes(0o755)

    def _set_modes(self, mode: int) -> None:
        for path in [self.folder, *self.folder.rglob("*")]:
            if path.is_dir():
                path.chmod(mode)

    def _limit(self) -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.file_size, hard))
        if self._frozen and os.geteuid() == 0:
            for right in _IGNORE_MODES:
                ctypes.CDLL(None).prctl(_DROP_RIGHT, right, 0, 0, 0)


def run(command: list[str], limit: Callable[[], None] | None = None) -> tuple[int, str]:
    """Status and stderr of a command.

    Args:
        command: its words.
        limit: called in the new process.
    """
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, preexec_fn=limit)
    return done.returncode, done.stderr


def mount(*words: str) -> None:
    """Run `mount`."""
    done = subprocess.run(["mount", *words], capture_output=True, text=True)
    if done.returncode:
        raise OSError(done.stderr.strip())


@contextlib.contextmanager
def small_disk(folder: Path, size: int, file_size: int) -> Iterator[Disk]:
    """A file system of `size` bytes at `folder`, or a folder in which files have at most `file_size` bytes."""
    folder.mkdir()
    try:
        if os.environ.get("REXBERT_NO_MOUNT") == "1":
            raise OSError("REXBERT_NO_MOUNT is set")
        mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    except OSError as error:
        print(f"no small disk ({error}): a limit of file sizes stands in for it")
        disk = Limits(folder, file_size)
        try:
            yield disk
        finally:
            disk.thaw()
        return
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
