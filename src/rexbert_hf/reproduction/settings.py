"""What a paper's reproduction is: one base recipe, stages that override it, seeds, measures and claims, as YAML.

A stage trains for a number of tokens and may start from the model of another one, so a costly common beginning is
trained once a seed, or once for all. Every row of the table is a stage; all rows have the same tokens behind them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rexbert_hf.pretraining import PretrainSettings
from rexbert_hf.settings import SettingsError, to_dict
from rexbert_hf.settings.command_line import override
from rexbert_hf.settings.convert import build
from rexbert_hf.settings.tree import closest, from_value


@dataclass
class Stage:
    """One training run, repeated for each seed.

    Attributes:
        name: of its folders and results.
        phases: names of the base recipe's phases that it runs.
        after: stage whose model it starts from; None starts from scratch.
        label: what the table calls it.
        row: whether it is a row of the table.
        run: registered function that trains it.
        shared: trained once, with the base recipe's seed, for the rows of all seeds. As a row, it is the model that the
            other rows start from: measured once, the same for each seed, and with fewer tokens behind it.
        share: share of the training time for a shared stage; None scales it with all others.
        settings: dotted keys of the base recipe and their values, such as `phases.anneal.masking.kind: guided`.
        paper: what the paper reports, by column; empty where it publishes nothing.
    """

    name: str
    phases: list[str]
    after: str | None = None
    label: str = ""
    row: bool = True
    run: str = "pretrain"
    shared: bool = False
    share: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    paper: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.share is not None and (not self.shared or not 0 < self.share < 1):
            raise ValueError(
                f"stage '{self.name}': share is for a shared stage and lies between 0 and 1; got {self.share:g}"
            )


@dataclass
class Measure:
    """Something that is measured on every row's model; its values are called `name.key`.

    Attributes:
        name: of the measure.
        kind: registered function that measures.
        options: its options.
    """

    name: str
    kind: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Claim:
    """An effect: one row beats another in a value by more than `at_least`, seed by seed.

    Attributes:
        name: short name.
        text: the claim in words.
        value: which value, as `measure.key`.
        row: the row that should be better.
        than: the row that it is compared with.
        at_least: smallest difference; negative allows a loss.
        paper: what the paper says.
    """

    name: str
    text: str
    value: str
    row: str
    than: str
    at_least: float = 0.0
    paper: str = "not published"


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


@dataclass
class ReproductionSettings:
    """The reproduction of one paper.

    Attributes:
        paper: its short name.
        title: heading of the table.
        budget: minutes for everything: data, calibration, all rows and seeds, evaluation.
        base: the pre-training recipe that all stages share.
        stages: what is trained.
        rows: names of the rows to run; None for all.
        seeds: each is a whole repetition.
        measures: what is measured on each row.
        columns: values that the table shows, and their headings.
        claims: effects to test.
        curves: learning curves to record; None for none.
        output_dir: folder of the reproduction; starting again on it resumes.
        min_steps: stop if the budget allows a stage fewer optimizer steps.
        calibration_steps: steps of each stage that measure its speed.
        spare: share of the budget that is left unplanned.
        confidence: of the intervals that decide on the claims.
        equal_tokens: refuse rows with different token budgets.
        lexicons: a catalogue or taxonomy whose brands and product types guide.
        phrases: a phrase pool to mine and match; None for none.
        without_data: dotted keys of the base recipe that replace it where `base.data_dir` does not exist.
        notes: lines under the table.
    """

    paper: str
    base: PretrainSettings
    stages: list[Stage]
    title: str = ""
    budget: float = 25.0
    rows: list[str] | None = None
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    measures: list[Measure] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
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
        self._check_names()

    def _check_names(self) -> None:
        names = [stage.name for stage in self.stages]
        rows = [stage.name for stage in self.stages if stage.row]
        if len(set(names)) < len(names) or not rows:
            raise ValueError(f"stages need different names and at least one row; got {', '.join(names) or 'none'}")
        for number, stage in enumerate(self.stages):
            known = names[:number]
            if stage.after is not None and stage.after not in known:
                _refuse("stages", f"'{stage.name}' comes after", stage.after, known)
            if stage.shared and not all(part.shared for part in self.chain(stage)):
                raise ValueError(f"stages: '{stage.name}' is shared by all seeds, but '{stage.after}' is not")
        if sum(stage.share or 0.0 for stage in self.stages) >= 1:
            raise ValueError("stages: the shares of the shared stages leave no training time for the others")
        for name in self.rows or []:
            if name not in rows:
                _refuse("rows", "names", name, rows)
        measures = [measure.name for measure in self.measures]
        for claim in self.claims:
            for name in (claim.row, claim.than):
                if name not in rows:
                    _refuse(f"claims.{claim.name}", "names the row", name, rows)
        drawn = self.curves.values if self.curves else {}
        for value in [*self.columns, *(claim.value for claim in self.claims), *drawn]:
            if value.split(".")[0] not in measures:
                _refuse("columns, claims and curves", "name the measure", value.split(".")[0], measures)

    def chosen_rows(self) -> list[Stage]:
        """Stages that become rows."""
        return [stage for stage in self.stages if stage.row and (self.rows is None or stage.name in self.rows)]

    def needed_stages(self) -> list[Stage]:
        """The chosen rows and all that they start from, in order."""
        needed = {stage.name for row in self.chosen_rows() for stage in self.chain(row)}
        return [stage for stage in self.stages if stage.name in needed]

    def chain(self, stage: Stage) -> list[Stage]:
        """The stages that lead to one, itself last."""
        by_name = {stage.name: stage for stage in self.stages}
        before = self.chain(by_name[stage.after]) if stage.after is not None else []
        return [*before, stage]

    def check_tokens(self, tokens: Mapping[str, int]) -> None:
        """Refuse rows with different numbers of tokens behind them.

        Args:
            tokens: written budget of each stage.

        Raises:
            SettingsError: if two rows differ (rows that are shared stages, where others begin, have fewer).
        """
        rows = [row for row in self.chosen_rows() if not row.shared]
        totals = {row.name: sum(tokens[stage.name] for stage in self.chain(row)) for row in rows}
        if self.equal_tokens and len(set(totals.values())) > 1:
            listing = ", ".join(f"{name} {total:,}" for name, total in totals.items())
            raise SettingsError(f"the rows have different token budgets ({listing}): make them equal")


def _refuse(key: str, what: str, name: str, known: Iterable[str]) -> None:
    known = list(known)
    near = closest(name, known)
    hint = f"did you mean '{near}'?" if near else f"known: {', '.join(known) or 'none'}"
    raise ValueError(f"{key}: {what} '{name}', which does not exist; {hint}")


def with_overrides(base: PretrainSettings, overrides: Mapping[str, Any], where: str) -> PretrainSettings:
    """Lay dotted keys over a pre-training recipe, checked like a command line.

    Args:
        base: the recipe.
        overrides: dotted keys and values; a mapping or list replaces what was there.
        where: named in errors.

    Raises:
        SettingsError: for an unknown key or a value of the wrong type.
    """
    root = from_value(to_dict(base), where)
    try:
        for key, value in overrides.items():
            override(root, PretrainSettings, key, value if isinstance(value, str) else json.dumps(value))
        return build(PretrainSettings, root)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}".replace("command line --", "").replace("--", "")) from None


def stage_recipe(settings: ReproductionSettings, stage: Stage) -> PretrainSettings:
    """The pre-training recipe of a stage as written, before seed, scale and folders.

    Args:
        settings: the reproduction.
        stage: which.

    Raises:
        SettingsError: if it overrides an unknown key, or runs a phase that the base recipe does not have.
    """
    recipe = with_overrides(settings.base, stage.settings, f"stage '{stage.name}'")
    phases = {phase.name: phase for phase in recipe.phases}
    for name in stage.phases:
        if name not in phases:
            near = closest(name, phases)
            hint = f"did you mean '{near}'?" if near else f"the base recipe has {', '.join(phases) or 'none'}"
            raise SettingsError(f"stage '{stage.name}': no phase '{name}'; {hint}")
        if phases[name].max_tokens is None:
            raise SettingsError(f"stage '{stage.name}': phase '{name}' needs max_tokens, which the budget scales")
    return dataclasses.replace(recipe, phases=[phases[name] for name in stage.phases])


def written_tokens(recipe: PretrainSettings) -> int:
    """Tokens of a recipe's phases before scaling."""
    return sum(phase.max_tokens or 0 for phase in recipe.phases)
