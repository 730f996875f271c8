"""From minutes to tokens and steps: what each stage costs on this machine, and the scale that fits all rows and seeds.

The calibration runs every stage for a few steps and every measure once, so a mistake in the last row shows in the
first minute. The plan is kept: a resumed reproduction trains the same tokens whatever the clock says then.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rexbert_hf.hub import redact
from rexbert_hf.hub.json_file import read_json_object
from rexbert_hf.hub.redaction import redacted_alike
from rexbert_hf.hub.run_file import write_whole
from rexbert_hf.reproduction.budgets import TOKENS, Budget
from rexbert_hf.reproduction.settings import ReproductionSettings
from rexbert_hf.settings import SettingsError, to_dict
from rexbert_hf.training.plan import differences, flatten

logger = logging.getLogger(__name__)

PLAN_FILE = "plan.json"
COSTS_FILE = "calibration.json"

_FREE = (
    "seeds",
    "rows",
    "columns",
    "further",
    "claims",
    "title",
    "notes",
    "confidence",
    "output_dir",
    "base.output_dir",
    "base.cache_dir",
)
"""Keys that may change between two starts: more seeds or fewer rows, and everything about the report."""

_STAGE_LABEL = re.compile(r"stages\.\d+\.label")
"""What the table calls a row; other labels, as of a source's column, decide what is trained or measured."""

_LABELS = "with_labels"
"""Key of a file that compares those labels; earlier versions left them all out."""

_TIME = re.compile(r"budget:|min_steps:|spare:|parts\.|stages\.\d+\.share:")
"""How much time there is and who gets it: another plan, but no stage costs more or less for it."""


@dataclass(frozen=True)
class Cost:
    """What a stage costs once.

    Attributes:
        speed: tokens or steps a second while training.
        overhead: seconds of loading and saving.
        measuring: seconds of all measures; 0 for what is no row.
        curve: seconds of one point of its learning curve.
    """

    speed: float
    overhead: float
    measuring: float = 0.0
    curve: float = 0.0


@dataclass(frozen=True)
class RunPlan:
    """What is trained.

    Attributes:
        scales: factor on the written budget of each stage; one for all but the stages with a share or a part.
        amounts: tokens (of a downstream stage: steps) of each stage.
        units: which of the two.
        steps: of the shortest phase of the stages without a share or a part.
        costs: by stage.
        seconds: expected, from here on.
    """

    scales: dict[str, float]
    amounts: dict[str, int]
    units: dict[str, str]
    steps: int
    costs: dict[str, Cost]
    seconds: float

    def lines(self, settings: ReproductionSettings) -> list[str]:
        """The plan in words, a line a stage."""
        out = []
        for stage in settings.needed_stages():
            cost, unit = self.costs[stage.name], self.units[stage.name]
            name = stage.name + (f" after {stage.after}" if stage.after else "")
            often = "once for all seeds" if stage.shared else "a seed"
            speed = f"{cost.speed:,.0f}" if unit == TOKENS else f"{cost.speed:.2f}"
            out.append(
                f"{name}: {self.amounts[stage.name]:,} {unit} {often} at {speed} {unit}/s"
                f" + {cost.overhead:.0f} s, measured in {cost.measuring:.0f} s"
            )
        rows = settings.chosen_rows()
        behind = max(self.tokens_behind(settings).values())
        out.append(
            f"{len(rows)} rows x {len(settings.seeds)} seeds, {behind:,} tokens through the encoder behind each row; "
            f"about {self.seconds / 60:.1f} minutes from here"
        )
        return out

    def tokens_behind(self, settings: ReproductionSettings) -> dict[str, int]:
        """Pre-training tokens behind each row.

        Args:
            settings: the reproduction.
        """
        return {
            row.name: sum(self.amounts[s.name] for s in settings.chain(row) if self.units[s.name] == TOKENS)
            for row in settings.chosen_rows()
        }


def fit(
    settings: ReproductionSettings, budgets: Mapping[str, Budget], costs: Mapping[str, Cost], spent: float = 0.0
) -> RunPlan:
    """Choose the scales that fit the budget, rounded down to whole steps of the shortest phase.

    Args:
        settings: the reproduction.
        budgets: of each stage as written.
        costs: measured.
        spent: seconds of the budget that are gone.

    Raises:
        SettingsError: if the budget does not allow `min_steps`; says which does.
    """
    stages = settings.needed_stages()
    times = {stage.name: 1 if stage.shared else len(settings.seeds) for stage in stages}
    fixed = sum(times[name] * (cost.overhead + cost.measuring) for name, cost in costs.items())
    if settings.curves:
        points = settings.curves.points * min(settings.curves.seeds, len(settings.seeds))
        fixed += points * sum(cost.curve for cost in costs.values())
    scales: dict[str, float] = {}
    steps = 0
    seconds = fixed
    for names, share in _groups(settings):
        training = sum(times[name] * budgets[name].amount / costs[name].speed for name in names)
        steps, whole = _whole_steps(settings, [budgets[name] for name in names], training / share, fixed, spent)
        scales |= dict.fromkeys(names, steps / whole)
        seconds += steps / whole * training
    amounts = {name: max(1, round(budget.amount * scales[name])) for name, budget in budgets.items()}
    units = {name: budget.unit for name, budget in budgets.items()}
    return RunPlan(scales, amounts, units, steps, dict(costs), seconds)


