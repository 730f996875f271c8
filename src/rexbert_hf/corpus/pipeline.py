"""The pipeline: each stage in a folder of its own, taken as it is where it is finished, and `run.json` at the end.

One decision worth knowing: a stage learns of the ones before through their files alone, so any of them can run by
itself, on another machine, or be replaced by a file of one's own.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..hub import write_run
from ..hub.own_folder import check_own_folder
from ..hub.run_file import portable
from ..settings import sole_run, to_dict
from .audit import audit
from .build import build
from .card_facts import reasons_line
from .distil import distil
from .fasttext_model import FastTextClassifier
from .filtering import KEPT, filter_corpus
from .label import ANSWERS, LABELS, label, make_labeller
from .manifest import read_json
from .own_sources import check_audit_labels
from .publish import push_corpus
from .revisions import REVISIONS, held_sources
from .sample import DOCUMENTS, picked_domains, sample
from .select import DOMAINS, select
from .settings import STAGES, CurateSettings
from .stages import REPORT, StageReport, read_report

logger = logging.getLogger(__name__)

OnReport = Callable[[StageReport, str], None]

CORPUS = "corpus"
"""Folder of the built corpus; the other stages' folders have their names."""
_LEFTOVERS = (
    ".*.[0-9]*",
    *(f"{folder}/.*.[0-9]*" for folder in (*STAGES, CORPUS)),  # files under the number of the process that writes them
    f"{CORPUS}/.*.staged",
)


@sole_run(*_LEFTOVERS)
def curate(settings: CurateSettings, on_report: OnReport | None = None) -> dict[str, Any]:
    """Run the stages that the settings name, in their order, and push the corpus if asked for.

    Args:
        settings: the curation.
        on_report: called after each stage with its report and one line about it.

    Returns:
        What `run.json` gets as `results`: the report of each stage, `corpus` (its folder), and where things were
        pushed (`url`, `classifier_url`).

    Raises:
        FileNotFoundError: if a source is not there, or a stage that was not asked to run has not run.
        ValueError: for what a stage refuses, such as an audit below its bar, for an audit of one's own documents by
            the sample's labels, and for a folder with another run or a model.
        OSError: if the disk is full; finished stages stay.
    """
    check_own_folder(settings.output_dir, "label", makes_model=_has_worked_in(settings.output_dir))
    if "audit" in settings.stages:
        check_audit_labels(settings.audit, settings.sources, settings.output_dir / "audit")
    run = _Curation(settings)
    results: dict[str, Any] = {"stages": run.reports}
    for name in STAGES:
        if name in settings.stages:
            report = getattr(run, name)()
            run.reports[name] = report
            if on_report is not None:
                on_report(report, report_line(report))
    if "build" in settings.stages:
        results["corpus"] = str(run.folder("build"))
    results |= run.push()
    write_run(settings.output_dir, config=to_dict(run.settings), results=results)
    return results


def _has_worked_in(folder: Path) -> bool:
    """Whether a stage has finished there: a stopped curation has no `run.json`, and may hold a helper's model."""
    reports = [read_report(folder / (CORPUS if stage == "build" else stage)) for stage in STAGES]
    return any(report is not None and report.stage == stage for stage, report in zip(STAGES, reports, strict=True))


