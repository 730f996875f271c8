"""A result that is written beside the finished one and takes its place at the end.

Writing lasts minutes and renaming does not, so a run that is killed while it makes a new result leaves the old one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rexbert_hf.hub.run_file import RUN_FILE, sync


def take_place(staged: Path, folder: Path, owned: Sequence[str] = ()) -> None:
    """Move all files of a staged folder into a run's folder, where they replace those of an earlier run.

    The earlier `run.json` goes first: without it a folder is no finished run, so whoever is stopped between two files
    leaves nothing that the next start takes for finished. The caller writes the new one afterwards.

    Args:
        staged: on the same file system; its files are on disk before the first one is moved.
        folder: of the run; made when missing.
        owned: names or patterns in `folder` of what only this kind of run writes: what the new result lacks is removed.

    Raises:
        OSError: if a file cannot be moved.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("run.json", "old.txt", ".new/new.txt"):
        ...     (folder / name).parent.mkdir(exist_ok=True)
        ...     _ = (folder / name).write_text(name)
        >>> take_place(folder / ".new", folder, ["old*"])
        >>> sorted(path.name for path in folder.iterdir() if path.is_file())
        ['new.txt']
    """
    names = sorted(path.relative_to(staged) for path in staged.rglob("*") if path.is_file())
    for name in names:
        sync(staged / name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RUN_FILE).unlink(missing_ok=True)
    sync(folder)
    for old in [path for pattern in owned for path in folder.glob(pattern)]:
        if old.is_file() and old.relative_to(folder) not in names:
            old.unlink()
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (staged / name).replace(folder / name)
    sync(folder)
