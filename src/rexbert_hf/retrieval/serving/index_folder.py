"""An index's folder: versions that are written whole, and one small file that says which one counts.

A save is staged in a hidden folder, synced, renamed to `versions/vNNNNNN`, and only then does `CURRENT` name it; a
process killed at any moment leaves the old version in place. Writers take turns at that. A reader that was caught
between two saves reads again.
A folder without `CURRENT` that holds `index.json` itself (a download) is one version.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rexbert_hf.hub.left_over import remove_left, staged_name
from rexbert_hf.hub.manifest_names import stays_inside
from rexbert_hf.hub.run_file import sync, write_whole
from rexbert_hf.retrieval.serving.index_options import IndexOptions
from rexbert_hf.retrieval.serving.query_model import ModelIdentity
from rexbert_hf.settings import from_dict

try:
    import fcntl
except ImportError:  # not on this platform
    fcntl = None  # type: ignore[assignment]

INDEX_FILE = "index.json"
CURRENT_FILE = "CURRENT"
FORMAT = 1
"""Of a version's files; a reader refuses a later one."""

KEPT_VERSIONS = 2
"""Versions left in a folder: the current one, and the one that slow readers may be opening."""

VERIFIED_BYTES = 256 << 20
"""Larger indexes are checked by the sizes of their files only, unless asked otherwise."""

_OWN_SUM = "crc32"
_STAGING = ".staging-"


class DamagedIndexError(ValueError):
    """A file of an index cannot be what was written; the message names it. Nothing is wrong with any setting."""


def write_version(
    folder: Path, fill: Callable[[Path], dict[str, Any]], reopen: Callable[[Path], None] | None = None
) -> Path:
    """Write a version and make it the current one; what was there stays until then.

    Args:
        folder: of the index; made when missing.
        fill: writes all files but `index.json` into the folder it is given, and returns what `index.json` holds.
        reopen: opens what it needs of the version before that becomes the current one: afterwards other writers may
            have removed it already.

    Raises:
        OSError: if it cannot be written; the old version is still the current one.
    """
    versions = folder / "versions"
    versions.mkdir(parents=True, exist_ok=True)
    remove_left(versions, _STAGING)
    stage = versions / staged_name(_STAGING)
    stage.mkdir()
    try:
        facts = fill(stage)
        for path in _files(stage).values():
            sync(path)
        facts["files"] = {name: _facts_of(path) for name, path in _files(stage).items()}
        facts[_OWN_SUM] = _checksum(facts)
        (stage / INDEX_FILE).write_text(_text_of(facts), encoding="utf-8")
        sync(stage / INDEX_FILE)
        with _alone(versions):
            version = _rename(stage, versions)
            try:
                sync(versions)
                if reopen is not None:
                    reopen(version)
                write_whole(folder / CURRENT_FILE, f"{version.name}\n".encode())
            except BaseException:
                if not _is_current(folder, version):
                    shutil.rmtree(version, ignore_errors=True)
                raise
            for old in sorted(versions.glob("v[0-9]*"))[:-KEPT_VERSIONS]:
                shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    return version


@contextmanager
def _alone(versions: Path) -> Iterator[None]:
    """One writer at a time: else `CURRENT` of one may name a version that another has removed.

    The folder itself is locked, so that no file stays behind. Where folders cannot be locked (Windows, some network
    file systems) writers are not kept apart.
    """
    place = None
    if fcntl is not None:
        place = os.open(versions, os.O_RDONLY)
        with suppress(OSError):
            fcntl.flock(place, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if fcntl is not None and place is not None:
            with suppress(OSError):
                fcntl.flock(place, fcntl.LOCK_UN)  # closing alone leaves it to a process that was forked meanwhile
            os.close(place)


def current_version(folder: Path) -> Path:
    """The folder of the version that counts.

    Args:
        folder: of the index, or of one version.

    Raises:
        FileNotFoundError: if there is none.
    """
    pointer = folder / CURRENT_FILE
    if pointer.is_file():
        name = pointer.read_text(encoding="utf-8").strip()
        if not re.fullmatch(r"v\d+", name):
            raise ValueError(f"{pointer} is damaged ({name!r:.40}): write the name of a folder in versions/ into it")
        return folder / "versions" / name
    if (folder / INDEX_FILE).is_file():
        return folder
    raise FileNotFoundError(f"{folder} holds no index (neither {CURRENT_FILE} nor {INDEX_FILE}): build one there")


def read_facts(version: Path, verify: bool | None = None) -> dict[str, Any]:
    """What `index.json` holds, after a check of the files that it names.

    Args:
        version: the folder of a version.
        verify: compare checksums; None does so up to `VERIFIED_BYTES`.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged.
    """
    path = version / INDEX_FILE
    try:
        text = path.read_text(encoding="utf-8")
        facts: dict[str, Any] = dict(json.loads(text))
        files = {name: (int(one["bytes"]), str(one["sha256"])) for name, one in facts["files"].items()}
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: build the index again") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{path} is damaged: build the index again") from None
    if _has_changed(facts, text):
        raise ValueError(f"{path} is damaged (its checksum differs): build the index again")
    if not files and facts.get("backend") != "qdrant":
        raise ValueError(f"{path} is damaged (it names no file): build the index again")
    if outside := [name for name in facts["files"] if not stays_inside(name)]:
        raise ValueError(
            f"{path} is damaged (it names {outside[0]!r:.200}, which lies elsewhere): build the index again"
        )
    check_files(version, facts)
    if verify is None:
        verify = sum(size for size, _ in files.values()) <= VERIFIED_BYTES
    for name, (size, digest) in files.items():
        file = version / name
        if file.stat().st_size != size:
            sizes = f"{file.stat().st_size:,} bytes, {size:,} expected"
            raise ValueError(f"{file} is damaged ({sizes}): build the index again")
        if verify and _facts_of(file)["sha256"] != digest:
            raise ValueError(f"{file} is damaged (its checksum differs): build the index again")
    return facts


