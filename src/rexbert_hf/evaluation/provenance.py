"""When, where and with what a cell was measured: kept with the cell, because a report may be of several days."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rexbert_hf.hub import git_commit, hardware, versions


def measured_now() -> dict[str, Any]:
    """Date (UTC), hardware, versions and commit."""
    return {"date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), **_machine()}


@functools.cache
def _machine() -> dict[str, Any]:
    return {"hardware": hardware(), "versions": versions(), "git_commit": git_commit()}


def together(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The provenance of several cells in one: the first and last date, and all that differs with " / " between.

    Args:
        cells: of `measured_now`; empty ones are of versions that kept none.

    Example:
        >>> one = {"date": "2026-01-01", "hardware": "A", "versions": {"torch": "2"}, "git_commit": None}
        >>> together([one, {**one, "date": "2026-01-02", "versions": {"torch": "3"}}, {}])["versions"]
        {'torch': '2 / 3'}
    """
    known = [cell for cell in cells if cell]
    if not known:
        return {}
    dates = sorted({str(cell["date"]) for cell in known})
    packages = dict.fromkeys(name for cell in known for name in cell["versions"])
    return {
        "date": dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}",
        "hardware": _all(cell["hardware"] for cell in known),
        "versions": {name: _all(cell["versions"].get(name) for cell in known) for name in packages},
        "git_commit": _all(cell["git_commit"] for cell in known),
    }


def _all(values: Any) -> str | None:
    return " / ".join(dict.fromkeys(str(value) for value in values if value is not None)) or None
