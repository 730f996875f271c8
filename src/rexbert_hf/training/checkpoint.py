"""Checkpoints that exist whole or not at all.

A checkpoint is written in a staging folder beside its final place, every file is synced, a marker with the sizes and
checksums of all files is written last, and one rename makes it `checkpoint-{step}`. A folder without the marker, or
whose files do not match it, is reported and passed over: the previous complete one is used.

The optimizer's state inside is torch's own format, which the Trainer reads with `weights_only=True` (no code can run);
model weights are safetensors. No file of random-generator states is needed: they are a function of the step.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rexbert_hf.hub.own_folder import MARKER
from rexbert_hf.hub.run_file import checksum, read_run, sync

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
OWN_SUM = "marker_crc32"
"""Key of the marker's own checksum, which those of the first version lack."""
_VERSION = "format_version"
STAGING, DOOMED, REPLACED = ".staging-", ".deleting-", ".replaced-"
_NAME = re.compile(r"checkpoint-(\d+)\Z")


class CheckpointError(OSError):
    """A checkpoint could not be written; earlier ones are untouched."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint.

    Attributes:
        path: its folder.
        step: global steps done.
        info: what the writer put into the marker (plan, phase, ...).
    """

    path: Path
    step: int
    info: dict[str, Any]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MARKER)


