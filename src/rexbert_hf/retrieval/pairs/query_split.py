"""Where a query belongs, and which of its events count: by the hash of its text, and by time (section 3.1).

The split goes by query, so no test query is ever trained on; time only says which events of it are looked at.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal

from rexbert_hf.catalog import SPLITS, split_of


def moment_of(time: Any) -> datetime:
    """A time of a log with its zone; UTC where it names none.

    Args:
        time: a date, a datetime, ISO text, a date and time in digits alone (20260501, 202605011200, 20260501120000), or
            a Unix time in seconds, milliseconds, microseconds or nanoseconds (told apart by their size).

    Raises:
        ValueError: if it is none of these, or a Unix time after the year 2200.

    Example:
        >>> times = date(2026, 5, 1), "2026-05-01T02:00+02:00", 1777593600, 20260501000000
        >>> {moment_of(time).isoformat() for time in times}
        {'2026-05-01T00:00:00+00:00'}
    """
    found: Any = time.strip() if isinstance(time, str) else time
    try:
        if isinstance(found, str) and not found.replace(".", "", 1).isdigit():
            found = datetime.fromisoformat(found)
        elif isinstance(found, str | int | float):
            found = _compact(found) or _unix(float(found))
        elif isinstance(time, date) and not isinstance(time, datetime):
            found = datetime(time.year, time.month, time.day)
        found = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
        return found.astimezone(UTC)
    except (ValueError, TypeError, AttributeError, OverflowError, OSError):
        raise ValueError(f"time {time!r} is no moment: give ISO text, a date or a Unix time") from None


_SECONDS = 1e11
"""A Unix time of more is in milliseconds or finer: in seconds it would be after the year 5000."""
_LATEST = datetime(2200, 1, 1, tzinfo=UTC)
_COMPACT = re.compile(r"((?:19|20|21)\d{6})(\d{4}(?:\d\d)?)?(?:\.0*)?")
"""In digits alone. Unix times of these sizes lie in 1970 and 1976, or far ahead: no log has such."""


def _compact(time: str | float) -> datetime | None:
    """What digits such as 20260501 or 20260501120000 say; None for those that say no date."""
    written = _COMPACT.fullmatch(f"{time:.0f}" if isinstance(time, float) else str(time))
    if written is None:
        return None
    try:
        return datetime.fromisoformat(f"{written[1]}T{written[2]}" if written[2] else written[1])
    except ValueError:
        return None


def _unix(time: float) -> datetime:
    while _SECONDS <= abs(time) < math.inf:
        time /= 1000
    found = datetime.fromtimestamp(time, UTC)
    if found >= _LATEST:
        raise ValueError("no log is of that time")
    return found


@dataclass(frozen=True)
class QuerySplit:
    """Where a query belongs, and which of its events count.

    Attributes:
        held_out: share of the queries that training never sees, half validation and half test.
        rule: "text" is the split of all recipes (`catalog.split_of`); "sha1_mod_10" takes the last decimal digit of the
            SHA-1 of the query as it stands: 0 and 1 are test, 2 is validation (the published Home Depot split).
        train_until: training takes events before this moment only, validation and test later ones only; None: all. What
            names no time zone is UTC, here and in the log.

    Example:
        >>> QuerySplit(rule="sha1_mod_10").of("angle bracket")
        'test'
    """

    held_out: float = 0.1
    rule: Literal["text", "sha1_mod_10"] = "text"
    train_until: datetime | None = None

    def __post_init__(self) -> None:
        if self.train_until is not None:
            object.__setattr__(self, "train_until", moment_of(self.train_until))
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out is a share of the queries, at least 0 and below 1; got {self.held_out}")

    def of(self, query: str) -> str:
        """Name of the split of a query.

        Args:
            query: its text.
        """
        if self.rule == "text":
            return split_of(query, self.held_out)
        digest = hashlib.sha1(query.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()
        return {0: "test", 1: "test", 2: "validation"}.get(int(digest, 16) % 10, "train")

    def further(self, known: int, query: str) -> int:
        """The split of a query of which another form is known: the one that is held out more.

        By the hash of the text as it stands, "deck  over" and "deck over" may differ; training must see neither then.

        Args:
            known: index into `SPLITS` of the forms so far; 0 for none.
            query: the text as it stands.
        """
        return max(known, SPLITS.index(self.of(query)))

    def counts(self, split: str, time: Any) -> bool:
        """Whether an event of a query of `split` is inside the period of that split.

        Args:
            split: of its query.
            time: when it happened, as `moment_of` takes it.

        Raises:
            ValueError: if the time is none.
        """
        if self.train_until is None:
            return True
        return time is not None and (moment_of(time) < self.train_until) == (split == "train")
