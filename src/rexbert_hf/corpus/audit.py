"""Stage 4: do labels hold before a second pair of eyes? A second labeller sees a stratified sample, blind.

Two decisions worth knowing. Strata (domain x label) are sampled evenly, so that rare labels are looked at, and weighted
by their sizes when agreement is computed. And the bar is a gate: `report.json` exists only for an audit that passed;
`audit.json` and the disagreements are written in any case.
"""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..catalog.escapes import as_cell
from ..catalog.sources import with_home
from ..metrics.agreement import Agreement, Interval, stratified_agreement, wilson_interval
from .audit_sheet import read_sheet, write_sheet
from .document_files import parquet_files, read_parquet
from .documents import Document
from .label import LABELS, LabelSettings, make_labeller
from .labels import Label, Labeller, read_labels, with_progress
from .sample import StratifiedSample
from .stages import StageReport, begin, files_key, stage_key, write_json
from .vertical import Vertical

logger = logging.getLogger(__name__)

AUDIT, DISAGREEMENTS, SHEET = "audit.json", "disagreements.csv", "sheet.csv"
_SHOWN_CHARS = 2_000


@dataclass(frozen=True)
class AuditSettings:
    """Who looks again, at how much, and what must come of it.

    Attributes:
        by: "labeller" (a second model, or ready labels) or "person" (a sheet that somebody fills in).
        labeller: the second labeller.
        sheet: the person's CSV with columns id and label; "" looks for `sheet.csv` in the stage's folder. If it is not
            there it is written, to be filled in but for a share of `labeller.max_failed_share`; if another sample is
            drawn later, it gets rows for the documents that are new, and keeps its labels.
        per_stratum: documents of each pair of domain and label.
        seed: of the sample.
        compare: "in_domain" asks whether both find a document wanted or unwanted, which is what the corpus depends on;
            "label" asks for equal labels.
        min_agreement: the bar.
        min_kappa: a second bar, on Cohen's kappa; null for none.
        confidence: of the intervals.
    """

    by: Literal["labeller", "person"] = "labeller"
    labeller: LabelSettings = field(default_factory=LabelSettings)
    sheet: str = ""
    per_stratum: int = 30
    seed: int = 1
    compare: Literal["in_domain", "label"] = "in_domain"
    min_agreement: float = 0.85
    min_kappa: float | None = None
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.per_stratum < 1:
            raise ValueError(f"per_stratum is at least 1, got {self.per_stratum}")
        if not 0.0 <= self.min_agreement <= 1.0:
            raise ValueError(f"min_agreement is a share in [0, 1], got {self.min_agreement}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence is between 0 and 1, got {self.confidence}")


@dataclass(frozen=True, slots=True)
class _Pair:
    """A document with both its labels."""

    document: Document
    first: Label
    second: Label


def audit(
    settings: AuditSettings,
    vertical: Vertical,
    documents_path: str | Path,
    labels_path: str | Path,
    output: str | Path,
) -> StageReport:
    """Compare labels with those of a second labeller.

    Args:
        settings: who, how much, and the bar.
        vertical: whose labels they are.
        documents_path: Parquet of the stage `sample`.
        labels_path: `labels.jsonl` of the stage `label`, or its folder.
        output: folder for `audit.json`, `disagreements.csv`, the sheet and the report.

    Returns:
        The report: `details["audit"]` is what `audit.json` holds.

    Raises:
        ValueError: if agreement is under the bar (all files but the report are written), or a sheet waits to be filled
            or has more rows without a label than `labeller.max_failed_share` allows.
        ConnectionError: if the endpoint of the second labeller is not there or goes away.
        FileNotFoundError: if documents or labels are not there.

    Example:
        >>> import tempfile
        >>> from rexbert_hf.corpus.document_files import write_documents
        >>> from rexbert_hf.corpus.ecommerce import ECOMMERCE
        >>> from rexbert_hf.corpus.label import label
        >>> folder = Path(tempfile.mkdtemp())
        >>> documents = [Document("a", "Mug, $9. Add to cart.", "", "food"), Document("b", "It rained.", "", "food")]
        >>> path = write_documents(folder / "documents.parquet", documents)[0]
        >>> _ = label(LabelSettings(), ECOMMERCE, path, folder / "labels")
        >>> report = audit(AuditSettings(), ECOMMERCE, path, folder / "labels", folder / "audit")
        >>> report.details["audit"]["all"]["agreement"]["value"], report.reasons
        (1.0, {})
    """
    output, started = Path(output), time.monotonic()
    labels_path = Path(labels_path) / LABELS if Path(labels_path).is_dir() else Path(labels_path)
    files = parquet_files(documents_path)
    labels = {label.id: label for label in read_labels(labels_path)}
    if not labels:
        raise ValueError(f"{labels_path}: no label to audit; run the stage `label` again")
    drawn, sizes, report = _draw(settings, files, labels)
    second = _second_labeller(settings, vertical, drawn, labels, output)
    report.key = stage_key("audit", 1, settings, vertical, second.key, files_key([*files, labels_path]))
    if (done := begin(output, report.key)) is not None:
        return done
    first = next(iter(labels.values())).labeller
    if first == second.name:
        logger.warning("audit: '%s' is compared with itself, which proves nothing; set another audit.labeller", first)
    pairs = _pairs(drawn, labels, second, report)
    found = _figures(settings, vertical, pairs, sizes)
    report.details |= {"audit": found, "first": first, "second": second.name}
    report.details |= second.figures()
    report.seconds = round(time.monotonic() - started, 3)
    write_json(output / AUDIT, found)
    _write_disagreements(output / DISAGREEMENTS, settings, vertical, pairs)
    _check_done(settings, second, report, len(drawn), output)
    _check_bar(settings, found, output)
    report.save(output, [AUDIT, DISAGREEMENTS])
    logger.info("audit: agreement %.3f over %d documents", found["all"]["agreement"]["value"], len(pairs))
    return report


