"""Small JSON files that this package wrote itself: whatever has become of one, the error names it and the way out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def read_json_object(path: Path, way_out: str, needed: Sequence[str] = ()) -> dict[str, Any]:
    """Read a JSON file that holds a mapping.

    Args:
        path: of the file.
        way_out: what the reader of an error can do, as "restore it or run again".
        needed: keys that it must have.

    Raises:
        OSError: if it is missing or cannot be read.
        ValueError: if it is not JSON, no mapping, or lacks a key; file and line are named.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "plan.json"
        >>> _ = path.write_text('{"steps": 3}')
        >>> read_json_object(path, "plan again", ["steps"])
        {'steps': 3}
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not JSON ({error.msg}); {way_out}") from None
    except (ValueError, RecursionError) as error:  # no UTF-8, numbers of thousands of digits, endless nesting
        reason = next(iter(str(error).splitlines()), "")
        raise ValueError(f"{path}: not JSON ({reason}); {way_out}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: a mapping is expected, not a {type(found).__name__}; {way_out}")
    if missing := [key for key in needed if key not in found]:
        raise ValueError(f"{path}: no '{missing[0]}' in it; {way_out}")
    return found
