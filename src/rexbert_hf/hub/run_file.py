"""`run.json`: what a run was asked, what it measured, and on what; written whole or not at all.

Secrets never reach the file (`redaction.py`), so a token pasted into the wrong field does not travel with the card.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import os
import platform
import re
import socket
import subprocess
import sys
import uuid
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from rexbert_hf.hub.json_file import read_json_object
from rexbert_hf.hub.left_over import is_alive
from rexbert_hf.hub.redaction import redact

RUN_FILE = "run.json"
KEPT_STEPS = "*-step-*-rank-*.safetensors"
"""Files of steps that stopped a run: rows of training text, never a part of the model beside them."""
PACKAGES = ("rexbert-hf", "torch", "transformers", "datasets", "tokenizers", "accelerate", "huggingface-hub", "numpy")

_LONGEST_NAME = 256
_PATH_BEFORE = re.compile(r"(?:/[A-Za-z0-9_.~@%+-]+|(?:\A|[^A-Za-z0-9_.~@%+-])(?:\.\.?|~))\Z")
"""A segment of a path that goes on; letters alone are an option (`-I/home/me`), or a word without a space behind it."""
_NAME_BEFORE = re.compile(r"[\w.~-]\Z")
_being_written: set[str] = set()
"""Names of this process's staged files."""


def portable(value: Any, folder: str | os.PathLike[str] | None = None) -> Any:
    """Write a run's own folder as "." and the home folder as "~", for what leaves this machine.

    Args:
        value: nested data.
        folder: the run's folder.

    Example:
        >>> portable({"output_dir": "/data/runs/a", "plot": "/data/runs/a/loss.png"}, "/data/runs/a")
        {'output_dir': '.', 'plot': './loss.png'}
    """
    if isinstance(value, Mapping):
        return {k: portable(v, folder) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [portable(item, folder) for item in value]
    if not isinstance(value, str):
        return value
    for prefix, mark in ((folder and os.path.abspath(folder), "."), (os.path.expanduser("~"), "~")):
        if prefix and prefix not in ("/", "~"):
            # A longer name is another folder; what stands before is looked at there.
            value = re.sub(rf"{re.escape(str(prefix))}(?!\.*[\w~-])", partial(_own, mark=mark), value)
    return value


def _own(found: re.Match[str], *, mark: str) -> str:
    """The mark, but within a longer path, such as a bucket's, what stands there: it is another folder."""
    before = found.string[max(found.start() - _LONGEST_NAME, 0) : found.start()]
    one_part = found[0].count("/") == 1  # `/corpus` is in the name of a repository, `me/corpus`, too
    other = _PATH_BEFORE.search(before) or (one_part and _NAME_BEFORE.search(before))
    return found[0] if other else mark


def plain(value: Any) -> Any:
    """Turn dataclasses, paths and numpy or torch scalars into what JSON holds; NaN and infinities become strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (set, frozenset)):
        return [plain(item) for item in sorted(value, key=str)]
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy and torch
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def versions() -> dict[str, str]:
    """Python and the packages that decide a result, without importing them."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package.replace("-", "_")] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if "torch" in sys.modules:  # names the build too, which the metadata of a wheel may leave out
        found["torch"] = str(sys.modules["torch"].__version__)
    return found


def hardware() -> str:
    """One line: processor, cores, memory and the GPUs that torch sees."""
    parts = [f"{_cpu_model()}, {os.cpu_count()} cores"]
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        parts.append(f"{memory / 2**30:.0f} GiB memory")
    except (ValueError, OSError, AttributeError):
        pass  # not on this platform
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        parts += [f"{names.count(name)} x {name}" for name in dict.fromkeys(names)]
    return ", ".join(parts)


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def git_commit(folder: str | os.PathLike[str] = ".") -> str | None:
    """The commit checked out in a folder, with "-dirty" when tracked files differ; None outside git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def write_run(
    directory: str | os.PathLike[str],
    *,
    config: Any,
    results: Any,
    resumed_from_step: int | None = None,
    **extra: Any,
) -> Path:
    """Write `run.json` into a run's folder, replacing an older one in a single step.

    `versions`, `hardware`, `date` (UTC) and `git_commit` (of the working folder) are added; secrets are redacted.

    Args:
        directory: the run's folder; made when missing.
        config: the resolved configuration (mapping or dataclass).
        results: what was measured; `phases` is a list of mappings with `name`, `tokens`, `steps`,
            `masked_accuracy_before`, `masked_accuracy_after`, `tokens_per_second`, `loss`.
        resumed_from_step: the global step at which this run went on, None for a fresh one.
        extra: further keys, such as `card` (fields of `render_model_card`; a `base_model` that is a folder of this
            machine is left out, since later nobody could tell it from a name on the Hub) and `data` (a list of
            mappings with `name`, `revision` or `fingerprint`, `documents`, `tokens`, and `repo_id` when it is on the
            Hub).

    Raises:
        OSError: when the file cannot be written; the older one is still whole.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> path = write_run(folder, config={"hub_token": "x"}, results={"loss": 2.0})
        >>> run = read_run(folder)
        >>> run["config"], run["results"], "torch" in run["versions"]
        ({'hub_token': '<redacted>'}, {'loss': 2.0}, True)
    """
    card = extra.get("card")
    if isinstance(card, Mapping) and isinstance(base := card.get("base_model"), str) and Path(base).exists():
        extra["card"] = {key: value for key, value in card.items() if key != "base_model"}
    run = {"config": config, "results": results, "resumed_from_step": resumed_from_step, "versions": versions()}
    run |= {"hardware": hardware(), "git_commit": git_commit()}
    run |= {"date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), **extra}
    text = json.dumps(redact(plain(run)), indent=2, ensure_ascii=False) + "\n"
    path = Path(directory) / RUN_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode("utf-8"))
    return path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a reader (or a crash) sees the old bytes or the new ones.

    Args:
        path: of the file; what killed processes of this machine left beside it of the same file is removed.
        data: its content.

    Raises:
        OSError: if it cannot be written; what was there is unchanged.
    """
    prefix = f".{path.name}.{socket.gethostname()}."
    staged = path.with_name(f"{prefix}{os.getpid()}.{uuid.uuid4().hex}")
    _being_written.add(staged.name)
    try:
        _remove_left(path.parent, prefix)
        with staged.open("xb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        staged.chmod(0o644)
        staged.replace(path)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror}; what was there is unchanged") from error
    finally:
        staged.unlink(missing_ok=True)
        _being_written.discard(staged.name)


def checksum(path: Path) -> int:
    """CRC-32 of a file, read in pieces of 4 MiB.

    Args:
        path: the file.
    """
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk.

    Args:
        path: of either.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_left(folder: Path, prefix: str) -> None:
    """Remove files whose names go on with the number of a process that is no more."""
    for left in folder.iterdir():
        number = left.name.removeprefix(prefix).partition(".")[0]
        if not left.name.startswith(prefix) or not number.isdigit() or left.name in _being_written:
            continue
        if not is_alive(int(number)):
            left.unlink(missing_ok=True)


def read_run(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the `run.json` of a run's folder (or the file itself).

    Args:
        directory: the folder, or the path of the file.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when it is not JSON or not a mapping; file and line are named.
    """
    path = Path(directory)
    path = path / RUN_FILE if path.is_dir() else path
    try:
        return read_json_object(path, "restore it or run again")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist: a finished run writes it; is this a run's folder?") from None
