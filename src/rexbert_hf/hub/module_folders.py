"""Where the modules of a sentence-transformers model lie: the folders that its own files name, and no others.

A folder that only looks like a module's (a year, a run's number) may hold anything, so names decide nothing here.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from .manifest_names import stays_inside


def module_folders(root: Path) -> list[str]:
    """Folders that `modules.json` and each `router_config.json` name, as paths below the model's folder.

    Args:
        root: of the model; one without modules names none.

    Returns:
        The names in their order, each once; the model's own folder is not among them.

    Raises:
        ValueError: if a file cannot be read, or names a folder outside.
    """
    found: list[str] = []
    if (path := root / "modules.json").is_file():
        modules = _read(path)
        if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
            raise ValueError(f"{path}: cannot be read (it is no list of modules); save the model again")
        found += [_inside(root, path, str(module.get("path", ""))) for module in modules]
    for place in dict.fromkeys(["", *found]):
        if (path := root / place / "router_config.json").is_file():  # separate encoders
            config = _read(path)
            types = config.get("types") if isinstance(config, dict) else None
            if not isinstance(types, dict):
                raise ValueError(f"{path}: cannot be read (it names no types); save the model again")
            found += [_inside(root, path, str(PurePosixPath(place, name))) for name in types]
    return [name for name in dict.fromkeys(found) if name]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); save the model again") from None


def _inside(root: Path, path: Path, name: str) -> str:
    """The name in its plainest form, "" for the model's own folder."""
    if not PurePosixPath(name).parts:
        return ""
    if not stays_inside(name) or not (root / name).resolve().is_relative_to(root.resolve()):  # it may be a link
        raise ValueError(f"{path}: the module {name!r} lies outside the model's folder: save the model again")
    return PurePosixPath(name).as_posix()