def check_files(version: Path, facts: Mapping[str, Any]) -> None:
    """Whether a version still has all its files: a newer one may have taken its place.

    Args:
        version: the folder.
        facts: of its `index.json`.

    Raises:
        FileNotFoundError: if a file is missing.
    """
    for name in facts["files"]:
        if not (version / name).is_file():
            raise FileNotFoundError(
                f"{version / name} is missing, but {version / INDEX_FILE} names it: build the index again"
            )


def described(version: Path, facts: Mapping[str, Any]) -> tuple[IndexOptions, ModelIdentity | None]:
    """How an index was built and with what model, as its `index.json` says.

    Args:
        version: the folder, for messages.
        facts: of the file.

    Raises:
        ValueError: if a later release wrote it, or something is missing in it.
    """
    place = version / INDEX_FILE
    needed = ("place", "collection", "columns") if facts.get("backend") == "qdrant" else ("dim",)
    if missing := [key for key in ("format", "options", "model", *needed) if key not in facts]:
        raise ValueError(f"{place} is damaged (it has no '{missing[0]}'): build the index again")
    if not isinstance(facts["format"], int) or facts["format"] > FORMAT:
        raise ValueError(f"{version} was written by a later rexbert-hf (format {facts['format']}): update it")
    try:
        int(facts.get("dim", 0))
        # Whoever wrote the file may have written values of any type.
        identity = None if facts["model"] is None else from_dict(ModelIdentity, facts["model"], INDEX_FILE)
        if (
            identity is not None
            and len({len(row) for row in (*identity.probes, *(identity.document_probes or ()))}) != 1
        ):
            raise ValueError("model.probes: not vectors of one width")
        return from_dict(IndexOptions, facts["options"], INDEX_FILE), identity
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"{place} is damaged ({error}): build the index again") from None


def _has_changed(facts: Mapping[str, Any], text: str) -> bool:
    """Whether `index.json` differs from what was written, in whatever byte.

    The last digit of a number may change and the number not, so the text is compared with the one that is written.
    Earlier versions wrote no checksum, so one under another name is looked for: its own name may be what changed.
    """
    if _OWN_SUM in facts:
        return facts[_OWN_SUM] != _checksum(facts) or text != _text_of(facts)
    return any(value == _checksum(facts, name) for name, value in facts.items() if isinstance(value, int))


def _checksum(facts: Mapping[str, Any], own: str = _OWN_SUM) -> int:
    """Of all that `index.json` says beside it, as it reads there."""
    rest = {name: value for name, value in facts.items() if name != own}
    return zlib.crc32(json.dumps(rest, sort_keys=True).encode())


def _text_of(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, indent=1) + "\n"


def _is_current(folder: Path, version: Path) -> bool:
    with suppress(OSError, ValueError):
        return current_version(folder) == version
    return False


def _files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _facts_of(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _rename(stage: Path, versions: Path) -> Path:
    """Give the staged folder the next free number."""
    numbers = [int(path.name[1:]) for path in versions.glob("v[0-9]*")]
    number = max(numbers, default=0) + 1
    while True:
        target = versions / f"v{number:06d}"
        try:
            if not target.exists():
                stage.rename(target)
                return target
        except OSError:
            if not target.exists():
                raise
        number += 1  # somebody else took it