def _stratum(document: Document, label: Label) -> str:
    return f"{document.domain}\t{label.label}"


def _draw(
    settings: AuditSettings, files: Sequence[Path], labels: dict[str, Label]
) -> tuple[list[Document], dict[str, int], StageReport]:
    """Documents to look at again, and the size of each stratum."""
    report, drawn = StageReport("audit", ""), StratifiedSample(settings.per_stratum, settings.seed)
    for document in read_parquet(files):
        report.read += 1
        label = labels.get(document.id)
        if label is None:
            report.drop("no_label")
        else:
            # The sample goes by "domain", which is the stratum here; the document's own comes back below.
            drawn.add(Document(document.id, document.text, document.url, _stratum(document, label)))
    documents = [
        Document(one.id, one.text, one.url, one.domain.rpartition("\t")[0])
        for one in sorted(drawn.documents(), key=lambda one: one.id)  # an order that says nothing about labels
    ]
    for reason, count in (("repeated_id", drawn.repeated), ("not_drawn", sum(drawn.seen.values()) - len(documents))):
        if count:
            report.drop(reason, count)
    return documents, dict(drawn.seen), report


def _sheet(settings: AuditSettings, output: Path) -> Path:
    return with_home(settings.sheet) if settings.sheet else output / SHEET


def _second_labeller(
    settings: AuditSettings, vertical: Vertical, drawn: Sequence[Document], labels: dict[str, Label], output: Path
) -> Labeller:
    if settings.by == "labeller":
        return make_labeller(settings.labeller, vertical, output)
    sheet = _sheet(settings, output)
    if not sheet.exists():
        write_sheet(sheet, drawn, vertical)
        raise ValueError(
            f"{sheet}: {len(drawn)} documents wait for a person's labels ({', '.join(vertical.labels)}): fill in the "
            "column 'label' and start again"
        )
    return read_sheet(sheet, vertical, labels, drawn, settings.labeller.max_failed_share)


def _pairs(drawn: Sequence[Document], labels: dict[str, Label], second: Labeller, report: StageReport) -> list[_Pair]:
    pairs = []
    for document, outcome in zip(drawn, with_progress(second, drawn, len(drawn)), strict=True):
        if isinstance(outcome, Label):
            pairs.append(_Pair(document, labels[document.id], outcome))
        else:
            report.drop(outcome.reason)
    report.written = len(pairs)
    if not pairs and second.trouble is None:
        raise ValueError(
            f"audit.labeller: {second.name} labelled none of {len(drawn)} documents ({report.reasons}): set one that"
            " knows these documents"
        )
    return pairs


def _names(settings: AuditSettings, vertical: Vertical) -> list[str]:
    return ["in_domain", "other"] if settings.compare == "in_domain" else list(vertical.labels)


def _seen_as(settings: AuditSettings, vertical: Vertical, label: Label) -> str:
    if settings.compare == "label":
        return label.label
    return "in_domain" if vertical.is_in_domain(label.label) else "other"


