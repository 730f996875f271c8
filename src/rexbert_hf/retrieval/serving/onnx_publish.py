"""An export that takes the place of the one that is served: a reader finds the old one whole, or the new one.

`encoder.json` says which files count and what their sums are. New files come under other names, and it is replaced by
one that names those; then they get their usual names as hard links, it is replaced by one that names these, and the
others go. So it names whole files at any moment; a reader who was caught between two of its versions reads again.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from rexbert_hf.hub.left_over import remove_left, staged_name
from rexbert_hf.hub.run_file import RUN_FILE, sync, write_whole
from rexbert_hf.retrieval.serving import onnx_export
from rexbert_hf.retrieval.serving.onnx_encoder import ENCODER_FILE, TOKENIZER_FILE
from rexbert_hf.retrieval.serving.onnx_export import CODE_FILE, GRAPHS, Difference

STAGING = ".export-"
"""Beginning of the folder's name that an export is written in."""
_NEW = ("next-", "later-")
"""Beginnings of the names that files have on the way: one that a killed run left may be what is served."""


def export_in_place(model: Any, folder: Path, *args: Any, **options: Any) -> dict[str, Difference]:
    """Export a sentence encoder into a folder whose earlier export is served until the new one takes its place.

    Args:
        model: as in `export_onnx`.
        folder: of the export; made when missing. Its `run.json` goes.
        *args: of `export_onnx`.
        **options: of `export_onnx`.

    Returns:
        The difference of each precision.

    Raises:
        ValueError: as in `export_onnx`; the earlier export is untouched.
        ImportError: likewise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_left(folder, STAGING)
    staged = folder / staged_name(STAGING)
    try:
        found = onnx_export.export_onnx(model, staged, *args, **options)
        publish_export(staged, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return found


def publish_export(staged: Path, folder: Path) -> None:
    """Put an export in the place of an earlier one.

    Args:
        staged: holds the new one, on the same file system.
        folder: may hold an earlier one.

    Raises:
        OSError: if a file cannot be written; the folder holds one of the two, whole.
    """
    facts = json.loads((staged / ENCODER_FILE).read_text(encoding="utf-8"))
    names = [name for name in (*facts["graphs"].values(), TOKENIZER_FILE) if (staged / name).exists()]
    for name in names:
        sync(staged / name)
    (folder / RUN_FILE).unlink(missing_ok=True)  # it says what was measured of the earlier one
    served = _served(folder)
    prefix = next(start for start in _NEW if not any(name.startswith(start) for name in served))
    for name in names:
        (staged / name).replace(folder / f"{prefix}{name}")
    if (staged / CODE_FILE).exists():
        (staged / CODE_FILE).replace(folder / CODE_FILE)  # it reads the earlier export too
    _say(folder, _renamed(facts, prefix))
    for name in names:
        _link(folder / f"{prefix}{name}", staged / name)
        (staged / name).replace(folder / name)
    _say(folder, facts)
    usual = {*GRAPHS.values(), TOKENIZER_FILE}
    for old in {*usual, *(f"{start}{name}" for start in _NEW for name in usual)} - set(names):
        (folder / old).unlink(missing_ok=True)


def _served(folder: Path) -> set[str]:
    """Files that the export of a folder names; none where there is none that can be read."""
    try:
        facts = json.loads((folder / ENCODER_FILE).read_text(encoding="utf-8"))
        return {str(name) for name in (*facts["graphs"].values(), facts.get("tokenizer", TOKENIZER_FILE))}
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return set()


def _renamed(facts: dict[str, Any], prefix: str) -> dict[str, Any]:
    graphs = {precision: f"{prefix}{name}" for precision, name in facts["graphs"].items()}
    sums = {f"{prefix}{name}": value for name, value in facts.get("crc32", {}).items()}
    return {**facts, "graphs": graphs, "crc32": sums, "tokenizer": f"{prefix}{TOKENIZER_FILE}"}


def _say(folder: Path, facts: dict[str, Any]) -> None:
    sync(folder)
    write_whole(folder / ENCODER_FILE, (json.dumps(facts, indent=1) + "\n").encode())


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
        sync(target)
