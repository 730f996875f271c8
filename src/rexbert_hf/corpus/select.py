"""Stage 1: how much of each domain is in the vertical, estimated from a sample; the domains that are worth reading.

The paper (RexBERT) picks nine of FineFineWeb's fifty domains this way; its rule is not public. Ours is the estimated
share, with Wilson's interval beside it, because the sample of a domain is small.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..metrics.agreement import wilson_interval
from .documents import Document, DocumentSource, read_documents, sources_key
from .labels import Label, Labeller, with_progress
from .sample import draw
from .stages import StageReport, begin, stage_key, write_json
from .vertical import Vertical

logger = logging.getLogger(__name__)

DOMAINS = "domains.json"


@dataclass(frozen=True)
class SelectSettings:
    """How domains are judged.

    Attributes:
        per_domain: documents of each that are labelled.
        seed: of the sample.
        min_share: of in-domain documents that a domain needs.
        judge_by: "share", the estimate; or "low", the lower end of its interval, which asks for proof.
        confidence: of the interval.
        include: domains that are picked whatever their share.
        exclude: domains that are never picked.
    """

    per_domain: int = 200
    seed: int = 0
    min_share: float = 0.1
    judge_by: Literal["share", "low"] = "share"
    confidence: float = 0.95
    include: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.per_domain < 1:
            raise ValueError(f"per_domain is at least 1, got {self.per_domain}")
        if not 0.0 <= self.min_share <= 1.0:
            raise ValueError(f"min_share is a share in [0, 1], got {self.min_share}")
        both = sorted(set(self.include) & set(self.exclude))
        if both:
            raise ValueError(f"'{both[0]}' is in both include and exclude")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence is between 0 and 1, got {self.confidence}")


def select(
    settings: SelectSettings,
    vertical: Vertical,
    sources: Sequence[DocumentSource],
    labeller: Labeller,
    output: str | Path,
) -> StageReport:
    """Estimate the in-domain share of each domain and pick those above a share, into `domains.json`.

    Args:
        settings: sample size and rule.
        vertical: what in-domain means.
        sources: where documents are; all are read once.
        labeller: who labels the sample; see `make_labeller`.
        output: folder for `domains.json` and the report.

    Returns:
        The report. `written` counts labelled documents.

    Raises:
        ConnectionError: if the endpoint of the labeller is not there or goes away.
        FileNotFoundError: if a source is not there.
        ValueError: if there is no document, no label, too many failures, or no domain above the share.

    Example:
        >>> import tempfile
        >>> from rexbert_hf.corpus.ecommerce import ECOMMERCE
        >>> from rexbert_hf.corpus.offline_labellers import KeywordLabeller
        >>> folder = Path(tempfile.mkdtemp())
        >>> for domain, text in (("hobby", "Kit {}, $9. In stock, add to cart."), ("news", "Day {} of rain.")):
        ...     (folder / domain).mkdir()
        ...     _ = (folder / domain / "a.txt").write_text("".join(text.format(i) + chr(10) for i in range(9)))
        >>> source = DocumentSource(str(folder))
        >>> report = select(SelectSettings(), ECOMMERCE, [source], KeywordLabeller(ECOMMERCE), folder / "select")
        >>> report.details["picked"]
        ['hobby']
    """
    output, started = Path(output), time.monotonic()
    key = stage_key("select", 1, settings, vertical, sources_key(sources), labeller.key)
    if (done := begin(output, key)) is not None:
        return done
    report = StageReport("select", key)
    drawn = draw(read_documents(sources, report), report, settings.per_domain, settings.seed)
    documents = drawn.documents()
    if not documents:
        raise ValueError(f"no document to select by: {report.read:,} were read, {report.reasons or 'none was there'}")
    labelled, in_domain = _count(labeller, vertical, documents, report)
    sizes = drawn.sizes()  # of all domains together
    rows = [
        _row(settings, domain, drawn.seen[domain], sizes[domain], labelled[domain], in_domain[domain])
        for domain in sorted(drawn.seen)
    ]
    rows.sort(key=lambda row: -row["share"])
    report.details |= {"picked": [row["domain"] for row in rows if row["picked"]], "labeller": labeller.name}
    report.details |= labeller.figures()
    report.seconds = round(time.monotonic() - started, 3)
    _check(settings, labeller, report, rows)
    write_json(output / DOMAINS, {"vertical": vertical.name, "min_share": settings.min_share, "domains": rows})
    report.save(output, [DOMAINS])
    logger.info("select: %d of %d domains: %s", len(report.details["picked"]), len(rows), report.details["picked"])
    return report


def _count(
    labeller: Labeller, vertical: Vertical, documents: Sequence[Document], report: StageReport
) -> tuple[Counter[str], Counter[str]]:
    """Labelled and in-domain documents of each domain."""
    labelled: Counter[str] = Counter()
    in_domain: Counter[str] = Counter()
    for document, outcome in zip(documents, with_progress(labeller, documents, len(documents)), strict=True):
        if not isinstance(outcome, Label):
            report.drop(outcome.reason)
            continue
        report.written += 1
        labelled[document.domain] += 1
        in_domain[document.domain] += vertical.is_in_domain(outcome.label)
    return labelled, in_domain


def _row(
    settings: SelectSettings, domain: str, seen: int, sampled: int, labelled: int, in_domain: int
) -> dict[str, Any]:
    """A domain's line in `domains.json`."""
    found = wilson_interval(in_domain, labelled, settings.confidence)
    share = found.value if labelled else 0.0
    judged = share if settings.judge_by == "share" else found.low
    above = bool(labelled) and judged >= settings.min_share
    return {
        "domain": domain,
        "seen": seen,
        "sampled": sampled,
        "labelled": labelled,
        "in_domain": in_domain,
        "share": round(share, 6),
        "low": round(found.low, 6),
        "high": round(found.high, 6),
        "picked": domain in settings.include or (above and domain not in settings.exclude),
    }


def _check(
    settings: SelectSettings, labeller: Labeller, report: StageReport, rows: Sequence[Mapping[str, Any]]
) -> None:
    if labeller.trouble is not None:
        raise ConnectionError(
            f"the endpoint is gone ({labeller.trouble}) after {report.written:,} labels; start again to go on"
        )
    tried = sum(row["sampled"] for row in rows)
    if tried - report.written > labeller.max_failed_share * tried:
        raise ValueError(
            f"{tried - report.written:,} of {tried:,} documents got no label ({report.reasons}), more than "
            f"max_failed_share={labeller.max_failed_share:g}: raise label.endpoint.max_tokens or attempts, correct the "
            "vertical's labels, or raise the share"
        )
    if not report.written:
        raise ValueError(f"no document got a label: {report.reasons}")
    missing = [domain for domain in settings.include if domain not in {row["domain"] for row in rows}]
    if missing:
        raise ValueError(f"include names '{missing[0]}', of which there is no document; domains: {_listed(rows)}")
    if not report.details["picked"]:
        raise ValueError(f"no domain reaches min_share={settings.min_share:g}: {_listed(rows)}")


def _listed(rows: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{row['domain']} {row['share']:.3f}" for row in rows[:10])