def _figures(
    settings: AuditSettings, vertical: Vertical, pairs: Sequence[_Pair], sizes: dict[str, int]
) -> dict[str, Any]:
    """Agreement over all, by domain and by first label, and the weighted table."""
    names = _names(settings, vertical)
    strata = sorted({_stratum(pair.document, pair.first) for pair in pairs})
    tables = np.zeros((len(strata), len(names), len(names)))
    for pair in pairs:
        first, second = (names.index(_seen_as(settings, vertical, label)) for label in (pair.first, pair.second))
        tables[strata.index(_stratum(pair.document, pair.first)), first, second] += 1
    weights = np.array([sizes[stratum] for stratum in strata], dtype=np.float64)
    groups = [(stratum.rpartition("\t")[0], stratum.rpartition("\t")[2]) for stratum in strata]
    by: dict[str, dict[str, Any]] = {"by_domain": {}, "by_label": {}}
    for which, place in (("by_domain", 0), ("by_label", 1)):
        for name in sorted({group[place] for group in groups}):
            chosen = [i for i, group in enumerate(groups) if group[place] == name]
            by[which][name] = _agreement(settings, tables[chosen], weights[chosen])
    return {
        "compare": settings.compare,
        "bar": {"min_agreement": settings.min_agreement, "min_kappa": settings.min_kappa},
        "pairs": len(pairs),
        "all": _agreement(settings, tables, weights) if pairs else None,
        **by,
        "labels": names,
        "table": tables.sum(0).astype(int).tolist(),
    }


def _agreement(settings: AuditSettings, tables: np.ndarray, weights: np.ndarray) -> dict[str, Any]:
    found: Agreement = stratified_agreement(tables, weights, settings.confidence, seed=settings.seed)
    unweighted = wilson_interval(float(np.trace(tables.sum(0))), found.pairs, settings.confidence)
    return {
        "pairs": found.pairs,
        "agreement": _rounded(found.agreement),
        "kappa": _rounded(found.kappa),
        "unweighted_agreement": _rounded(unweighted),
    }


def _rounded(interval: Interval) -> dict[str, float | None]:
    # JSON has no nan: kappa has no value where both labellers gave one and the same label to everything.
    return {name: None if np.isnan(value) else round(value, 6) for name, value in asdict(interval).items()}


def _write_disagreements(path: Path, settings: AuditSettings, vertical: Vertical, pairs: Sequence[_Pair]) -> None:
    """Where the two differ, the surest first, for reading."""
    differing = [
        pair for pair in pairs if _seen_as(settings, vertical, pair.first) != _seen_as(settings, vertical, pair.second)
    ]
    differing.sort(key=lambda pair: (-(pair.first.confidence + pair.second.confidence), pair.document.id))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        columns = ("id", "domain", "url", "first", "first_confidence", "first_reason",
                   "second", "second_confidence", "second_reason", "text")  # fmt: skip
        writer.writerow(columns)
        for pair in differing:
            document, first, second = pair.document, pair.first, pair.second
            row = [document.id, document.domain, document.url, first.label, first.confidence, first.reason]
            row += [second.label, second.confidence, second.reason, document.text[:_SHOWN_CHARS]]
            writer.writerow([as_cell(cell) if isinstance(cell, str) else cell for cell in row])


def _check_done(settings: AuditSettings, second: Labeller, report: StageReport, drawn: int, output: Path) -> None:
    if second.trouble is not None:
        raise ConnectionError(f"the endpoint is gone ({second.trouble}) during the audit; start again to go on")
    missing = drawn - report.written
    if missing <= settings.labeller.max_failed_share * drawn:
        return
    if settings.by == "person":
        raise ValueError(
            f"{_sheet(settings, output)}: {missing:,} of {drawn:,} documents have no label yet: fill them in and start "
            "again, or raise audit.labeller.max_failed_share"
        )
    if settings.labeller.kind == "llm":
        raise ValueError(
            f"audit: {second.name} labelled only {report.written:,} of {drawn:,} documents ({report.reasons}); start "
            "again, or raise labeller.max_failed_share"
        )


def _check_bar(settings: AuditSettings, found: dict[str, Any], output: Path) -> None:
    agreement, kappa = found["all"]["agreement"], found["all"]["kappa"]
    reading = f"read {output / DISAGREEMENTS}, then mend the vertical's labels or examples, or change the labeller"
    if agreement["value"] < settings.min_agreement:
        raise ValueError(
            f"audit: agreement is {agreement['value']:.3f} ({agreement['low']:.3f} to {agreement['high']:.3f}), under "
            f"min_agreement={settings.min_agreement:g}: {reading}"
        )
    if settings.min_kappa is not None and (kappa["value"] is None or kappa["value"] < settings.min_kappa):
        shown = "undefined" if kappa["value"] is None else f"{kappa['value']:.3f}"
        raise ValueError(f"audit: kappa is {shown}, under min_kappa={settings.min_kappa:g}: {reading}")