def _groups(settings: ReproductionSettings) -> list[tuple[list[str], float]]:
    """Stages that are scaled alike and their share of the training time; those without a share or part come last.

    What no chosen row needs leaves its share to the others.
    """
    stages = settings.needed_stages()
    groups = [([stage.name], stage.share) for stage in stages if stage.share is not None]
    for part, share in settings.parts.items():
        groups.append(([stage.name for stage in stages if stage.part == part], share))
    groups = [(names, share) for names, share in groups if names]
    rest = [stage.name for stage in stages if stage.share is None and stage.part is None]
    taken = sum(share for _, share in groups)
    if rest:
        return [*groups, (rest, 1 - taken)]
    return [(names, share / taken) for names, share in groups]


def _whole_steps(
    settings: ReproductionSettings, budgets: Sequence[Budget], training: float, fixed: float, spent: float
) -> tuple[int, float]:
    """Steps of the shortest phase that the minutes allow, and those that are written.

    Args:
        settings: the reproduction.
        budgets: of stages with one scale.
        training: seconds of the budget that they would take as written.
        fixed: seconds that do not depend on the scale.
        spent: seconds that are gone.
    """
    shortest = min(budgets, key=lambda budget: budget.steps)
    whole = shortest.steps
    steps = math.floor((settings.budget * 60 * (1 - settings.spare) - spent - fixed) / training * whole)
    if steps < settings.min_steps:
        needed = (settings.min_steps / whole * training + fixed + spent) / (1 - settings.spare) / 60
        raise SettingsError(
            f"a budget of {settings.budget:g} minutes allows {max(0, steps)} steps of {shortest.shortest}, but"
            f" min_steps is {settings.min_steps}: --budget {math.ceil(needed)} is needed on this machine, of which"
            f" {fixed / 60:.1f} minutes load, save and measure"
        )
    return steps, whole


def save_costs(costs: Mapping[str, Cost], settings: ReproductionSettings, hardware: str) -> None:
    """Keep a calibration: another budget need not measure again."""
    known = {name: dataclasses.asdict(cost) for name, cost in costs.items()}
    content = {"costs": known, "for": identity(settings), "hardware": hardware, _LABELS: True}
    write_whole(settings.output_dir / COSTS_FILE, json.dumps(content, indent=2).encode())


def load_costs(settings: ReproductionSettings, names: Sequence[str], hardware: str) -> dict[str, Cost] | None:
    """The calibration that the folder holds for these settings, however the time is shared out, on this hardware.

    Raises:
        ValueError: if the file is damaged.
    """
    path = settings.output_dir / COSTS_FILE
    if not path.exists():
        return None
    content = read_json_object(path, "delete it to measure again", ("for", "costs", "hardware"))
    changed = _changed(content, settings)
    known = set(names) <= set(content["costs"]) and content["hardware"] == hardware
    if not known or not all(_TIME.match(line) for line in changed):
        return None
    logger.info("calibration: as measured before (delete %s to measure again)", path)
    return {name: Cost(**content["costs"][name]) for name in names}


def save_plan(plan: RunPlan, settings: ReproductionSettings, hardware: str) -> None:
    """Keep a plan with what it was made for."""
    content = {"plan": dataclasses.asdict(plan), "for": identity(settings), "hardware": hardware, _LABELS: True}
    write_whole(settings.output_dir / PLAN_FILE, json.dumps(content, indent=2).encode())


def load_plan(settings: ReproductionSettings, names: Sequence[str]) -> RunPlan | None:
    """The plan that the folder holds, or None.

    Args:
        settings: the reproduction.
        names: stages that the plan must know.

    Raises:
        SettingsError: if the plan was made for other settings.
        ValueError: if the file is damaged.
    """
    path: Path = settings.output_dir / PLAN_FILE
    if not path.exists():
        return None
    content = read_json_object(path, "restore it, or choose another output_dir", ("for", "plan"))
    changed = _changed(content, settings)
    missing = [name for name in names if name not in content["plan"]["costs"]]
    if changed or missing:
        what = "; ".join(changed[:3]) or f"no stage {', '.join(missing)}"
        raise SettingsError(
            f"{settings.output_dir} holds a reproduction with another plan ({what}): choose another output_dir"
        )
    plan = content["plan"]
    return RunPlan(**{**plan, "costs": {name: Cost(**cost) for name, cost in plan["costs"].items()}})


def _changed(content: Mapping[str, Any], settings: ReproductionSettings) -> list[str]:
    """What differs from the settings that a file was written for, a line each."""
    was, now = redacted_alike(redact(content["for"]), identity(settings))
    if not content.get(_LABELS) and not any(key.endswith(".label") for key in was):
        now = {key: value for key, value in now.items() if not key.endswith(".label")}
    return differences(was, now)


def identity(settings: ReproductionSettings) -> dict[str, Any]:
    """What decides a plan, as it may be written: without secrets, so plans of earlier versions are compared so too.

    Args:
        settings: the reproduction.

    Returns:
        Plain values by dotted key.
    """
    flat = flatten(to_dict(settings))
    kept = {key: value for key, value in flat.items() if not key.startswith(tuple(f"{free}." for free in _FREE))}
    kept = {key: value for key, value in kept.items() if key not in _FREE and not _STAGE_LABEL.fullmatch(key)}
    if settings.pairs is not None:  # written into the output folder, which may move
        kept.pop(f"base.sources.{settings.pairs.source}.path", None)
    plain: dict[str, Any] = redact(json.loads(json.dumps(kept)))
    return plain
