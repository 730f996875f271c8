"""Disks that are small, full or read-only, for tests: a real file system where mounting is allowed, else a limit."""

from __future__ import annotations

import contextlib
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def file_limit(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: the write that would fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def mount(*words: str) -> None:
    """Run `mount`, or skip the test and say why."""
    try:
        done = subprocess.run(["mount", *words], capture_output=True)
    except OSError:
        pytest.skip("skipped: no mount command, so no small disk")
    if done.returncode:
        pytest.skip("skipped: only an administrator may mount a small disk")


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of `size` bytes at `folder`."""
    folder.mkdir()
    mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def read_only(folder: Path) -> None:
    """Make a small disk read-only."""
    mount("-o", "remount,ro", str(folder))


def grow(folder: Path, size: str) -> None:
    """Make room on a small disk."""
    mount("-o", f"remount,size={size}", str(folder))
