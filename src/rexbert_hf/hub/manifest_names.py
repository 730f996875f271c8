"""Names of files in manifests: whoever wrote the folder wrote them, so they are looked at before they are followed.

A name that leads out of its folder would have a file of whoever opens a stranger's folder read, or pushed to the Hub.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def stays_inside(name: Any) -> bool:
    """Whether what a manifest names lies in the manifest's own folder, or below it.

    Args:
        name: what stands in the manifest, of whatever type.

    Example:
        >>> [stays_inside(name) for name in ("a.arrow", "home/train.parquet", "/etc/passwd", "../a.arrow", "", None)]
        [True, True, False, False, False, False]
    """
    if not isinstance(name, str) or "\0" in name:
        return False
    path = Path(name)
    return bool(path.parts) and not path.is_absolute() and not path.anchor and ".." not in path.parts
