"""Filter a crawl: judge each document, then drop what repeats an earlier one; several processes, restartable.

One process reads, so that any source will do, and hands shards of documents to workers. A shard is done when its folder
stands in `work/`; it appears there whole. When all are, duplicates are found over the signatures of all shards, and
each shard is split into `kept/` and `rejected/`, again a file at a time. So a run that was killed at any moment goes
on where it stood, and its end does not depend on that, nor on the number of workers.
"""

from __future__ import annotations

import errno
import importlib.metadata
import json
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..settings.worker_pool import in_order
from .document_files import SCHEMA
from .documents import Document, DocumentSource, read_documents, sources_key
from .duplicates import EXACT, NEAR, find_duplicates, sign
from .fasttext_model import FastTextClassifier
from .judging import FilterSettings, Judge
from .sample import MOST_NAMED, none_of_these
from .stages import StageReport, begin, files_key, stage_key, write_json

logger = logging.getLogger(__name__)

KEPT, REJECTED, WORK = "kept", "rejected", "work"
KEPT_SCHEMA = SCHEMA.append(pa.field("score", pa.float32()))
REJECTED_SCHEMA = KEPT_SCHEMA.append(pa.field("reason", pa.string()))
_REASONS = {EXACT: "exact_duplicate", NEAR: "near_duplicate"}
_NOT_SELECTED = "domain_not_selected"
_BATCH = 512
_SHARD_CHARS = 1 << 25
"""A shard ends at so many characters, whatever its documents: what a worker holds in memory."""

_RULES = 2
"""Goes up when the rules change: shards that other rules judged are judged again. A finished filter stays as it is."""

Shard = tuple[int, list[Document]]


def filter_corpus(
    settings: FilterSettings,
    sources: Sequence[DocumentSource],
    domains: Sequence[str] | None,
    classifier: FastTextClassifier | str | Path | None,
    output: str | Path,
    workers: int = 1,
) -> StageReport:
    """Write the documents that stay to `output/kept`, the others with their reasons to `output/rejected`.

    Args:
        settings: what is kept.
        sources: where documents come from.
        domains: the selected ones; documents of others are counted and not written. None for all.
        classifier: of the domain, or its folder; None keeps all domains' texts and judges language and quality.
        output: the stage's folder.
        workers: processes; 1 works in this one.

    Returns:
        The report: `read` = `written` + `reasons`.

    Raises:
        FileNotFoundError: if a source or the classifier is not there.
        ValueError: if there are documents, and none is of the selected domains.
        OSError: if the disk is full or a worker was killed; finished shards stay, and the next run goes on from there.
    """
    output, started = Path(output), time.monotonic()
    judge = Judge(settings, classifier)
    fingerprint = judge.classifier.fingerprint if judge.classifier is not None else None
    if judge.classifier is not None:
        judge.classifier.scores([""])  # loaded once, before workers are forked
    model = settings.language.model
    code = importlib.metadata.version("rexbert-hf"), [] if model is None else files_key([Path(model)])
    wanted = None if domains is None else sorted(domains)
    key = stage_key("filter", settings, sources_key(sources), wanted, fingerprint, code)
    if (done := begin(output, key)) is not None:
        shutil.rmtree(output / WORK, ignore_errors=True)
        return done
    _prepare(output, key)
    report = StageReport("filter", key)
    run = _Run(settings, judge, output)
    try:
        shards = _judge_all(run, sources, domains, report, workers)
        verdicts = find_duplicates(
            [run.folder(i) for i in range(shards)], settings.exact_duplicates, settings.near_duplicates
        )
        _split_all(run, verdicts, report, workers)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            error.errno, f"no room in {output}: finished shards are kept; make room and run the filter again"
        ) from error
    report.seconds = time.monotonic() - started
    report.save(output, [run.part(kind, i).relative_to(output) for i in range(shards) for kind in (KEPT, REJECTED)])
    shutil.rmtree(output / WORK, ignore_errors=True)
    return report


