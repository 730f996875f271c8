"""Settings of search as they take effect, for what is compared: a value that changed nothing makes no other run.

Earlier versions took some values and let them change nothing; they are refused now. A run that began with one goes on
under the value that it had the effect of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LATER = frozenset({"relevant", "processes", "block_size", "cached"})
"""Keys of a description that earlier versions did not write: their runs go on without."""


def in_effect(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with what each of them comes to.

    Args:
        fields: by dotted keys, of this version or an earlier one.

    Example:
        >>> in_effect({"mining.keep": 20, "mining.depth": 15, "mining.skip": 10})["mining.keep"]
        5
        >>> in_effect({"loss.name": "hinge", "rows.made_up": 0.2})["rows.made_up"]
        0.0
    """
    found = dict(fields)
    keep, depth, skip = (fields.get(f"mining.{name}") for name in ("keep", "depth", "skip"))
    if isinstance(keep, int) and isinstance(depth, int) and isinstance(skip, int):
        found["mining.keep"] = min(keep, depth - skip)  # no more ranks are looked at
    if "rows.made_up" in fields and fields.get("loss.name") in ("hinge", "cosent"):
        found["rows.made_up"] = 0.0  # of rows for the ranking loss only
    return found