class _Curation:
    """The stages, and how one finds what another wrote."""

    def __init__(self, settings: CurateSettings) -> None:
        if set(settings.stages) & {"select", "sample", "filter"}:  # those that read the sources
            sources = held_sources(settings.sources, settings.output_dir / REVISIONS)
            settings = dataclasses.replace(settings, sources=sources)
        self.settings, self.vertical = settings, settings.domain
        self.reports: dict[str, StageReport] = {}
        # What select asks, label asks again: with one file of answers it is paid once.
        answers = settings.label.cache or str(settings.output_dir / ANSWERS)
        self.label_settings = dataclasses.replace(settings.label, cache=answers)

    def folder(self, stage: str) -> Path:
        return self.settings.output_dir / (CORPUS if stage == "build" else stage)

    def need(self, stage: str, by: str, file: str = REPORT) -> Path:
        """Folder of a finished stage."""
        folder = self.folder(stage)
        if not (folder / file).exists():
            raise FileNotFoundError(
                f"'{by}' needs what the stage '{stage}' writes, and {folder} holds no {file}: run that stage to its end"
            )
        return folder

    def domains(self) -> list[str] | None:
        """The selected domains; None for all, where no selection was made."""
        folder = self.folder("select")
        if "select" not in self.settings.stages and not folder.is_dir():  # a selection that failed is not "all"
            return None
        return picked_domains(self.need("select", "sample"))

    def select(self) -> StageReport:
        labeller = make_labeller(self.label_settings, self.vertical, self.folder("select"))
        return select(self.settings.select, self.vertical, self.settings.sources, labeller, self.folder("select"))

    def sample(self) -> StageReport:
        return sample(self.settings.sample, self.settings.sources, self.domains(), self.folder("sample"))

    def label(self) -> StageReport:
        documents = self.need("sample", "label") / DOCUMENTS
        return label(self.label_settings, self.vertical, documents, self.folder("label"))

    def audit(self) -> StageReport:
        documents = self.need("sample", "audit") / DOCUMENTS
        labels = self.need("label", "audit") / LABELS
        return audit(self.settings.audit, self.vertical, documents, labels, self.folder("audit"))

    def distil(self) -> StageReport:
        documents = self.need("sample", "distil") / DOCUMENTS
        labels = self.need("label", "distil") / LABELS
        return distil(self.settings.distil, self.vertical, documents, labels, self.folder("distil"))

    def filter(self) -> StageReport:
        classifier = self.need("distil", "filter")
        settings = self.settings
        return filter_corpus(
            settings.filter, settings.sources, self.domains(), classifier, self.folder("filter"), settings.processes
        )

    def build(self) -> StageReport:
        kept = self.settings.build.kept
        before = STAGES[:-1] if kept is None else STAGES[:-2]  # another job's documents did not pass our filter
        reports = {name: found for name in before if (found := self.report(name)) is not None}
        kept = kept or self.need("filter", "build") / KEPT
        config = to_dict(self.settings) | {"vertical": to_dict(self.vertical)}
        config = portable(config, self.settings.output_dir)
        return build(self.settings.build, kept, reports, self.folder("build"), config=config)

    def push(self) -> dict[str, str]:
        """Push what the settings name; the addresses."""
        settings, urls = self.settings, {}
        if settings.push_to_hub:
            folder = self.need("build", "push")
            urls["url"] = push_corpus(folder, settings.push_to_hub, private=settings.private)
        if settings.push_classifier_to_hub:
            card = settings.build.card
            sources = [f"{source.name} ({source.license or 'licence unknown'})" for source in card.sources]
            classifier = FastTextClassifier.load(self.need("distil", "push"))
            urls["classifier_url"] = classifier.push_to_hub(
                settings.push_classifier_to_hub, private=settings.private, language=card.language, sources=sources
            )
        return urls

    def report(self, stage: str) -> StageReport | None:
        """Report of a stage of this run, or of an earlier one."""
        report = self.reports.get(stage) or read_report(self.folder(stage))
        if report is not None and stage == "select":
            rows = (read_json(self.folder(stage) / DOMAINS) or {}).get("domains")
            report = dataclasses.replace(report, details={**report.details, "domains": rows})
        return report


def report_line(report: StageReport) -> str:
    """One line about a stage: what went in, what came out, and why not.

    Example:
        >>> report_line(StageReport("filter", "k", read=5, written=3, reasons={"language": 2}, seconds=1.25))
        'filter: 5 read, 3 written; left out: language 2 (1.2 s)'
    """
    why = reasons_line(report.reasons)
    text = f"{report.stage}: {report.read:,} read, {report.written:,} written"
    text += f"; left out: {why}" if why else ""
    figures = _figures(report.stage, report.details)
    text += f"; {figures}" if figures else ""
    return f"{text} ({report.seconds:.1f} s)"


def _figures(stage: str, details: dict[str, Any]) -> str:
    """What a stage is run for."""
    if stage == "select":
        return f"domains: {', '.join(details.get('picked') or [])}"
    if stage == "audit" and (whole := (details.get("audit") or {}).get("all")):
        kappa = whole["kappa"]["value"]
        shown = "undefined" if kappa is None else f"{kappa:.3f}"
        return f"agreement {whole['agreement']['value']:.3f}, kappa {shown}"
    if stage == "distil" and (test := details.get("test")):
        return f"F1 {test['f1']:.3f} at threshold {details['threshold']:.2f}"
    if stage == "build" and (domains := details.get("domains")):
        total = sum(domain["tokens"] for domain in domains.values())
        return f"{total:,} {details['unit']} in {len(domains)} domains"
    return ""
