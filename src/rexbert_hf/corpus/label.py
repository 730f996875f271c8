"""Stage 3: label the sampled documents. `labels.jsonl` and `failed.jsonl` together hold every document once, in order.

One decision worth knowing: `report.json` is written only when every document was tried. If the endpoint goes away, what
is finished is kept in `labels.partial.jsonl`, the rest is listed in `failed.partial.jsonl`, the stage ends with an
error, and the next start goes on from the answers that are on disk.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq

from ..catalog.sources import with_home
from ..settings.ranges import check_share
from .document_files import parquet_files, read_parquet
from .documents import Document
from .labels import Label, Labeller, json_line, with_progress
from .llm_client import EndpointSettings
from .llm_labeller import LLMLabeller
from .offline_labellers import KeywordLabeller, ReadyLabels, ReadySettings
from .stages import StageReport, begin, files_key, stage_key
from .vertical import Vertical

logger = logging.getLogger(__name__)

LABELS, FAILED, ANSWERS = "labels.jsonl", "failed.jsonl", "answers.jsonl"


@dataclass(frozen=True)
class LabelSettings:
    """Who labels.

    Attributes:
        kind: "keywords" (offline), "ready" (labels from a file) or "llm".
        ready: for "ready".
        endpoint: for "llm".
        cache: file of the answers of "llm"; "" puts it into the stage's folder.
        max_failed_share: of documents, for "llm": with more `select` and `label` are not finished and a new start tries
            them again; with far more they stop on the way. In an audit also of those that a person leaves without one.
    """

    kind: Literal["keywords", "ready", "llm"] = "keywords"
    ready: ReadySettings = field(default_factory=ReadySettings)
    endpoint: EndpointSettings = field(default_factory=EndpointSettings)
    cache: str = ""
    max_failed_share: float = 0.05

    def __post_init__(self) -> None:
        check_share(self, "max_failed_share")


def make_labeller(settings: LabelSettings, vertical: Vertical, folder: str | Path) -> Labeller:
    """The labeller that the settings name.

    Args:
        settings: who labels.
        vertical: what to look for.
        folder: where answers are kept unless `settings.cache` says it.

    Raises:
        ValueError: if something that the kind needs is not set.
        FileNotFoundError: if ready labels are not there.
    """
    if settings.kind == "llm":
        return LLMLabeller(
            settings.endpoint,
            vertical,
            with_home(settings.cache) if settings.cache else Path(folder) / ANSWERS,
            settings.max_failed_share,
        )
    if settings.kind == "ready":
        return ReadyLabels(settings.ready, vertical)
    return KeywordLabeller(vertical)


def label(settings: LabelSettings, vertical: Vertical, documents_path: str | Path, output: str | Path) -> StageReport:
    """Label documents.

    Args:
        settings: who labels.
        vertical: what to look for.
        documents_path: Parquet of the stage `sample`.
        output: folder for `labels.jsonl`, `failed.jsonl`, the answers of a language model, and the report.

    Returns:
        The report: `details` has labels by domain, tokens and cost.

    Raises:
        ConnectionError: if the endpoint is not there, or goes away; what is finished is kept.
        ValueError: if too many documents failed, or none got a label; of a model's answers none is lost.
        FileNotFoundError: if there are no documents.

    Example:
        >>> import tempfile
        >>> from rexbert_hf.corpus.document_files import write_documents
        >>> from rexbert_hf.corpus.ecommerce import ECOMMERCE
        >>> folder = Path(tempfile.mkdtemp())
        >>> documents = [Document("a", "Mug, $9. In stock, add to cart.", "", "food"), Document("b", "It rained.")]
        >>> _ = write_documents(folder / "documents.parquet", documents)
        >>> report = label(LabelSettings(), ECOMMERCE, folder / "documents.parquet", folder / "labels")
        >>> report.read, report.written, report.details["by_domain"]
        (2, 2, {'food': {'shop': 1}, 'unknown': {'general': 1}})
    """
    output, started = Path(output), time.monotonic()
    files = parquet_files(documents_path)
    labeller = make_labeller(settings, vertical, output)
    key = stage_key("label", 1, labeller.key, vertical, files_key(files))
    if (done := begin(output, key)) is not None:
        return done
    report = StageReport("label", key)
    _write(output, report, labeller, vertical, files)
    report.details |= {"labeller": labeller.name, **labeller.figures()}
    report.seconds = round(time.monotonic() - started, 3)
    _check(labeller, report, output)
    for name in (LABELS, FAILED):
        os.replace(_partial(output, name), output / name)
    report.save(output, [LABELS, FAILED])
    logger.info("label: %d of %d documents, %s", report.written, report.read, report.reasons or "none failed")
    return report


def _write(output: Path, report: StageReport, labeller: Labeller, vertical: Vertical, files: Sequence[Path]) -> None:
    """Write both files under names of their own, which keep what a stage that did not get to its end has found."""
    output.mkdir(parents=True, exist_ok=True)
    names = (LABELS, FAILED)
    by_domain: dict[str, Counter[str]] = {}
    domains: dict[str, str] = {}
    with ExitStack() as stack:
        labels, failed = (stack.enter_context(_partial(output, name).open("w", encoding="utf-8")) for name in names)
        documents = _unrepeated(read_parquet(files), domains, report)
        for outcome in with_progress(labeller, documents, sum(pq.read_metadata(file).num_rows for file in files)):
            if isinstance(outcome, Label):
                labels.write(json_line(outcome))
                report.written += 1
                by_domain.setdefault(domains[outcome.id], Counter())[outcome.label] += 1
            else:
                failed.write(json_line(outcome))
                report.drop(outcome.reason)
    report.details["by_domain"] = {domain: dict(sorted(counts.items())) for domain, counts in sorted(by_domain.items())}
    total = sum(by_domain.values(), Counter())
    report.details["labels"] = dict(sorted(total.items()))
    report.details["in_domain"] = sum(count for name, count in total.items() if vertical.is_in_domain(name))


def _unrepeated(documents: Iterable[Document], domains: dict[str, str], report: StageReport) -> Iterator[Document]:
    """Documents whose identifier was not seen before; fills in the domain of each."""
    for document in documents:
        report.read += 1
        if document.id in domains:
            report.drop("repeated_id")
            continue
        domains[document.id] = document.domain
        yield document


def _partial(output: Path, name: str) -> Path:
    return (output / name).with_suffix(".partial.jsonl")


def _check(labeller: Labeller, report: StageReport, output: Path) -> None:
    failed = sum(report.reasons.values()) - report.reasons.get("repeated_id", 0)
    if labeller.trouble is not None:
        raise ConnectionError(
            f"the endpoint is gone ({labeller.trouble}): {report.written:,} of {report.read:,} documents are labelled "
            f"and kept in {_partial(output, LABELS)}; start again to go on"
        )
    if failed > labeller.max_failed_share * report.read:
        raise ValueError(
            f"{failed:,} of {report.read:,} documents got no label ({_counts(report)}), more than max_failed_share="
            f"{labeller.max_failed_share:g}: read {_partial(output, FAILED)}, then start again or raise the share"
        )
    if report.read and not report.written:
        raise ValueError(
            f"none of {report.read:,} documents got a label ({_counts(report)}): read {_partial(output, FAILED)}"
        )


def _counts(report: StageReport) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(report.reasons.items()))
