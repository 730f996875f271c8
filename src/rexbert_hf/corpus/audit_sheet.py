"""The sheet that a person fills in for an audit: documents without the labels they have, so that the look is fresh.

Two decisions worth knowing. Identifiers stand behind `id:`, because spreadsheets turn 000123 into 123 otherwise. And
text of a crawl that a spreadsheet would run as a formula stands behind an apostrophe.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from rexbert_hf.hub.run_file import write_whole

from ..catalog.escapes import as_cell, listed
from .documents import Document
from .offline_labellers import ReadyLabels, ReadySettings
from .vertical import Vertical

_SHOWN_CHARS = 4_000
_COLUMNS = ("id", "label", "domain", "url", "text")
_PREFIX = "id:"
_SAVE_AS = "save the sheet as 'CSV UTF-8', with every quote closed"


def write_sheet(path: Path, documents: Sequence[Document], vertical: Vertical) -> None:
    """Write a CSV with an empty column `label`; the descriptions of the labels stand in a text file beside it.

    Args:
        path: of the CSV.
        documents: a row each.
        vertical: whose labels are wanted.

    Raises:
        OSError: if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"Labels for {vertical.name}: {vertical.description}", ""]
    lines += [f"{label}: {description}" for label, description in vertical.labels.items()]
    write_whole(path.with_suffix(".txt"), ("\n".join(lines) + "\n").encode())
    sheet = io.StringIO(newline="")
    writer = csv.writer(sheet)
    writer.writerow(_COLUMNS)
    writer.writerows(_row(document).values() for document in documents)
    write_whole(path, sheet.getvalue().encode("utf-8-sig"))  # spreadsheets take the mark for UTF-8


def _row(document: Document) -> dict[str, str]:
    about = (as_cell(text) for text in (document.domain, document.url, document.text[:_SHOWN_CHARS]))
    return dict(zip(_COLUMNS, (_PREFIX + document.id, "", *about), strict=True))


def _add_rows(path: Path, documents: Sequence[Document]) -> None:
    """Add rows to a sheet, under the columns that it has; what stands there stays byte for byte."""
    content, added = path.read_bytes(), io.StringIO(newline="")
    columns = next(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    csv.DictWriter(added, columns, restval="", extrasaction="ignore").writerows(map(_row, documents))
    write_whole(path, content + (b"" if content.endswith(b"\n") else b"\r\n") + added.getvalue().encode())


class SheetLabels(ReadyLabels):
    """The labels of a sheet, in the rows that `read_sheet` has checked: none is lost, however long its text is."""

    def _read(self) -> Iterator[tuple[str, str]]:
        for _, row in _rows(Path(self.settings.path)):
            if label := (row["label"] or "").strip():
                yield _identifier(row), label


def read_sheet(
    path: Path,
    vertical: Vertical,
    known: Container[str],
    drawn: Sequence[Document] = (),
    max_missing_share: float = 0.0,
) -> SheetLabels:
    """Check that a sheet has been filled in, and read it.

    Args:
        path: of the CSV.
        vertical: whose labels it has.
        known: identifiers of all documents that it may speak of.
        drawn: documents whose labels are wanted. Those without a row, as of a sample that was drawn anew, get one.
        max_missing_share: of them that may have no label; then none gets a row.

    Raises:
        ValueError: if it is no CSV in UTF-8, a column is missing, no row has a label, or a row has one that is not the
            vertical's, or an identifier that is no document's; or if rows were added.
    """
    rows: dict[str, bool] = {}
    for line, row in _rows(path):
        label, identifier = (row["label"] or "").strip(), _identifier(row)
        if label and label not in vertical.labels:
            raise ValueError(f"{path}:{line}: '{label}' is not one of the labels {', '.join(vertical.labels)}")
        if label and identifier not in known:
            raise ValueError(
                f"{path}:{line}: no document has the id '{row['id']}': a spreadsheet may have changed it; "
                "move the sheet away, start again for a new one, and leave its ids as they are"
            )
        rows[identifier] = rows.get(identifier, False) or bool(label)
    lacking = [document for document in drawn if document.id.strip() not in rows]
    missing = sum(not rows.get(document.id.strip()) for document in drawn)
    if lacking and missing > max_missing_share * len(drawn):
        _add_rows(path, lacking)
        raise ValueError(
            f"{path}: {len(lacking):,} of {len(drawn):,} documents had no row, since another sample is drawn now: the "
            "sheet has them at its end and keeps all labels; fill in the column 'label' and start again"
        )
    if not any(rows.values()):
        raise ValueError(f"{path}: the column 'label' is empty: fill it in with {', '.join(vertical.labels)}")
    return SheetLabels(ReadySettings(path=str(path)), vertical)


def _identifier(row: dict[str, str | None]) -> str:
    return (row["id"] or "").strip().removeprefix(_PREFIX)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Rows with the lines that they end on."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{line}: not UTF-8: {_SAVE_AS}") from None
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)  # or an open quote takes in all that follows
    begun = 1
    try:
        for column in ("id", "label"):
            if column not in (rows.fieldnames or ()):
                raise ValueError(f"{path}: no column '{column}'; it has {listed(rows.fieldnames or ())}")
        begun = rows.line_num + 1
        for row in rows:
            yield rows.line_num, row
            begun = rows.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}:{begun}: {error}: {_SAVE_AS}") from None
