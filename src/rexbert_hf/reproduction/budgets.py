"""The recipe of each stage as written, and what it costs in its own unit: tokens of phases, steps of later recipes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from rexbert_hf.pretraining import PretrainSettings
from rexbert_hf.reproduction.downstream import step_settings, written_steps
from rexbert_hf.reproduction.overrides import with_overrides
from rexbert_hf.reproduction.settings import ReproductionSettings
from rexbert_hf.reproduction.stages import Stage
from rexbert_hf.settings import SettingsError
from rexbert_hf.settings.tree import closest

TOKENS, STEPS = "tokens", "steps"


@dataclass(frozen=True)
class Budget:
    """What a stage trains as written.

    Attributes:
        amount: how much, in `unit`.
        unit: tokens or steps.
        steps: optimizer steps of its shortest phase.
        shortest: that phase, in words.
    """

    amount: int
    unit: str
    steps: float
    shortest: str


def stage_recipe(settings: ReproductionSettings, stage: Stage) -> Any:
    """The recipe of a stage as written, before seed, scale and folders.

    Args:
        settings: the reproduction.
        stage: which.

    Returns:
        `PretrainSettings`; for a downstream stage the settings of its kind.

    Raises:
        SettingsError: if it overrides an unknown key, or runs a phase that the base recipe does not have.
    """
    if stage.recipe is not None:
        return step_settings(settings.recipes[stage.recipe], stage)
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


def written_budget(settings: ReproductionSettings, stage: Stage, recipe: Any) -> Budget:
    """Tokens or steps of a stage before scaling.

    Args:
        settings: the reproduction.
        stage: which.
        recipe: what `stage_recipe` gave.
    """
    if stage.recipe is not None:
        steps = written_steps(settings.recipes[stage.recipe], recipe)
        return Budget(steps, STEPS, steps, f"stage '{stage.name}'")
    assert isinstance(recipe, PretrainSettings)
    tokens = {phase.name: phase.max_tokens or 0 for phase in recipe.phases}
    steps_of = {phase.name: tokens[phase.name] / phase.batch_tokens for phase in recipe.phases}
    shortest = min(steps_of, key=lambda name: steps_of[name])
    return Budget(sum(tokens.values()), TOKENS, steps_of[shortest], f"phase '{shortest}'")
