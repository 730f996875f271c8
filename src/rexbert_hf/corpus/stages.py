"""What the stages of a curation owe each other: a report of what went in, what came out and why, and restart.

A stage is a function from settings and input files to a folder. The folder is finished when it holds `report.json`,
which is written last and whole; a finished folder with the same key is not worked on again, unless an output that the
report names is gone or has another size. Before a stage changes anything in its folder the old report goes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

REPORT = "report.json"
_OUTPUTS = "outputs"
"""Key of the report's file alone: the sizes of what later stages read."""


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

    def save(self, folder: Path, outputs: Iterable[str | Path] = ()) -> None:
        """Write `report.json`, whole or not at all: from then on the folder counts as finished.

        Args:
            folder: the stage's.
            outputs: files in it without which it is not finished.

        Raises:
            OSError: if it cannot be written, or an output is not there.
        """
        sizes = {Path(name).as_posix(): (folder / name).stat().st_size for name in outputs}
        write_json(folder / REPORT, {**dataclasses.asdict(self), _OUTPUTS: sizes})


def read_report(folder: Path) -> StageReport | None:
    """The report in a stage's folder; None if there is none that can be read."""
    found = _read(folder)
    return None if found is None else found[0]


def _read(folder: Path) -> tuple[StageReport, dict[str, int]] | None:
    """The report and the sizes of outputs; reports of earlier versions name none."""
    try:
        found = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        outputs = found.pop(_OUTPUTS, {})
        return StageReport(**found), outputs
    except (FileNotFoundError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def finished(folder: Path, key: str) -> StageReport | None:
    """The report of a finished stage; None if the folder is not finished, not whole, or was made from something else.

    Args:
        folder: the stage's.
        key: of what the stage would make now.
    """
    found = _read(folder)
    if found is None or found[0].key != key:
        return None
    for name, size in found[1].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            state = "damaged" if path.is_file() else "gone"
            logger.warning("%s is %s: the stage '%s' makes it again", path, state, found[0].stage)
            return None
    return found[0]


def begin(folder: Path, key: str) -> StageReport | None:
    """The report of a finished stage; else None, and no report stands beside what is about to change.

    Args:
        folder: the stage's.
        key: of what the stage would make now.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> StageReport("label", "old").save(folder)
        >>> begin(folder, "old") is None, begin(folder, "new") is None, (folder / REPORT).exists()
        (False, True, False)
    """
    report = finished(folder, key)
    if report is None:
        (folder / REPORT).unlink(missing_ok=True)
    return report


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
