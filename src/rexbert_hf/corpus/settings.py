"""What a curation may say: one dataclass tree, filled from YAML and the command line."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from huggingface_hub.utils import validate_repo_id

from ..settings.tree import Node
from .audit import AuditSettings
from .build import BuildSettings
from .distil import DistilSettings
from .documents import DocumentSource
from .ecommerce import ECOMMERCE
from .judging import FilterSettings
from .label import LabelSettings
from .own_sources import without_sample_card
from .sample import SampleSettings
from .select import SelectSettings
from .vertical import Vertical

STAGES = ("select", "sample", "label", "audit", "distil", "filter", "build")
"""In the order in which they run."""
Stage = Literal["select", "sample", "label", "audit", "distil", "filter", "build"]


@dataclass
class CurateSettings:
    """A whole curation.

    Attributes:
        sources: where documents come from.
        vertical: what the corpus shall hold: description, labels, keywords and examples, or a YAML file with them.
        output_dir: the run's folder, with a folder for each stage and the corpus in `corpus`.
        stages: which to run; the others are taken as they lie in `output_dir`. Without `select` all domains are taken.
        select: how domains are chosen.
        sample: which documents are labelled.
        label: by whom.
        audit: the second opinion.
        distil: how the classifier is trained.
        filter: what is kept.
        build: how the corpus is written, and what its card says.
        workers: processes that filter; 0 for one a core.
        push_to_hub: "user/name" to push the corpus to.
        push_classifier_to_hub: "user/name" to push the classifier to.
        private: whether new repositories are private.
    """

    sources: list[DocumentSource]
    vertical: Vertical | Path = field(default_factory=lambda: ECOMMERCE)
    output_dir: Path = Path("output/curate")
    stages: list[Stage] = field(default_factory=lambda: list(STAGES))  # type: ignore[arg-type]
    select: SelectSettings = field(default_factory=SelectSettings)
    sample: SampleSettings = field(default_factory=SampleSettings)
    label: LabelSettings = field(default_factory=LabelSettings)
    audit: AuditSettings = field(default_factory=AuditSettings)
    distil: DistilSettings = field(default_factory=DistilSettings)
    filter: FilterSettings = field(default_factory=FilterSettings)
    build: BuildSettings = field(default_factory=BuildSettings)
    workers: int = 0
    push_to_hub: str | None = None
    push_classifier_to_hub: str | None = None
    private: bool | None = None

    @staticmethod
    def arrange_tree(root: Node) -> Node:
        """Leave the sample web's card out, where documents are the user's own.

        Args:
            root: the configuration as written.
        """
        return without_sample_card(root)

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("sources is empty: name at least one source of documents")
        if not self.stages:
            raise ValueError(f"stages is empty: name some of {', '.join(STAGES)}")
        if self.workers < 0:
            raise ValueError(f"workers is at least 0 (one a core); got {self.workers}")
        for name in filter(None, (self.push_to_hub, self.push_classifier_to_hub)):
            validate_repo_id(name)

    @property
    def processes(self) -> int:
        """Workers, resolved."""
        return self.workers or os.cpu_count() or 1

    @property
    def domain(self) -> Vertical:
        """The vertical, read.

        Raises:
            SettingsError: if its file cannot be read or has a wrong key.
        """
        return self.vertical if isinstance(self.vertical, Vertical) else Vertical.load(self.vertical)