def seal(folder: Path, step: int, info: Mapping[str, Any] | None = None) -> None:
    """Sync all files of a folder and write the completion marker.

    Args:
        folder: holds the finished files.
        step: global steps done.
        info: JSON values to keep beside the file list.
    """
    entries = {}
    for path in _files(folder):
        sync(path)
        entries[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "crc32": checksum(path)}
    marker = {_VERSION: FORMAT_VERSION, "step": step, "info": dict(info or {}), "files": entries}
    marker[OWN_SUM] = _own_sum(marker)
    with (folder / MARKER).open("w", encoding="utf-8") as file:
        json.dump(marker, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    sync(folder)


def _own_sum(marker: Mapping[str, Any]) -> int:
    """CRC-32 of what a marker says, however it is written."""
    plain = json.loads(json.dumps(marker))
    return zlib.crc32(json.dumps(plain, sort_keys=True).encode())


def publish(staged: Path, final: Path) -> None:
    """Move a sealed folder to its final name in one rename.

    A complete checkpoint that already has the name stays, because the run that wrote it did the same work; a damaged
    one is replaced.

    Args:
        staged: the sealed folder, on the same file system.
        final: `OUTPUT/checkpoint-{step}`.
    """
    if final.exists():
        try:
            verify(final)
        except ValueError:
            delete(final)
        else:
            shutil.rmtree(staged)
            return
    staged.rename(final)
    sync(final.parent)


def delete(folder: Path) -> None:
    """Remove a checkpoint so that a kill half-way leaves nothing that looks like one."""
    doomed = folder.with_name(DOOMED + folder.name)
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def replace(folder: Path, write: Callable[[Path], object]) -> None:
    """Write a folder under another name and give it its own; what had the name goes once the new one has it.

    No system renames over a folder that is not empty, so a kill may come between two renames: the old one then has its
    name with `REPLACED` before it, and gets its own back from `remove_leftovers` or the next call.

    Args:
        folder: the name.
        write: given an empty folder.
    """
    staged, old = (folder.with_name(mark + folder.name) for mark in (STAGING, REPLACED))
    shutil.rmtree(staged, ignore_errors=True)
    _put_back(old)
    try:
        staged.mkdir(parents=True)
        write(staged)
        for path in (*_files(staged), staged):
            sync(path)
        if folder.exists():
            folder.rename(old)
        staged.rename(folder)
    except Exception:
        shutil.rmtree(staged, ignore_errors=True)
        _put_back(old)
        raise
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _put_back(old: Path) -> None:
    """Give what `replace` moved away its name again, or remove it where the new one has the name."""
    folder = old.with_name(old.name.removeprefix(REPLACED))
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
    elif old.exists():
        old.rename(folder)


def staging_folder(output_dir: Path, step: int) -> Path:
    """Where the checkpoint of a step is written before it has its name."""
    return output_dir / f"{STAGING}{step}"


def remove_leftovers(output_dir: Path) -> list[str]:
    """Remove staging and half-deleted folders that a killed run left; return their names.

    A folder whose replacement had not got its name yet gets its own back.
    """
    names = []
    for path in sorted(output_dir.glob(".*")):
        if path.name.startswith(REPLACED) and path.is_dir():
            _put_back(path)
        elif path.name.startswith((STAGING, DOOMED)) and path.is_dir():
            shutil.rmtree(path)
            names.append(path.name)
    if names:
        logger.warning("%s: removed what an interrupted write left: %s", output_dir, ", ".join(names))
    return names


def verify(folder: Path) -> Checkpoint:
    """Check a checkpoint against its marker.

    Raises:
        ValueError: with one line that says what is wrong with which file.
    """
    found, sums = _marked(folder)
    for name, crc32 in sums.items():
        if checksum(folder / name) != crc32:
            raise ValueError(f"{folder / name}: contents changed since they were written (CRC-32 differs)")
    return found


def _marked(folder: Path) -> tuple[Checkpoint, dict[str, int]]:
    """What the marker says, with the CRC-32 of each file, after a check of it and of the files' sizes."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        own = marker.pop(OWN_SUM, None)
        version, step, info = marker.pop(_VERSION), int(marker["step"]), dict(marker["info"])
        entries = [(name, entry["size"], entry["crc32"]) for name, entry in marker["files"].items()]
    except FileNotFoundError:
        raise ValueError(f"{folder}: no {MARKER}: it was not finished") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{folder / MARKER}: not readable") from None
    if version != FORMAT_VERSION:
        raise ValueError(f"{folder / MARKER}: format {version}, this version reads {FORMAT_VERSION}")
    if (set(marker) != {"step", "info", "files"}) if own is None else own != _own_sum(marker | {_VERSION: version}):
        raise ValueError(f"{folder / MARKER}: contents changed since they were written")
    for name, size, _ in entries:
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{path}: missing")
        if path.stat().st_size != size:
            raise ValueError(f"{path}: {path.stat().st_size} bytes, {size} were written")
    return Checkpoint(folder, step, info), {name: crc32 for name, _, crc32 in entries}


def checkpoint_folders(output_dir: Path) -> list[Path]:
    """Folders named `checkpoint-{step}`, newest step first, complete or not."""
    if not output_dir.is_dir():
        return []
    found = [(int(match[1]), path) for path in output_dir.iterdir() if (match := _NAME.match(path.name))]
    return [path for _, path in sorted(found, reverse=True) if path.is_dir()]


def last_complete_checkpoint(output_dir: str | Path) -> Checkpoint | None:
    """Find the newest checkpoint that is whole; report and pass over the others.

    Args:
        output_dir: a run's folder; it need not exist.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for step in (5, 10):
        ...     (root / f"checkpoint-{step}").mkdir()
        >>> seal(root / "checkpoint-5", 5)
        >>> last_complete_checkpoint(root).step
        5
    """
    for folder in checkpoint_folders(Path(output_dir)):
        try:
            return verify(folder)
        except (ValueError, OSError) as error:
            logger.warning("checkpoint passed over: %s", error)
    return None


def rotate(output_dir: Path, limit: int | None, keep: str | None = None, written: int | None = None) -> list[str]:
    """Delete checkpoints beyond `limit`, call it after a new one is in place: damaged ones first, then the oldest.

    One without a marker is not counted and not deleted: no run of this package leaves such a one, so it is somebody
    else's.

    Args:
        output_dir: the run's folder.
        limit: checkpoints that may stay; None or 0 keeps all.
        keep: a checkpoint whose `info` has a true value under this key stays, and is not counted.
        written: step of the new one, which always stays. The run has passed over those of later steps, because they are
            damaged or it was told to begin before them: they go as damaged ones do. None takes the newest for it.

    Returns:
        Names of what was deleted.
    """
    if not limit or limit < 1:
        return []
    own = (folder for folder in checkpoint_folders(output_dir) if (folder / MARKER).is_file())
    folders = [folder for folder in own if not _kept(folder, keep)]
    last = max((_step(folder) for folder in folders), default=0) if written is None else written
    # A stable sort: of equals the newest stay.
    counted = sorted(folders, key=lambda f: (_step(f) != last, _step(f) > last or _is_torn(f)))
    for folder in counted[limit:]:
        delete(folder)
    return [folder.name for folder in counted[limit:]]


def _step(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def _is_torn(folder: Path) -> bool:
    """Whether a checkpoint's marker or the sizes of its files are wrong; contents are unread, as that takes long."""
    try:
        _marked(folder)
    except (ValueError, OSError):
        return True
    return False


def _kept(folder: Path, key: str | None) -> bool:
    return key is not None and bool(_info(folder).get(key))


def _info(folder: Path) -> dict[str, Any]:
    """What the marker says, files unread; empty where it cannot be read."""
    try:
        return dict(json.loads((folder / MARKER).read_text(encoding="utf-8"))["info"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def described(output_dir: str | Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint whose marker says what decides its run, and that; files unread, None without one.

    Args:
        output_dir: a run's folder; it need not exist.
    """
    for folder in checkpoint_folders(Path(output_dir)):
        found = _info(folder).get("description")
        if isinstance(found, dict):
            return folder, found
    return None


def micro_batches_of(output_dir: str | Path) -> int | None:
    """Micro-batches in a step of the run that a folder holds, before its checkpoints are verified; None without one.

    A finished run whose checkpoints are gone has them in its `run.json`; one whose weights are gone too is no run.

    Args:
        output_dir: a run's folder; it need not exist.
    """
    found = described(output_dir)
    try:
        finished = any(Path(output_dir).glob("*.safetensors"))
        plan = found[1] if found is not None else read_run(output_dir).get("plan") if finished else None
    except (OSError, ValueError):
        return None
    micros = plan.get("micro_batches") if isinstance(plan, dict) else None
    return micros if isinstance(micros, int) else None
