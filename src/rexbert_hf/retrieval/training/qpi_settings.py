"""What `recipes/qpi.py` may be told: a pre-training run over pairs, its objective, and when it stops."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from rexbert_hf.pretraining import PretrainSettings
from rexbert_hf.pretraining.settings import MatryoshkaSettings
from rexbert_hf.settings.ranges import check_least

KINDS = {"span": "query_product", "relevance": "relevance"}
"""Masking kind of each objective."""


@dataclass
class EarlyStopping:
    """When the last phase of a run stops before its budget is spent; earlier ones take all of theirs.

    Attributes:
        every_steps: evaluate on the held-out pairs every so many steps; 0 for never (the budget decides).
        patience: stop after so many evaluations in a row that are not better than the best.
        min_gain: accuracy that an evaluation must gain to be better.
    """

    every_steps: int = 50
    patience: int = 3
    min_gain: float = 0.0

    def __post_init__(self) -> None:
        if self.every_steps < 0 or self.patience < 1 or self.min_gain < 0:
            raise ValueError("every_steps and min_gain must not be negative, patience is at least 1")
        check_least(self, min_gain=0)


@dataclass
class QPISettings(PretrainSettings):
    """A run of query-product interaction pre-finetuning; all of a pre-training run, and what is below.

    Attributes:
        objective: "span" masks spans on one side of each pair; "relevance" classifies pairs in its place (the paper's
            FT* variant), over the same sources and tokens.
        early_stopping: on the held-out pairs, with the objective's own accuracy; the best weights are kept.
    """

    output_dir: str = "output/qpi"
    objective: Literal["span", "relevance"] = "span"
    early_stopping: EarlyStopping = field(default_factory=EarlyStopping)

    def __post_init__(self) -> None:
        if self.objective == "relevance":
            self._classify()
        super().__post_init__()
        if not any(source.pairs is not None for source in self.sources.values()):
            raise ValueError("no source has pairs: set --sources.NAME.pairs (recipes/build_pairs.py makes them)")
        if not any(phase.masking.kind in KINDS.values() for phase in self.phases):
            raise ValueError(f"no phase trains on pairs: set masking.kind of one to {KINDS['span']}")

    @property
    def classifies_pairs(self) -> bool:
        """With the objective "relevance"."""
        return self.objective == "relevance"

    def card_fields(self) -> dict[str, Any]:
        """A classifier of pairs is no model that fills masks."""
        if self.objective == "span":
            return super().card_fields()
        tags = ["rexbert", "e-commerce", "product-search"]
        own = {"template": "relevance_card.md", "pipeline_tag": "text-classification", "tags": tags}
        return super().card_fields() | own

    def _classify(self) -> None:
        """The same phases with the relevance of pairs in place of spans; irrelevant pairs are needed then."""
        if isinstance(self.model.matryoshka, MatryoshkaSettings):
            raise ValueError(
                "objective 'relevance' trains a classifier, which has no sub-models: drop model.matryoshka"
            )
        self.model.matryoshka = "off"  # nor would the grid of a checkpoint be trained
        for phase in self.phases:
            if phase.masking.kind == KINDS["span"]:
                names = ("permute_fields", "token_type_ids")
                options = {name: value for name, value in phase.masking.options.items() if name in names}
                phase.masking = dataclasses.replace(phase.masking, kind=KINDS["relevance"], options=options)
            elif phase.masking.kind != KINDS["relevance"]:
                raise ValueError(
                    f"phase '{phase.name}': objective 'relevance' classifies pairs in every phase, and its masking.kind"
                    f" is '{phase.masking.kind}': drop the phase"
                )
        for source in self.sources.values():
            if source.pairs is not None:
                source.pairs.min_relevance = None