class _Run:
    """What workers need: judge and folders. Pickles as settings and a classifier's path."""

    def __init__(self, settings: FilterSettings, judge: Judge, output: Path) -> None:
        self.settings, self.judge, self.output = settings, judge, output

    def folder(self, shard: int) -> Path:
        """Where a judged shard lies."""
        return self.output / WORK / f"{shard:05d}"

    def part(self, kind: str, shard: int) -> Path:
        """A finished shard's file of kept or of rejected documents."""
        return self.output / kind / f"part-{shard:05d}.parquet"

    def judge_shard(self, shard: Shard) -> int:
        """Judge the documents of a shard and write them, with reasons and signatures, as one folder."""
        number, documents = shard
        target = self.folder(number)
        staged = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            staged.mkdir(parents=True)
            lines = self._write_judged(documents, staged)
            write_json(staged / "shard.json", {"documents": len(documents), "lines": lines})
            if not target.is_dir():  # a worker that outlived its killed run may have been faster
                os.replace(staged, target)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        return number

    def _write_judged(self, documents: list[Document], folder: Path) -> tuple[int, int]:
        stayed = went = 0
        texts: list[str] = []
        with pq.ParquetWriter(folder / "documents.parquet", REJECTED_SCHEMA, compression="zstd") as writer:
            for i in range(0, len(documents), _BATCH):
                batch = documents[i : i + _BATCH]
                verdicts = self.judge([document.text for document in batch])
                texts += [text for text, reason in zip(verdicts.texts, verdicts.reasons, strict=True) if not reason]
                stayed, went = stayed + verdicts.lines[0], went + verdicts.lines[1]
                columns: dict[str, Any] = {
                    name: [getattr(document, name) for document in batch] for name in SCHEMA.names
                }
                columns |= {"text": verdicts.texts, "score": verdicts.scores, "reason": verdicts.reasons}
                writer.write_table(pa.table(columns, schema=REJECTED_SCHEMA))
        sign(texts, self.settings.exact_duplicates, self.settings.near_duplicates).save(folder)
        return stayed, went

    def split_shard(self, task: tuple[int, np.ndarray]) -> Counter[str]:
        """Write a judged shard as kept and rejected documents; count the reasons, "" for kept."""
        number, verdicts = task
        kept, rejected = self.part(KEPT, number), self.part(REJECTED, number)
        if kept.is_file():  # the later one of the two
            counts = Counter(pq.read_table(rejected, columns=["reason"])["reason"].to_pylist())
            return counts + Counter({"": pq.read_metadata(kept).num_rows})
        counts = Counter()
        paths = [path.with_name(f".{path.name}.{os.getpid()}") for path in (kept, rejected)]
        try:
            with (
                pq.ParquetFile(self.folder(number) / "documents.parquet") as source,
                pq.ParquetWriter(paths[0], KEPT_SCHEMA, compression="zstd") as kept_file,
                pq.ParquetWriter(paths[1], REJECTED_SCHEMA, compression="zstd") as rejected_file,
            ):
                at = 0
                for batch in source.iter_batches(batch_size=_BATCH):
                    reasons = np.array(batch["reason"].to_pylist(), dtype=object)
                    open_ = np.flatnonzero(reasons == "")
                    own = verdicts[at : at + len(open_)]
                    at += len(open_)
                    for verdict, reason in _REASONS.items():
                        reasons[open_[own == verdict]] = reason
                    counts.update(reasons.tolist())
                    table = pa.Table.from_batches([batch]).set_column(
                        REJECTED_SCHEMA.get_field_index("reason"), "reason", pa.array(reasons.tolist(), pa.string())
                    )
                    stays = pa.array(reasons == "")
                    kept_file.write_table(table.filter(stays).select(KEPT_SCHEMA.names))
                    rejected_file.write_table(table.filter(pa.array(reasons != "")))
            os.replace(paths[1], rejected)
            os.replace(paths[0], kept)
        finally:
            for path in paths:
                path.unlink(missing_ok=True)
        return counts


def _prepare(output: Path, key: str) -> None:
    """Clear away what another input or a killed process left; finished shards of this one stay."""
    note, key = output / WORK / "key.json", stage_key(key, _RULES)
    same = note.is_file() and note.read_text(encoding="utf-8").strip() == f'"{key}"'
    for kind in (KEPT, REJECTED):
        (output / kind).mkdir(parents=True, exist_ok=True)
        for path in [*(output / kind).glob("part-*.parquet"), *(output / kind).glob(".part-*")]:
            if not same or path.name.startswith("."):
                path.unlink(missing_ok=True)
    if not same:
        shutil.rmtree(output / WORK, ignore_errors=True)
        write_json(note, key)
    for path in (output / WORK).glob(".*"):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _judge_all(
    run: _Run, sources: Sequence[DocumentSource], domains: Sequence[str] | None, report: StageReport, workers: int
) -> int:
    """Judge every shard that is not done; how many there are."""
    count = reused = 0

    def tasks() -> Iterator[Shard]:
        nonlocal count, reused
        for shard in _shards(sources, domains, report, run.settings.rows_per_shard):
            count += 1
            if run.folder(shard[0]).is_dir():
                reused += 1
            else:
                yield shard

    for number in in_order(run.judge_shard, tasks(), workers):
        logger.debug("shard %d is judged", number)
    if reused:
        logger.info("%d of %d shards were judged before", reused, count)
    return count


def _shards(
    sources: Sequence[DocumentSource], domains: Sequence[str] | None, report: StageReport, rows: int
) -> Iterator[Shard]:
    wanted = None if domains is None else set(domains)
    number, chars, documents = 0, 0, list[Document]()
    others: dict[str, None] = {}
    for document in read_documents(sources, report):
        if wanted is not None and document.domain not in wanted:
            report.drop(_NOT_SELECTED)
            if len(others) < MOST_NAMED:
                others[document.domain] = None
            continue
        documents.append(document)
        chars += len(document.text)
        if len(documents) >= rows or chars >= _SHARD_CHARS:
            yield number, documents
            number, chars, documents = number + 1, 0, []
    if wanted is not None and others and not documents and number == 0:  # a whole crawl would be lost without a word
        raise none_of_these(wanted, others)
    if documents or number == 0:
        yield number, documents


def _split_all(run: _Run, verdicts: list[np.ndarray], report: StageReport, workers: int) -> None:
    """Write all final files and count."""
    tasks = ((number, own) for number, own in enumerate(verdicts))
    counts: Counter[str] = Counter()
    for found in in_order(run.split_shard, tasks, workers):
        counts += found
    report.written = counts.pop("", 0)
    for reason, number in sorted(counts.items()):
        report.drop(reason, number)
    report.details["shards"] = len(verdicts)
    if run.settings.level != "document":
        report.details["lines"] = _lines(run, len(verdicts))


def _lines(run: _Run, shards: int) -> dict[str, Any]:
    read = [json.loads((run.folder(i) / "shard.json").read_text(encoding="utf-8"))["lines"] for i in range(shards)]
    return {"kept": sum(kept for kept, _ in read), "dropped": sum(dropped for _, dropped in read)}
