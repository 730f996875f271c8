"""GLUE's published files: which columns and parts each task has, in GLUE's own layout and in that of its mirrors.

GLUE keeps the labels of its test sets, so figures are of its dev sets, as everywhere; what chooses epochs and rates is
then a part of train. A folder that holds a labelled test file beside (STS-B, SST-2, MRPC of the original releases) is
measured on that one, and its dev file chooses.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rexbert_hf.catalog.whole_files import csv_rows
from rexbert_hf.evaluation.task import DataMissing

logger = logging.getLogger(__name__)

MOST_SHORT = 0.001
"""Share of the lines of a file that may lack fields: the official QQP has a few in 400,000."""


@dataclass(frozen=True)
class GlueFiles:
    """How a task's files look.

    Attributes:
        text: column of the text.
        label: column of the label.
        pair: column of the second text, if there is one.
        parts: triples (train, dev or None, test) of file names, the first that is there counts; a dev of None is cut
            from train.
        columns: names of the columns of files without a header, by the ending of the file.
    """

    text: str
    label: str
    pair: str | None = None
    parts: tuple[tuple[str, str | None, str], ...] = (
        ("train.tsv", "val.tsv", "dev.tsv"),
        ("train.tsv", None, "dev.tsv"),
    )
    columns: Mapping[str, tuple[str, ...]] | None = None


_MRPC_PARTS = (("msr_paraphrase_train.txt", None, "msr_paraphrase_test.txt"), ("train.tsv", None, "dev.tsv"))
_STS_PARTS = (("stsb-en-train.csv", "stsb-en-dev.csv", "stsb-en-test.csv"), ("train.tsv", None, "dev.tsv"))
_SST_PARTS = (("train.tsv", "dev.tsv", "test.tsv"), ("train.tsv", None, "dev.tsv"))

GLUE_FILES: dict[str, GlueFiles] = {
    "CoLA": GlueFiles("sentence", "label", columns={".tsv": ("source", "label", "star", "sentence")}),
    "SST-2": GlueFiles("sentence", "label", parts=_SST_PARTS),
    "MRPC": GlueFiles("#1 String", "Quality", "#2 String", _MRPC_PARTS),
    "STS-B": GlueFiles(
        "sentence1", "score", "sentence2", _STS_PARTS, columns={".csv": ("sentence1", "sentence2", "score")}
    ),
    "QQP": GlueFiles("question1", "is_duplicate", "question2"),
    "MNLI": GlueFiles("sentence1", "gold_label", "sentence2", (("train.tsv", None, "dev_matched.tsv"),)),
    "QNLI": GlueFiles("question", "label", "sentence"),
    "RTE": GlueFiles("sentence1", "label", "sentence2"),
    "WNLI": GlueFiles("sentence1", "label", "sentence2"),
}
"""By the name of the folder."""


def glue_parts(folder: Path, files: GlueFiles) -> tuple[Path, Path | None, Path]:
    """Train, dev (None: cut it from train) and test file of a task.

    Args:
        folder: of the task.
        files: how they look.

    Raises:
        DataMissing: if no complete set of files is there.
    """
    for train, dev, test in files.parts:
        wanted = [folder / name for name in (train, dev, test) if name is not None]
        # The test file of GLUE itself has no labels.
        if all(path.is_file() for path in wanted) and has_label(wanted[-1], files):
            return folder / train, None if dev is None else folder / dev, folder / test
    sets = " or ".join(", ".join(name for name in part if name) for part in files.parts)
    raise DataMissing(f"{folder} does not hold {sets}")


def has_label(path: Path, files: GlueFiles) -> bool:
    """Whether a file has the column of labels.

    Args:
        path: of the file.
        files: how it looks.
    """
    return files.label in _names(path, files)


def glue_rows(
    path: Path, files: GlueFiles, train: Path, short: list[str]
) -> Iterator[tuple[str, str, str | None, str]]:
    """Place, text, second text and label of each row; the few lines with too few fields are left out.

    Args:
        path: of the file.
        files: how it looks.
        train: a file without a header has the columns of this one.
        short: places of the lines that are left out are added here.

    Raises:
        ValueError: if a column is missing, a line is no CSV, or more than `MOST_SHORT` of them have too few fields.
    """
    names, skip = _names(path, files), 0 if _given(path, files) else 1
    if files.label not in names and len(names) == len(_names(train, files)):
        names, skip = _names(train, files), 0
    wanted = [name for name in (files.text, files.pair, files.label) if name is not None]
    absent = [name for name in wanted if name not in names]
    if absent:
        raise ValueError(f"{path}: no column '{absent[0]}', only {', '.join(names)}")
    places = [names.index(name) for name in wanted]
    count, before, first = 0, len(short), ""
    for number, fields in _lines(path, skip):
        count += 1
        if len(fields) <= max(places):
            first = first or f"{len(fields)} fields, but column '{wanted[-1]}' is wanted"
            short.append(f"{path}, line {number}")
            continue
        found = [fields[place] for place in places]
        yield f"{path}, line {number}", found[0], found[1] if files.pair else None, found[-1]
    if len(short) - before > MOST_SHORT * count:
        more = f" ({len(short) - before} of {count} lines are so)"
        raise ValueError(f"{short[before]}: {first}{more}")
    if len(short) > before:
        logger.warning("%s: %d of %d lines are left out: too few fields", path, len(short) - before, count)


def _given(path: Path, files: GlueFiles) -> Sequence[str] | None:
    """Column names of a file without a header; GLUE's own STS-B is a table with one."""
    return (files.columns or {}).get(path.suffix)


def _names(path: Path, files: GlueFiles) -> Sequence[str]:
    return _given(path, files) or next(_lines(path), (0, []))[1]


def _lines(path: Path, skip: int = 0) -> Iterator[tuple[int, list[str]]]:
    """Fields of each line; tab-separated files quote nothing."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            if path.suffix == ".csv":
                lines: Iterable[tuple[int, list[str]]] = csv_rows(handle, path)
            else:
                lines = ((i, line.rstrip("\r\n").split("\t")) for i, line in enumerate(handle, start=1))
            for number, fields in lines:
                if number > skip and any(fields):
                    yield number, fields
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error.reason}); store it as UTF-8, or fetch it again") from None
