"""What reading leaves behind: counts of good, bad and empty rows, the first reasons, and when to refuse a file."""

from __future__ import annotations

from dataclasses import dataclass, field

REPORTED = 5
"""So many reasons for bad rows are kept and logged."""

USUAL_BAD_SHARE = 0.1
"""Beyond this share of bad rows format, encoding or delimiter are wrong, unless the caller knows better."""

_EARLY = 1_000
"""A file with this many bad rows is judged before its end."""

_UNDECODABLE, _UNDECODABLE_SHARE = 10, 0.005
"""With more rows than this that do not decode the encoding is in question: it loses all rows with accents, which are
few in English and are never the tenth that other flaws may be."""


@dataclass(slots=True)
class ReadReport:
    """What was read and what was not.

    Attributes:
        rows: rows that came out.
        bad: rows that were skipped because they could not be read.
        empty: rows without a value in any mapped column; they are skipped too, and not counted as bad.
        files: names of the sources, in order.
        reasons: where and why, for the first few bad rows.
    """

    rows: int = 0
    bad: int = 0
    empty: int = 0
    files: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def add(self, other: ReadReport) -> None:
        """Take over the counts of another reading.

        Args:
            other: of it; it stays as it is.
        """
        self.rows += other.rows
        self.bad += other.bad
        self.empty += other.empty
        self.files += other.files
        self.reasons += other.reasons[: max(0, REPORTED - len(self.reasons))]

    def __str__(self) -> str:
        text = f"{self.rows:,} rows from {len(self.files)} file(s), {self.bad:,} bad, {self.empty:,} empty"
        return f"{text}: {'; '.join(self.reasons)}" if self.reasons else text


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What happens to bad rows.

    Attributes:
        errors: "skip" or "raise".
        max_bad_share: the share of a file's rows that may be bad before the file is refused: of all its rows, or, from
            1,000 bad rows on, of those read so far.
    """

    errors: str = "skip"
    max_bad_share: float = USUAL_BAD_SHARE

    def __post_init__(self) -> None:
        if self.errors not in ("skip", "raise"):
            raise ValueError(f"errors is 'skip' or 'raise', got {self.errors!r}")
        if not 0.0 <= self.max_bad_share <= 1.0:
            raise ValueError(f"max_bad_share is a share in [0, 1], got {self.max_bad_share}")


class Tally:
    """Counts the rows of one source, and stops when too many of them are bad."""

    def __init__(self, name: str, unit: str, tolerance: Tolerance, report: ReadReport) -> None:
        self._name, self._unit, self._tolerance, self._report = name, unit, tolerance, report
        self.rows = 0
        self._bad = self.undecodable = self._decoded = 0
        self._undecoded = ""

    def decoded(self) -> None:
        """Count a row beyond ASCII that is as it should be, after one that was not."""
        self._decoded += 1

    def bad(self, number: int, reason: str, undecodable: bool = False) -> None:
        """Count a bad row, of bytes that do not decode or other; where and why goes to the report, or into an error."""
        place = f":{number}" if self._unit == "line" else f" {self._unit} {number}"
        where = f"{self._name}{place} {reason}"
        if self._tolerance.errors == "raise":
            raise ValueError(f"{where}; correct it, or pass errors='skip'")
        self._bad += 1
        self._report.bad += 1
        if undecodable:
            self.undecodable += 1
            self._undecoded = self._undecoded or where
        if len(self._report.reasons) < REPORTED:
            self._report.reasons.append(where)
        if self._bad >= _EARLY:
            self.judge(where, early=True)

    def judge(self, example: str = "", early: bool = False) -> None:
        """Refuse the source if the share of bad rows is too large, or if it is in another encoding.

        Args:
            example: of a bad row; by default the first that was reported.
            early: before the source's end.
        """
        of = f"{'the first ' if early else ''}{self.rows:,} rows"
        asked = self._tolerance.max_bad_share > USUAL_BAD_SHARE  # whoever raises it wants the rest
        if not asked and self.undecodable > max(_UNDECODABLE, _UNDECODABLE_SHARE * self.rows, self._decoded):
            raise ValueError(
                f"{self._name}: {self.undecodable:,} of {of} do not decode ({self._undecoded}): pass the "
                "encoding that the file was written in, as encoding='cp1252', or raise "
                f"max_bad_share={self._tolerance.max_bad_share:g} to go on without them"
            )
        if self._bad > self._tolerance.max_bad_share * self.rows:
            example = example or next((why for why in self._report.reasons if why.startswith(self._name)), "")
            raise ValueError(
                f"{self._name}: {self._bad:,} of {of} are bad ({example}); check format, encoding and "
                f"delimiter, or raise max_bad_share={self._tolerance.max_bad_share:g}"
            )
