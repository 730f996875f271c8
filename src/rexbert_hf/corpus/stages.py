"""What the stages of a curation owe each other: a report of what went in, what came out and why, and restart.

A stage is a function from settings and input files to a folder. The folder is finished when it holds `report.json`,
which is written last and whole; a finished folder with the same key is not worked on again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPORT = "report.json"


@dataclass(slots=True)
class StageReport:
    """Counts of one stage: documents (or lines) read = written + the sum of `reasons`.

    Example:
        >>> report = StageReport("filter", key="k", read=3, written=2, reasons={"empty": 1})
        >>> report.lost
        0
    """

    stage: str
    key: str
    read: int = 0
    written: int = 0
    reasons: dict[str, int] = field(default_factory=dict)  # why what was read was not written
    details: dict[str, Any] = field(default_factory=dict)  # a stage's own figures
    seconds: float = 0.0

    @property
    def lost(self) -> int:
        """What is neither written nor accounted for: 0, or the stage has a defect."""
        return self.read - self.written - sum(self.reasons.values())

    def drop(self, reason: str, count: int = 1) -> None:
        """Count what was left out."""
        self.reasons[reason] = self.reasons.get(reason, 0) + count

    def save(self, folder: Path) -> None:
        """Write `report.json`, whole or not at all: from then on the folder counts as finished.

        Raises:
            OSError: if it cannot be written.
        """
        write_json(folder / REPORT, dataclasses.asdict(self))


def finished(folder: Path, key: str) -> StageReport | None:
    """The report of a finished stage, or None if the folder is not finished or was made from something else."""
    try:
        report = StageReport(**json.loads((folder / REPORT).read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None
    return report if report.key == key else None


def stage_key(*parts: Any) -> str:
    """A digest of all that decides a stage's output: settings (dataclasses), input keys, versions.

    Example:
        >>> stage_key({"a": 1}, "x") == stage_key({"a": 1}, "x") != stage_key({"a": 2}, "x")
        True
    """
    text = json.dumps(parts, sort_keys=True, default=_plain, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def files_key(files: Mapping[str, Path] | list[Path]) -> list[tuple[str, int, int]]:
    """Name, size and time of change of input files, for `stage_key`.

    Raises:
        FileNotFoundError: for a file that is not there.
    """
    paths = sorted(files.values()) if isinstance(files, Mapping) else sorted(files)
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file by way of a temporary one, so that a reader never sees half of it.

    Raises:
        OSError: if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        staged.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=_plain) + "\n", encoding="utf-8")
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):  # numpy scalars
        return value.item()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be part of a stage's key or report")
