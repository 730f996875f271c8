"""What a reproduction is made of: stages that train, branches after every row, measures, and recipes of later steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Recipe:
    """A recipe that downstream stages name (`reproduction.downstream`).

    Attributes:
        run: kind of step, such as finetune_search.
        settings: of that kind, as its own YAML has them.
        without_data: dotted keys that replace them where `base.data_dir` does not exist.
    """

    run: str
    settings: dict[str, Any] = field(default_factory=dict)
    without_data: dict[str, Any] = field(default_factory=dict)


@dataclass
class Stage:
    """One training run, repeated for each seed.

    Attributes:
        name: of its folders and results.
        phases: names of the base recipe's phases that it runs; empty for a downstream stage.
        after: stage whose model it starts from; None starts from scratch.
        label: what the table calls it.
        row: whether it is a row of the table.
        group: heading of its part of the table; rows of a group are compared, and have equal budgets.
        run: registered function that trains its phases.
        recipe: for a downstream stage: which of `recipes` it runs.
        needs: other stages whose folders its settings name in braces.
        shared: trained once, with the base recipe's seed, for the rows of all seeds. As a row, it is the model that the
            other rows start from: measured once, the same for each seed, and with fewer tokens behind it.
        share: share of the training time for a shared stage; None scales it with all others.
        part: stages with the same part are scaled alike, with that part's share of the training time (`parts`).
        settings: dotted keys of the base recipe (or of `recipe`) and their values, such as
            `phases.anneal.masking.kind: guided`.
        paper: what the paper reports, by column; empty where it publishes nothing.
        facts: what tells the row from others, for a table of variants: heading and text.
    """

    name: str
    phases: list[str] = field(default_factory=list)
    after: str | None = None
    label: str = ""
    row: bool = True
    group: str = ""
    run: str = "pretrain"
    recipe: str | None = None
    needs: list[str] = field(default_factory=list)
    shared: bool = False
    share: float | None = None
    part: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    paper: dict[str, float] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.share is not None and (not self.shared or not 0 < self.share < 1):
            raise ValueError(
                f"stage '{self.name}': share is for a shared stage and lies between 0 and 1; got {self.share:g}"
            )
        if self.share is not None and self.part is not None:
            raise ValueError(f"stage '{self.name}': share is for a stage of its own, part for several: set one")
        if bool(self.phases) == bool(self.recipe):
            raise ValueError(f"stage '{self.name}': give it phases (pre-training) or a recipe (a downstream step)")
        if self.needs and self.recipe is None:
            raise ValueError(f"stage '{self.name}': needs is for a downstream step; phases start from 'after'")


@dataclass
class Branch:
    """A downstream step after each row, whose values stand in the line of that row.

    Attributes:
        name: measures name it.
        recipe: which of `recipes` it runs.
        rows: after which rows; None for all.
        settings: dotted keys of the recipe and their values.
        part: as in `Stage`.
    """

    name: str
    recipe: str
    rows: list[str] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    part: str | None = None

    def stage_after(self, row: Stage) -> BranchStage:
        """The stage that this branch is after a row."""
        return BranchStage(
            f"{row.name}-{self.name}", after=row.name, row=False, recipe=self.recipe, part=self.part,
            settings=self.settings, label=f"{row.label or row.name}, {self.name}", of=row.name, branch=self.name,
        )  # fmt: skip


@dataclass
class BranchStage(Stage):
    """A branch after one row.

    Attributes:
        of: the row.
        branch: name of the branch.
    """

    of: str = ""
    branch: str = ""


@dataclass
class Measure:
    """Something that is measured on every row's model; its values are called `name.key`.

    Attributes:
        name: of the measure.
        kind: registered function that measures.
        options: its options.
        rows: on which rows; None for all.
        branch: measure the model of this branch after the row, in place of the row's own.
        without_data: options that replace those where `base.data_dir` does not exist.
        alike: it takes as long on every row, so calibration takes it once; for measures of minutes.
    """

    name: str
    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    rows: list[str] | None = None
    branch: str | None = None
    without_data: dict[str, Any] = field(default_factory=dict)
    alike: bool = False

    def applies(self, stage: Stage) -> bool:
        """Whether it is taken on a stage's model.

        Args:
            stage: a row or a branch; others are never measured.
        """
        branch = stage.branch if isinstance(stage, BranchStage) else None
        row = stage.of if isinstance(stage, BranchStage) else stage.name
        measured = stage.row or branch is not None
        return measured and branch == self.branch and (self.rows is None or row in self.rows)
