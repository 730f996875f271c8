"""What a paper's reproduction is: one base recipe, stages that override it, seeds, measures and claims, as YAML.

A stage trains for a number of tokens and may start from the model of another one, so a costly common beginning is
trained once a seed, or once for all. Every row of the table is a stage; all rows have the same tokens behind them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rexbert_hf.pretraining import PretrainSettings
from rexbert_hf.reproduction.stages import Branch, BranchStage, Measure, Recipe, Stage
from rexbert_hf.settings import SettingsError
from rexbert_hf.settings.ranges import check_above_zero, check_least
from rexbert_hf.settings.tree import closest


@dataclass
class Claim:
    """An effect: one row beats another in a value by more than `at_least`, seed by seed.

    Attributes:
        name: short name.
        text: the claim in words.
        value: which value, as `measure.key`.
        row: the row that should be better.
        than: the row that it is compared with.
        than_value: which value of that row; None for the same.
        at_least: smallest difference; negative allows a loss.
        relative: the difference is a share of the other row's value: -.03 says that 97 % are kept.
        paper: what the paper says.
    """

    name: str
    text: str
    value: str
    row: str
    than: str
    than_value: str | None = None
    at_least: float = 0.0
    relative: bool = False
    paper: str = "not published"

    @property
    def values(self) -> tuple[str, str]:
        """The two values that are compared."""
        return self.value, self.than_value or self.value


@dataclass
class CurveSettings:
    """Learning curves: some values, measured on the checkpoints of each row and drawn beside the table.

    Attributes:
        values: values to draw, as `measure.key`, and their headings.
        points: checkpoints of a row, evenly spaced.
        seeds: how many of the seeds have curves, from the first on.
    """

    values: dict[str, str]
    points: int = 5
    seeds: int = 1

    def __post_init__(self) -> None:
        if not self.values or min(self.points, self.seeds) < 1:
            raise ValueError("curves need at least one value, one point and one seed")

    @property
    def measures(self) -> set[str]:
        """Names of the measures that give the values."""
        return {value.split(".")[0] for value in self.values}


@dataclass
class LexiconSettings:
    """Where brands and product types come from.

    Attributes:
        path: a file of products or of category paths.
        category_path: its column of category paths.
        brand: its column of brands, if it has one.
        format: of the file, where the name does not say it.
        max_types: most product types taken.
        exclude: terms that mostly mean something else in running text.
    """

    path: str
    category_path: str = "category_path"
    brand: str | None = None
    format: str | None = None
    max_types: int = 5000
    exclude: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_least(self, max_types=0)


@dataclass
class PhraseSettings:
    """A phrase pool that is mined from training documents and guides all stages.

    Attributes:
        sources: names of the sources whose documents are mined.
        positives: a catalogue or taxonomy whose names are known phrases; None: the sample shop's.
        max_size: most phrases kept, the best; None for all.
        options: of `PhrasePool.mine`.
    """

    sources: list[str]
    positives: LexiconSettings | None = None
    max_size: int | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_least(self, max_size=1)


@dataclass
class JudgedPairs:
    """Judged pairs of training queries as a source, for query-product pre-finetuning.

    Attributes:
        recipe: of `recipes`; its `data` has the pairs.
        source: of the base recipe; its path becomes the file of pairs (columns query, title, relevance of 0 or 1).
    """

    recipe: str
    source: str


@dataclass
class ReproductionSettings:
    """The reproduction of one paper.

    Attributes:
        paper: its short name.
        title: heading of the table.
        budget: minutes for everything: data, calibration, all rows and seeds, evaluation.
        base: the pre-training recipe that all stages share.
        stages: what is trained.
        recipes: what downstream stages run, by name.
        branches: downstream steps after each row, whose values stand in its line.
        parts: share of the training time of the stages that name a part; those without share what is left.
        rows: names of the rows to run; None for all.
        seeds: each is a whole repetition.
        measures: what is measured on each row.
        columns: values that the table shows, and their headings.
        further: more tables of the same rows: title -> columns.
        claims: effects to test.
        curves: learning curves to record; None for none.
        output_dir: folder of the reproduction; starting again on it resumes.
        min_steps: stop if the budget allows a stage fewer optimizer steps.
        calibration_steps: steps of each stage that measure its speed.
        spare: share of the budget that is left unplanned.
        confidence: of the intervals that decide on the claims.
        equal_tokens: refuse rows of a group with different budgets of tokens, or of steps of one recipe (a row without
            any pre-training stands for itself).
        lexicons: a catalogue or taxonomy whose brands and product types guide.
        phrases: a phrase pool to mine and match; None for none.
        pairs: judged pairs as a source; None for none.
        without_data: dotted keys of the base recipe that replace it where `base.data_dir` does not exist.
        notes: lines under the table.
    """

    paper: str
    base: PretrainSettings
    stages: list[Stage]
    recipes: dict[str, Recipe] = field(default_factory=dict)
    branches: list[Branch] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)
    title: str = ""
    budget: float = 25.0
    rows: list[str] | None = None
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    measures: list[Measure] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    further: dict[str, dict[str, str]] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    curves: CurveSettings | None = None
    output_dir: Path = Path("output/reproduce")
    min_steps: int = 40
    calibration_steps: int = 8
    spare: float = 0.1
    confidence: float = 0.95
    equal_tokens: bool = True
    lexicons: LexiconSettings | None = None
    phrases: PhraseSettings | None = None
    pairs: JudgedPairs | None = None
    without_data: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.budget <= 0:
            raise ValueError(f"budget must be positive; got {self.budget:g} minutes")
        if len(set(self.seeds)) < max(1, len(self.seeds)):
            raise ValueError(f"seeds must be one or more different numbers; got {self.seeds}")
        if not 0 <= self.spare < 1 or not 0 < self.confidence < 1:
            raise ValueError("spare must lie in [0, 1) and confidence in (0, 1)")
        if self.calibration_steps < 2:
            raise ValueError("calibration_steps must be at least 2: the first half warms up")
        for name in self.phrases.sources if self.phrases else []:
            if name not in self.base.sources:
                _refuse("phrases.sources", "names", name, self.base.sources)
        if self.pairs is not None and self.pairs.recipe not in self.recipes:
            _refuse("pairs.recipe", "names", self.pairs.recipe, self.recipes)
        if self.pairs is not None and self.pairs.source not in self.base.sources:
            _refuse("pairs.source", "names", self.pairs.source, self.base.sources)
        self._check_names()
        check_above_zero(self, "budget")
        check_least(self, min_steps=1)

    def _check_names(self) -> None:
        names = [stage.name for stage in self.all_stages]
        rows = [stage.name for stage in self.stages if stage.row]
        if len(set(names)) < len(names) or not rows:
            raise ValueError(f"stages need different names and at least one row; got {', '.join(names) or 'none'}")
        for number, stage in enumerate(self.all_stages):
            self._check_stage(stage, names[:number])
        if sum(stage.share or 0.0 for stage in self.stages) + sum(self.parts.values()) >= 1:
            raise ValueError("stages: the shares of shared stages and parts leave no training time for the others")
        for branch in self.branches:
            for name in branch.rows or []:
                if name not in rows:
                    _refuse(f"branches.{branch.name}", "names the row", name, rows)
        for name in self.rows or []:
            if name not in rows:
                _refuse("rows", "names", name, rows)
        self._check_report(rows)

    def _check_stage(self, stage: Stage, known: list[str]) -> None:
        for what, name in [("comes after", stage.after), *(("needs", name) for name in stage.needs)]:
            if name is not None and name not in known:
                _refuse("stages", f"'{stage.name}' {what}", name, known)
        by_name = {part.name: part for part in self.all_stages}
        own = [part for part in (*self.chain(stage), *(by_name[name] for name in stage.needs)) if not part.shared]
        if stage.shared and own:
            raise ValueError(f"stages: '{stage.name}' is shared by all seeds, but '{own[0].name}' is not")
        if stage.recipe is not None and stage.recipe not in self.recipes:
            _refuse("stages", f"'{stage.name}' names the recipe", stage.recipe, self.recipes)
        if stage.part is not None and stage.part not in self.parts:
            _refuse("stages", f"'{stage.name}' names the part", stage.part, self.parts)

    def _check_report(self, rows: list[str]) -> None:
        measures = [measure.name for measure in self.measures]
        for measure in self.measures:
            if measure.branch is not None and measure.branch not in [branch.name for branch in self.branches]:
                names = [branch.name for branch in self.branches]
                _refuse(f"measures.{measure.name}", "names the branch", measure.branch, names)
            for name in measure.rows or []:
                if name not in rows:
                    _refuse(f"measures.{measure.name}", "names the row", name, rows)
        for claim in self.claims:
            for name in (claim.row, claim.than):
                if name not in rows:
                    _refuse(f"claims.{claim.name}", "names the row", name, rows)
        for value in self.shown_values():
            if value.split(".")[0] not in measures:
                _refuse("columns, claims and curves", "name the measure", value.split(".")[0], measures)

    def shown_values(self) -> dict[str, str]:
        """Values, as MEASURE.KEY, that the report shows or judges by, and the part of the settings that names each."""
        further = [(value, f"further.{name}") for name, columns in self.further.items() for value in columns]
        claimed = [(value, f"claims.{claim.name}") for claim in self.claims for value in claim.values]
        drawn = [(value, "curves") for value in (self.curves.values if self.curves else ())]
        return dict([*drawn, *claimed, *further, *((value, "columns") for value in self.columns)])

    def check_values(self, given: Collection[str]) -> None:
        """Refuse values that measures do not give, before rows are trained for them.

        Args:
            given: MEASURE.KEY of all values that a first measuring gave; a measure without any is not looked at, since
                its data may be missing.

        Raises:
            ValueError: with the first one that is not given, and what its measure gives.
        """
        for value, place in self.shown_values().items():
            name = value.split(".")[0]
            keys = sorted(one.removeprefix(f"{name}.") for one in given if one.startswith(f"{name}."))
            if keys and value not in given:
                wanted = value.removeprefix(name).removeprefix(".")
                raise ValueError(f"{place}: measure '{name}' gives no '{wanted}'; it gives {', '.join(keys)}")

    @property
    def all_stages(self) -> list[Stage]:
        """The stages as written, and after each row its branches."""
        found: list[Stage] = []
        for stage in self.stages:
            found.append(stage)
            if stage.row:
                found += [b.stage_after(stage) for b in self.branches if b.rows is None or stage.name in b.rows]
        return found

    def chosen_rows(self) -> list[Stage]:
        """Stages that become rows."""
        return [stage for stage in self.stages if stage.row and (self.rows is None or stage.name in self.rows)]

    def branches_of(self, row: Stage) -> list[Stage]:
        """The branches after a row."""
        return [stage for stage in self.all_stages if isinstance(stage, BranchStage) and stage.of == row.name]

    def needed_stages(self) -> list[Stage]:
        """The chosen rows, their branches, and all that they start from or need, in order."""
        stages = self.all_stages
        by_name = {stage.name: stage for stage in stages}
        left = [branch for row in self.chosen_rows() for branch in [row, *self.branches_of(row)]]
        needed: set[str] = set()
        while left:
            stage = left.pop()
            needed.add(stage.name)
            left += [by_name[name] for name in (stage.after, *stage.needs) if name is not None and name not in needed]
        return [stage for stage in stages if stage.name in needed]

    def chain(self, stage: Stage) -> list[Stage]:
        """The stages that lead to one, itself last; what it merely needs is not among them."""
        by_name = {part.name: part for part in self.all_stages}
        before = self.chain(by_name[stage.after]) if stage.after is not None else []
        return [*before, stage]

    def check_budgets(self, amounts: Mapping[str, int]) -> None:
        """Refuse rows of a group with different numbers of tokens, or of steps of the same recipe, behind them.

        Args:
            amounts: tokens of each pre-training stage, steps of each downstream one.

        Raises:
            SettingsError: if two rows differ (rows that are shared stages, where others begin, have fewer).
        """
        kinds: dict[tuple[str, str | None], dict[str, int]] = {}
        for row in self.chosen_rows():
            if not row.shared:
                for recipe in {stage.recipe for stage in self.chain(row)}:
                    total = sum(amounts[stage.name] for stage in self.chain(row) if stage.recipe == recipe)
                    kinds.setdefault((row.group, recipe), {})[row.name] = total
        for (_, recipe), totals in kinds.items():
            if self.equal_tokens and len(set(totals.values())) > 1:
                listing = ", ".join(f"{name} {total:,}" for name, total in totals.items())
                what = "token budgets" if recipe is None else f"budgets of steps of '{recipe}'"
                raise SettingsError(f"the rows have different {what} ({listing}): make them equal")


def _refuse(key: str, what: str, name: str, known: Iterable[str]) -> None:
    known = list(known)
    near = closest(name, known)
    hint = f"did you mean '{near}'?" if near else f"known: {', '.join(known) or 'none'}"
    raise ValueError(f"{key}: {what} '{name}', which does not exist; {hint}")
